"""Importance weights by hashed n-grams (DSIR; Xie et al. 2023, arXiv 2302.03169): tables, features and their storage."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.text import TextBatch
from pipeline.words import RawWords

BUCKETS = 10_000
SOURCE = "ccnet"
TARGETS = ("wikipedia", "openwebtext", "books")
HASH = "fnv1a-fmix64"
"""The hash of the tables' features (`pipeline.word_hashes.word_hash`). Tables of another hash do not fit."""
SMOOTHING = 1e-8
_STRETCH = 1 << 20
_MANIFEST = "importance.json"
_COUNTS = re.compile(r"(?P<domain>[a-z0-9_-]+)\.(?P<language>[a-z]{2,3})\.(?P<buckets>\d+)\.counts\.npy")


@dataclass(frozen=True)
class ImportanceTable:
    """How often each feature comes in a sample of one domain and language: counts int64 (buckets,); mean_length: mean number
    of raw words of a document."""

    counts: NDArray[np.int64]
    mean_length: float

    def log_share(self) -> NDArray[np.float64]:
        """Smoothed logarithm of each feature's share; float64 (buckets,)."""
        total = self.counts.sum()
        return np.log((self.counts / total if total else np.zeros(len(self.counts))) + SMOOTHING)


class ImportanceWeights:
    """Log ratios of shares between each target and the source. languages: those with a table of the source; values:
    (languages, buckets, TARGETS), mean_lengths: (languages, 1 + TARGETS), the source first; NaN where there is no table."""

    def __init__(self, tables: Mapping[tuple[str, str], ImportanceTable]) -> None:
        self.languages = sorted({language for domain, language in tables if domain == SOURCE})
        buckets = max((len(t.counts) for t in tables.values()), default=BUCKETS)
        self.values = np.full((len(self.languages), buckets, len(TARGETS)), np.nan)
        self.mean_lengths = np.full((len(self.languages), 1 + len(TARGETS)), np.nan)
        for i, language in enumerate(self.languages):
            source = tables[SOURCE, language]
            self.mean_lengths[i, 0] = source.mean_length
            for j, target in enumerate(TARGETS):
                if (table := tables.get((target, language))) is not None:
                    self.values[i, :, j] = table.log_share() - source.log_share()
                    self.mean_lengths[i, 1 + j] = table.mean_length


@dataclass(frozen=True)
class Features:
    """Features of a stretch of a batch's words, document after document: uint32 numbers of buckets of words, and of the pairs
    that they begin. word_offsets, pair_offsets: int64 (documents + 1,)."""

    word_offsets: NDArray[np.int64]
    words: NDArray[np.uint32]
    pair_offsets: NDArray[np.int64]
    pairs: NDArray[np.uint32]


def hashed_features(words: RawWords, buckets: int = BUCKETS) -> Iterator[Features]:
    """Unigrams and bigrams of raw words, hashed into buckets: the high 32 bits of the n-gram's hash, scaled to the range.

    Python's own `hash`, which RedPajama-V2 uses, is another one in every process unless PYTHONHASHSEED is set. They come
    in stretches of a bounded number of words.
    """
    from quality.kernels import feature_buckets

    for first in range(0, len(words.hashes), _STRETCH):
        last = min(first + _STRETCH, len(words.hashes))
        unigrams, pairs = np.empty(last - first, np.uint32), np.empty(last - first, np.uint32)
        pair_offsets = np.empty(len(words.offsets), np.int64)
        n = feature_buckets(words.offsets, words.hashes, first, last, buckets, unigrams, pair_offsets, pairs)
        yield Features(np.clip(words.offsets, first, last) - first, unigrams, pair_offsets, pairs[:n])


def count_of_features(words: RawWords) -> NDArray[np.int64]:
    """Features per document: its words, and the pairs of words that follow each other; int64 (documents,)."""
    return words.counts + np.maximum(words.counts - 1, 0)


def count_features(text: TextBatch, buckets: int = BUCKETS) -> tuple[NDArray[np.int64], int]:
    """What a batch adds to an ImportanceTable: counts int64 (buckets,), and its raw words."""
    counts = np.zeros(buckets, np.int64)
    for features in hashed_features(text.raw_words, buckets):
        counts += np.bincount(features.words, minlength=buckets) + np.bincount(features.pairs, minlength=buckets)
    return counts, int(text.raw_words.offsets[-1])


