"""The five content signals of RedPajama-V2: brackets, filler, stop words, and block lists."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.text import TextBatch, per_document
from pipeline.word_hashes import hash_sets, ngram_hash, normalise, word_hash
from pipeline.words import ALPHA
from quality.registry import Context, scores, signal

_LOREM_IPSUM = b"lorem ipsum"
_PIECE = 1 << 20


@signal(
    "rps_doc_curly_bracket", needs=("characters", "tally"), source="RedPajama-V2; C4 (Raffel et al. 2020, 2.2)", range=(0, 1)
)
def curly_brackets(text: TextBatch) -> pa.Array:
    """Occurrences of `{` and `}` over characters of the raw text; 0 for an empty text."""
    return scores(text.tally.curly_brackets / np.maximum(text.characters, 1))


@signal("rps_doc_ldnoobw_words", needs="words", columns="language", resources="ldnoobw", source="RedPajama-V2; LDNOOBW",
        range=(0, None))  # fmt: skip
def blocked_words(text: TextBatch, context: Context) -> pa.Array:
    """Runs of normalised words that are entries of the LDNOOBW list of the document's language; null without a list.

    Fixed: the entries are normalised like the text. As published they are compared as they stand, so that one with an
    accent, a capital or a punctuation mark never matches.
    """
    from pipeline.word_kernels import count_phrases

    phrases = context.resources.once(f"ldnoobw {context.mode}", lambda: _Phrases(context.resources.ldnoobw, context.mode))
    which, found = by_language(text, phrases.languages), np.empty(len(text), np.int64)
    words = text.words
    count_phrases(words.offsets, words.hashes, which, *phrases.firsts, phrases.widths, *phrases.all, found)
    return scores(found, which >= 0)


@signal("rps_doc_lorem_ipsum", needs="words", source="RedPajama-V2; C4 (Raffel et al. 2020, 2.2)", range=(0, 1))
def lorem_ipsum(text: TextBatch) -> pa.Array:
    """Occurrences of "lorem ipsum" in the normalised text over its characters; 0 for an empty one."""
    words, found = text.words, np.zeros(len(text), np.int64)
    # Hardly any text has it, and a search through all of them in pieces finds that out at once.
    reach = range(0, len(words.utf8), _PIECE)
    if any(_LOREM_IPSUM in words.utf8[p : p + _PIECE + len(_LOREM_IPSUM)].tobytes() for p in reach):
        spans = itertools.pairwise(words.byte_offsets.tolist())
        found[:] = [words.utf8[start:end].tobytes().count(_LOREM_IPSUM) for start, end in spans]
    # One space between words.
    characters = per_document(words.lengths, words.offsets) + np.maximum(words.counts - 1, 0)
    return scores(found / np.maximum(characters, 1))


@signal("rps_doc_stop_word_fraction", needs="raw_words", columns="language", resources="stop_words",
        source="RedPajama-V2; stopwords-json", range=(0, 1))  # fmt: skip
def stop_word_fraction(text: TextBatch, context: Context) -> pa.Array:
    """Raw words that are stop words of the document's language over all raw words; 0 without words, null without a list.

    Fixed: case does not matter. As published "The" is no stop word.
    """
    from pipeline.word_kernels import count_members

    def prepare() -> tuple[list[str], NDArray[np.int64], NDArray[np.uint64]]:
        lists = context.resources.stop_words
        return [*lists], *hash_sets(_stop_words(words, context.mode) for words in lists.values())

    languages, *sets = context.resources.once(f"stop_words {context.mode}", prepare)
    which, found = by_language(text, languages), np.empty(len(text), np.int64)
    words = text.raw_words
    count_members(words.offsets, words.hashes, which, *sets, found)
    for document in np.flatnonzero((found > 0) & (words.has(ALPHA) == 0)).tolist():
        if not _has_words(text, document):
            found[document] = 0  # a list may have punctuation marks, but a text of nothing else has no words
    return scores(found / np.maximum(words.counts, 1), which >= 0)


@signal("rps_doc_ut1_blacklist", columns="source_domain", resources="ut1", source="RedPajama-V2; UT1 (Toulouse)",
        range=(0, None))  # fmt: skip
def block_listed_domain(text: TextBatch, context: Context) -> pa.Array:
    """Number of the combination of UT1 categories that the document's domain is in; null if it is in none.

    Fixed: user name, port, a final dot and capitals do not matter, and a domain is in its own categories or else in those of
    the nearest domain above it (`www.example.com` in those of `example.com`). As published only the very same name matches.
    """
    if "source_domain" not in text.columns:
        return pa.nulls(len(text), pa.float64())
    encoded = text.columns["source_domain"].cast(pa.string()).dictionary_encode()
    fixed, table = context.mode == "fixed", context.resources.ut1
    numbers = [_domain_number(domain, table) if fixed else table.get(domain) for domain in encoded.dictionary.to_pylist()]
    return pa.array(numbers, pa.float64()).take(encoded.indices)


def category_numbers(categories: Iterable[str]) -> dict[tuple[str, ...], int]:
    """The number of each combination of categories: its place among all, the smaller first, then by name.

    RedPajama-V2's numbering; with its 13 categories, 0 is `adult` and 8190 all of them.
    """
    ordered = sorted(set(categories))
    sizes = range(1, len(ordered) + 1)
    combinations = itertools.chain.from_iterable(itertools.combinations(ordered, size) for size in sizes)
    return {combination: number for number, combination in enumerate(combinations)}


def by_language(text: TextBatch, languages: Sequence[str]) -> NDArray[np.int64]:
    """The place of each document's language among these, int64 (documents,); -1 if it is not one of them or not known."""
    if "language" not in text.columns or not languages:
        return np.full(len(text), -1, np.int64)
    column = text.columns["language"].cast(pa.string())
    places = pc.call_function("index_in", [column], pc.SetLookupOptions(pa.array(languages, pa.string())))
    return pc.fill_null(places, -1).to_numpy(zero_copy_only=False).astype(np.int64)


