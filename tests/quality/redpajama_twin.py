"""RedPajama-V2's signals in plain Python, word by word as its definitions read: the oracle of the tests, and the peer of the
benchmark. One document at a time, Python's own strings, dictionaries and regular expressions; nothing of the package."""

from __future__ import annotations

import hashlib
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import regex

BULLETS = ("\u2022", "\u2023", "\u25b6", "\u25c0", "\u25e6", "\u25a0", "\u25a1", "\u25aa", "\u25ab", "\u2013")
_DELETE = str.maketrans("", "", string.punctuation)
_WORD = regex.compile(r"\w+|[^\w\s]+")
_SENTENCE = re.compile(r"\b[^.!?]+[.!?]*")
_LINE = re.compile(r"([^\n]*\n|[^\n]+$)")
_LETTER = re.compile(r"[a-zA-Z]")
Value = float | None | list[float | None]


def normalize(text: str) -> str:
    text = text.translate(_DELETE).lower().strip()
    return unicodedata.normalize("NFD", re.sub(r"\s+", " ", text))


@dataclass
class Document:
    """A text, cut up once."""

    raw: str
    domain: str | None = None

    @cached_property
    def normalized(self) -> str:
        return normalize(self.raw)

    @cached_property
    def words(self) -> list[str]:
        return self.normalized.split()

    @cached_property
    def raw_words(self) -> list[str]:
        return _WORD.findall(self.raw)

    @cached_property
    def lines(self) -> list[tuple[int, int, str, str]]:
        return [(m.start(), m.end(), m[0], normalize(m[0])) for m in _LINE.finditer(self.raw)]

    @cached_property
    def ngrams(self) -> dict[int, list[tuple[str, ...]]]:
        return {n: list(zip(*(self.words[i:] for i in range(n)), strict=False)) for n in range(2, 11)}


@dataclass
class Lists:
    """The lists of one language. weights: by target, log p - log q per bucket, and the Poisson means of target and source."""

    stop_words: frozenset[str] | None = None
    blocked: Sequence[str] = ()
    domains: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, tuple[np.ndarray, float, float]] = field(default_factory=dict)
    hash: Callable[[object], int] = hash


def signals(document: Document, lists: Lists) -> dict[str, Value]:
    """Every signal that needs no model, by its published name; those without their list are left out."""
    told: dict[str, Value] = {}
    told |= content(document, lists)
    told |= natural_language(document)
    told |= repetitions(document)
    told |= of_lines(document)
    told |= importance(document, lists)
    return {name: _rounded(value) for name, value in told.items()}


def content(document: Document, lists: Lists) -> dict[str, Value]:
    raw, words = document.raw, document.words
    told: dict[str, Value] = {
        "rps_doc_curly_bracket": (raw.count("{") + raw.count("}")) / len(raw) if raw else 0.0,
        "rps_doc_lorem_ipsum": (
            document.normalized.count("lorem ipsum") / len(document.normalized) if document.normalized else 0.0
        ),
        "rps_doc_ut1_blacklist": lists.domains.get(document.domain or ""),
    }
    if lists.stop_words is not None:
        found = sum(word in lists.stop_words for word in document.raw_words)
        told["rps_doc_stop_word_fraction"] = found / len(document.raw_words) if words else 0.0
    entries = set(lists.blocked)
    flagged = 0
    for n in {1 + entry.count(" ") for entry in entries}:
        flagged += sum(" ".join(words[i : i + n]) in entries for i in range(len(words) - n + 1))
    told["rps_doc_ldnoobw_words"] = float(flagged)
    return told


def natural_language(document: Document) -> dict[str, Value]:
    raw, words, raw_words, lines = document.raw, document.words, document.raw_words, document.lines
    symbols = raw.count("#") + raw.count("...") + raw.count("…")
    counts = Counter(words)
    shares = [count / len(words) for count in counts.values()]
    n, m = len(words), len(raw_words)
    return {
        "rps_doc_num_sentences": float(len(_SENTENCE.findall(raw))),
        "rps_doc_word_count": float(n),
        "rps_doc_mean_word_length": sum(map(len, words)) / n if n else None,
        "rps_doc_symbol_to_word_ratio": symbols / m if m else None,
        "rps_doc_frac_lines_end_with_ellipsis": (
            sum(line.rstrip().endswith(("...", "…")) for _, _, line, _ in lines) / len(lines) if lines else None
        ),
        "rps_doc_frac_no_alph_words": 1 - sum(_LETTER.search(w) is not None for w in raw_words) / m if m else None,
        "rps_doc_frac_unique_words": len(counts) / n if n else None,
        "rps_doc_unigram_entropy": sum(-p * math.log(p) for p in shares) if n else None,
        "rps_doc_frac_all_caps_words": sum(w.isupper() for w in raw_words) / m if m else None,
    }