def make_table(batches: Iterable[TextBatch], buckets: int = BUCKETS) -> ImportanceTable:
    """The table of documents of one domain and language. ValueError if there are none."""
    counts, words, documents = np.zeros(buckets, np.int64), 0, 0
    for text in batches:
        found, length = count_features(text, buckets)
        counts += found
        words += length
        documents += len(text)
    if not documents or not counts.any():
        raise ValueError("an importance table needs documents with words, and there are none")
    return ImportanceTable(counts, words / documents)


def save_tables(folder: Path, tables: Mapping[tuple[str, str], ImportanceTable]) -> None:
    """Write tables by (domain, language) as `<domain>.<language>.<buckets>.counts.npy` and `<domain>.<language>.lambda.npy`,
    and `importance.json`, which names the hash."""
    folder.mkdir(parents=True, exist_ok=True)
    for (domain, language), table in tables.items():
        np.save(folder / f"{domain}.{language}.{len(table.counts)}.counts.npy", table.counts)
        np.save(folder / f"{domain}.{language}.lambda.npy", np.array(table.mean_length))
    (folder / _MANIFEST).write_text(json.dumps({"hash": HASH, "features": "raw words and pairs of them"}) + "\n")


def table_names(files: Iterable[str]) -> set[tuple[str, str]]:
    """(domain, language) of the tables among files of these names."""
    return {(told["domain"], told["language"]) for name in files if (told := _COUNTS.fullmatch(name))}


def load_tables(files: Mapping[str, Path], *, made_by: str = HASH) -> dict[tuple[str, str], ImportanceTable]:
    """The tables in files, by name, by (domain, language). ValueError if there is none, or one without its lambda, if they
    are of several sizes, or of another hash."""
    where = next(iter(files.values())).parent
    told = json.loads(files[_MANIFEST].read_text()) if _MANIFEST in files else {}
    if told.get("hash") != made_by:
        raise ValueError(
            f"{where}: no {_MANIFEST} says that the tables are of the hash {made_by}, and those of another (such as Python's "
            "own) give meaningless weights: make them with `menagerie models train-importance`"
        )
    tables: dict[tuple[str, str], ImportanceTable] = {}
    for name, path in sorted(files.items()):
        if (named := _COUNTS.fullmatch(name)) is None:
            continue
        length = files.get(f"{named['domain']}.{named['language']}.lambda.npy")
        if length is None:
            raise ValueError(f"{where}: {name} has no {named['domain']}.{named['language']}.lambda.npy beside it: copy both")
        counts = np.load(path, allow_pickle=False).astype(np.int64)
        if counts.shape != (int(named["buckets"]),):
            raise ValueError(f"{path} holds an array of shape {counts.shape}, not of {named['buckets']} buckets")
        tables[named["domain"], named["language"]] = ImportanceTable(counts, float(np.load(length, allow_pickle=False)))
    if not tables:
        raise ValueError(f"{where} holds no table <domain>.<language>.<buckets>.counts.npy")
    if len({len(t.counts) for t in tables.values()}) > 1:
        raise ValueError(f"{where} holds tables of several sizes: keep those with one number of buckets")
    return tables


def log_ratios(stretches: Iterable[Features], weights: ImportanceWeights, which: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum over each document's features of the log ratio of their shares: float64 (documents, TARGETS).

    which: int64 (documents,), the place of each document's language in `weights.languages`, or -1. NaN without a table.
    """
    from quality.kernels import weigh

    sums = np.where((which >= 0)[:, None], 0.0, np.full((1, len(TARGETS)), np.nan))
    if len(weights.languages):
        sums += np.where(np.isnan(weights.mean_lengths[which, 1:]), np.nan, 0.0)
        for features in stretches:
            weigh(features.word_offsets, features.words, which, weights.values, sums)
            weigh(features.pair_offsets, features.pairs, which, weights.values, sums)
    return sums


def log_poisson(lengths: NDArray[np.int64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the Poisson probability of each length, smoothed; NaN where the mean is."""
    from scipy.special import gammaln, xlogy

    return np.log(np.exp(xlogy(lengths, means) - gammaln(lengths + 1.0) - means) + SMOOTHING)
