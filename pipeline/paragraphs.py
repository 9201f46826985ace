"""CCNet's paragraph hashes, bit for bit, and the stage that finds the paragraphs which a group of shards repeats.

A paragraph is a line. Its hash is the first eight bytes of SHA-1 over its normalised form (`normalize`). Definitions:
CCNet (Wenzek et al. 2019, arXiv 1911.00359, section 3.1) and its code, `dedup.py` and `text_normalizer.py`.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipeline.punctuation import CONTROL_CHARACTERS, PUNCTUATION
from pipeline.stage import GlobalResult, GlobalStage, Params

BATCH_BYTES = 1 << 24
"""Text per batch: memory beyond the partition itself is a small multiple of this."""

_DELETED = 0xFFFF_FFFF
_CHUNK_LINES = 1000  # lines normalised at once: their code points stay in the processor's cache
_CONTEXTUAL = "\u0130\u03a3"  # İ becomes two characters in lower case; what Σ becomes depends on its neighbours


def normalize(line: str) -> str:
    """A paragraph as CCNet hashes it: stripped, in lower case, digits as `0`, punctuation and controls deleted."""
    return "".join(c for c in re.sub(r"\d", "0", line.strip().lower()) if c not in PUNCTUATION and c not in CONTROL_CHARACTERS)


@dataclass(frozen=True)
class Lines:
    """The lines of a batch of documents: `values` flat, document d's at `offsets[d]:offsets[d + 1]`, and their hashes.

    values: large_string (n_lines,); offsets: int64 (n_documents + 1,); hashes: uint64 (n_lines,). Split at newlines only;
    an empty document has no line.
    """

    values: pa.Array
    offsets: np.ndarray
    hashes: np.ndarray

    @classmethod
    def of(cls, texts: pa.Array) -> Lines:
        """texts: large_string (n_documents,), without nulls."""
        split = pc.split_pattern(pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts), "\n")
        counts = pc.list_value_length(split).fill_null(0).to_numpy(zero_copy_only=False)
        values = split.flatten()
        return cls(values, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]), hash_lines(values))

    @property
    def counts(self) -> np.ndarray:
        """Lines per document, int64 (n_documents,)."""
        return np.diff(self.offsets)

    def first_in_document(self) -> np.ndarray:
        """Per line, whether it is the first of its hash in its document: bool (n_lines,)."""
        document = np.repeat(np.arange(len(self.offsets) - 1), self.counts)
        order = np.argsort(self.hashes, kind="stable")  # equal hashes stay in reading order, so documents do too
        ordered, owner = self.hashes[order], document[order]
        first = np.ones(len(order), bool)
        first[1:] = (ordered[1:] != ordered[:-1]) | (owner[1:] != owner[:-1])
        result = np.empty(len(order), bool)
        result[order] = first
        return result

    def kept(self, repeated: np.ndarray) -> np.ndarray:
        """Per line, whether CCNet keeps it: not repeated in the group, and the first of its hash in its document.

        repeated: uint64, sorted; what the stage `paragraphs` left for the group.
        """
        return ~contains(repeated, self.hashes) & self.first_in_document()


def hash_lines(lines: pa.Array) -> np.ndarray:
    """CCNet's hash of each line: uint64 (n_lines,), the first eight bytes of SHA-1, read as little endian."""
    encoded = lines.dictionary_encode()  # half the lines of a crawl are copies: normalise and hash each text once
    distinct = encoded.dictionary.to_pylist()
    digests = [
        hashlib.sha1(normalised).digest()[:8]
        for start in range(0, len(distinct), _CHUNK_LINES)
        for normalised in _normalize_all(distinct[start : start + _CHUNK_LINES])
    ]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)[encoded.indices.to_numpy()]


def contains(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Per value, whether it is in a sorted array: bool."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    places = np.searchsorted(ordered, values)
    places[places == len(ordered)] = 0  # beyond the last: compared with the first, which is smaller
    return ordered[places] == values


def text_batches(texts: pa.ChunkedArray, size: int = BATCH_BYTES) -> Iterator[tuple[int, pa.Array]]:
    """A text column in slices of about `size` bytes, at least one document each: (first row, large_string array)."""
    ends = np.cumsum(pc.binary_length(texts).to_numpy())
    start = 0
    while start < len(ends):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + size, side="right")))
        piece = texts.slice(start, stop - start).combine_chunks()
        yield start, piece
        start = stop