def repetitions(document: Document) -> dict[str, Value]:
    words = document.words
    total = sum(map(len, words))
    told: dict[str, Value] = {}
    for n in (2, 3, 4):
        most = Counter(document.ngrams[n]).most_common(1)
        repeated = most and most[0][1] > 1
        told[f"rps_doc_frac_chars_top_{n}gram"] = sum(map(len, most[0][0])) * most[0][1] / total if repeated else 0.0
    for n in range(5, 11):
        counts = Counter(document.ngrams[n])
        mask = [False] * len(words)
        for i, ngram in enumerate(document.ngrams[n]):
            if counts[ngram] > 1:
                mask[i : i + n] = [True] * n
        covered = sum(len(word) for word, masked in zip(words, mask, strict=True) if masked)
        told[f"rps_doc_frac_chars_dupe_{n}grams"] = covered / total if total else 0.0
    return told


def of_lines(document: Document) -> dict[str, Value]:
    lines = document.lines
    return {
        "line_start": [start for start, *_ in lines],
        "line_end": [end for _, end, *_ in lines],
        "rps_lines_ending_with_terminal_punctution_mark": [
            float(line.rstrip().endswith((".", "!", "?", "”"))) for _, _, line, _ in lines
        ],
        "rps_lines_javascript_counts": [float(normal.split().count("javascript")) for *_, normal in lines],
        "rps_lines_num_words": [float(len(normal.split())) for *_, normal in lines],
        "rps_lines_uppercase_letter_fraction": [sum(c.isupper() for c in line) / len(line) for _, _, line, _ in lines],
        "rps_lines_numerical_chars_fraction": [
            sum(c.isnumeric() for c in normal) / len(normal) if normal else 0.0 for *_, normal in lines
        ],
        "rps_lines_start_with_bulletpoint": [float(line.lstrip().startswith(BULLETS)) for _, _, line, _ in lines] or [None],
    }


def importance(document: Document, lists: Lists) -> dict[str, Value]:
    if not lists.weights:
        return {}
    words = document.raw_words
    features = [*words, *pairwise(words)]
    buckets = len(next(iter(lists.weights.values()))[0])
    counts = np.bincount([abs(lists.hash(x)) % buckets for x in features], minlength=buckets) if features else np.zeros(buckets)
    told: dict[str, Value] = {}
    length = len(document.raw)
    for target, (weights, target_mean, source_mean) in lists.weights.items():
        score = float(np.dot(counts, weights))
        correction = math.log(_poisson(length, target_mean) + 1e-8) - math.log(_poisson(length, source_mean) + 1e-8)
        told[f"rps_doc_{target}_importance"] = score if document.raw else None
        told[f"rps_doc_{target}_importance_length_correction"] = score + correction if document.raw else None
    return told


def minhash(words: Sequence[str], permutations: np.ndarray, width: int = 13) -> list[int] | None:
    """RedPajama-V2's signature, its uint64 overflow included. permutations: uint64 (2, 128)."""
    if len(words) < width:
        return None
    shingles = {" ".join(words[i : i + width]) for i in range(len(words) - width + 1)}
    hashes = np.array([int.from_bytes(hashlib.sha1(s.encode()).digest()[:4], "little") for s in shingles], np.uint64)
    a, b = permutations
    values = (hashes[:, None] * a + b) % np.uint64((1 << 61) - 1) & np.uint64(0xFFFFFFFF)
    return values.min(axis=0).tolist()


def permutations(seed: int = 42) -> np.ndarray:
    draw, prime = np.random.RandomState(seed), (1 << 61) - 1
    pairs = [(draw.randint(1, prime, dtype=np.uint64), draw.randint(0, prime, dtype=np.uint64)) for _ in range(128)]
    return np.array(pairs, np.uint64).T


def _poisson(k: int, mean: float) -> float:
    return math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))


def _rounded(value: Value) -> Value:
    if isinstance(value, list):
        return [None if x is None else round(x, 8) for x in value]
    return None if value is None else round(value, 8)