class _Phrases:
    """Sets of phrases by language, as `count_phrases` reads them."""

    def __init__(self, lists: Mapping[str, Sequence[str]], mode: str) -> None:
        self.languages = [*lists]
        phrases = [{words for entry in entries if (words := _split(entry, mode))} for entries in lists.values()]
        self.all = hash_sets({ngram_hash(words) for words in told} for told in phrases)
        widths: list[dict[int, int]] = []
        for told in phrases:
            of: dict[int, int] = {}
            for words in told:
                first = word_hash(words[0])
                of[first] = of.get(first, 0) | 1 << len(words)
            widths.append(of)
        self.firsts = offsets, slots = hash_sets(widths)
        self.widths = np.zeros(len(slots), np.uint64)
        for of, begin, end in zip(widths, offsets[:-1], offsets[1:], strict=True):
            self.widths[begin:end] = [of.get(h, 0) for h in slots[begin:end].tolist()]


def _split(entry: str, mode: str) -> tuple[str, ...]:
    """The words of an entry; none if it has two spaces in a row, which no normalised text has, or is absurdly long."""
    words = tuple(normalise(entry).split() if mode == "fixed" else entry.split(" "))
    return words if all(words) and len(words) < 64 else ()


def _has_words(text: TextBatch, document: int) -> bool:
    """Whether a document has anything but ASCII punctuation and white space; a look at its beginning mostly tells."""
    begin, end = text.offsets[document : document + 2].tolist()
    pieces = (text.data[p : min(p + _PIECE, end)].tobytes().decode(errors="ignore") for p in range(begin, end, _PIECE))
    return any(normalise(piece).strip() for piece in pieces)


def _stop_words(words: Iterable[str], mode: str) -> set[int]:
    """Hashes of stop words, in all their spellings for the mode."""
    spellings = set(words)
    if mode == "fixed":
        spellings |= {spelled for w in words for spelled in (w.lower(), w.upper(), w.lower().capitalize())}
    return {word_hash(w) for w in spellings}


def _domain_number(domain: str | None, numbers: Mapping[str, int]) -> int | None:
    if domain is None:
        return None
    host = urlsplit(f"//{domain}").hostname if "]" not in domain else domain
    labels = (host or "").rstrip(".").split(".")
    names: Sequence[str] = [".".join(labels[i:]) for i in range(len(labels))]
    return next((numbers[name] for name in (domain, *names) if name in numbers), None)