def _normalize_all(lines: Sequence[str]) -> list[bytes]:
    """`normalize` of lines that hold no newline, in UTF-8: one table look-up per character of all lines together."""
    # Neither case mapping nor its context crosses a newline: it is no letter, and Unicode does not let Σ look past it.
    text = "\n".join([line.strip() for line in lines])
    if any(character in text for character in _CONTEXTUAL):
        text = text.lower()
    mapped = _table()[np.frombuffer(text.encode("utf-32-le"), "<u4")]
    return mapped[mapped != _DELETED].tobytes().decode("utf-32-le").encode().split(b"\n")


@cache
def _table() -> np.ndarray:
    """What each code point becomes: uint32 (0x110000,)."""
    points = np.arange(0x110000, dtype="<u4")
    points = points[~((points >= 0xD800) & (points < 0xE000)) & ~np.isin(points, [ord(c) for c in _CONTEXTUAL])]
    characters = points.tobytes().decode("utf-32-le")
    table = np.arange(0x110000, dtype="<u4")
    table[points] = np.frombuffer(characters.lower().encode("utf-32-le"), "<u4")
    for deleted in (*PUNCTUATION, *CONTROL_CHARACTERS):
        table[ord(deleted)] = _DELETED
    for digit in re.findall(r"\d", characters):  # after PUNCTUATION, which holds the digit １
        table[ord(digit)] = ord("0")
    table[ord("\n")] = ord("\n")  # it parts the lines
    return table


class ParagraphsParams(Params):
    """Paragraph deduplication."""

    group_shards: int = Field(
        default=50,
        ge=1,
        description="Shards per group: a paragraph that two documents of a group share is removed from all of them. "
        "CCNet's hash_in_mem; RedPajama-V2 used 1.",
    )

    def group(self, partition: str) -> str:
        """The group of a raw partition `<snapshot>/<shard>`: named after its first shard. ValueError on another name."""
        snapshot, _, shard = partition.rpartition("/")
        if not snapshot or not (shard.isascii() and shard.isdigit()):
            raise ValueError(f"partition {partition} of raw does not end in a shard number: name it <snapshot>/<0000>")
        number = int(shard)
        return f"{snapshot}/{number - number % self.group_shards:04d}"


@dataclass
class Paragraphs(GlobalStage):
    """Leaves, per group of shards, the hashes of the paragraphs that at least two of its documents hold.

    A summary is `hash` (uint64, sorted, distinct) and `repeated` (bool): CCNet's hash set with its 0 and 1. Merging is a
    union in which a hash that two summaries hold is repeated, so it is associative and does not mind the order.
    Writes `global/paragraphs/<group>.parquet`: `hash`, sorted, of the repeated ones only.
    """

    params: ParagraphsParams

    name = "paragraphs"
    version = 1
    inputs = ("raw",)

    def group(self, partition: str) -> str:
        return self.params.group(partition)

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        hashes = [np.empty(0, np.uint64)]
        for _, texts in text_batches(tables["raw"]["raw_content"]):
            lines = Lines.of(texts)
            hashes.append(lines.hashes[lines.first_in_document()])  # repeats inside one document do not count
        together = np.concatenate(hashes)
        return _union(together, np.zeros(len(together), bool))

    def merge(self, summaries: Sequence[pa.Table]) -> pa.Table:
        rows = pa.concat_tables(summaries)
        return _union(rows["hash"].to_numpy(), rows["repeated"].to_numpy())

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        repeated = summary.filter(summary["repeated"]).select(["hash"])
        return GlobalResult(
            {f"{group}.parquet": repeated}, {"paragraphs": summary.num_rows, "repeated_paragraphs": repeated.num_rows}
        )


def _union(hashes: np.ndarray, repeated: np.ndarray) -> pa.Table:
    """Distinct hashes, sorted; repeated if they were, or if they came more than once."""
    order = np.argsort(hashes)
    hashes, repeated = hashes[order], repeated[order]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])) if len(hashes) else np.empty(0, np.int64)
    counts = np.diff(np.append(starts, len(hashes)))
    flags = np.add.reduceat(repeated, starts, dtype=np.int64) > 0 if len(starts) else np.empty(0, bool)
    return pa.table({"hash": hashes[starts], "repeated": flags | (counts > 1)})
