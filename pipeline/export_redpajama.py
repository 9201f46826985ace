"""A corpus in the layout of RedPajama-V2 as published: documents/, quality_signals/, minhash/, duplicates/, listings/.

`pipeline.ingest_redpajama` reads it back, and so does what others wrote for the release.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.corpus import Corpus
from pipeline.minhash import BANDS, band_column
from pipeline.sources.redpajama import Component, component_path, parse_base, stored_bases
from pipeline.sources.redpajama_signals import DUPLICATE, SIGNALS, is_of_lines
from pipeline.storage import Storage

DOCUMENT_FIELDS = tuple(f.name for f in tables.DOCUMENTS if f.name not in ("id", "id_int", "record_id"))
"""CCNet's fields of a published document."""
DUPLICATES = pa.schema([(name, pa.string()) for name in ("shard_id", "doc_id", "digest")])
MINHASH = pa.schema(
    [
        ("shard_id", pa.string()),
        ("id", pa.string()),
        ("id_int", pa.uint64()),
        *((f"signature_sim{level}", pa.list_(pa.binary())) for level in BANDS),
    ]
)
_DIGEST = "sha1:"


@dataclass
class Exported:
    """What was written. without: tables that the corpus does not have; left_out: columns of signals that the release does not
    have, which are in no file; renumbered: documents whose id is another, since the release numbers rows."""

    partitions: int = 0
    documents: int = 0
    signals: int = 0
    signatures: int = 0
    duplicates: int = 0
    bytes: int = 0
    renumbered: int = 0
    without: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def _place(url: str) -> str:
    return url.rstrip("/") if "://" in url else str(Path(url).resolve())


def export_redpajama(corpus: Corpus, url: str, pattern: str = "*") -> Iterator[tuple[str, Exported]]:
    """Write the partitions whose names match a shell pattern, one after the other; yields each with what is written so far.

    ValueError if there is none, if one is not named <snapshot>/<shard>/<language>_<bucket>, or if the target is the corpus.
    """
    if _place(url) == _place(corpus.url):
        raise ValueError(f"{url} is the corpus itself, whose tables have folders of the same names: write to another folder")
    target, told = Storage(url), Exported()
    partitions = corpus.partitions("documents", pattern)
    if not partitions:
        raise ValueError(f"{corpus.url} has no partition of documents called {pattern}: name a corpus, or another --partitions")
    for partition in partitions:
        parse_base(partition)
    there = {name: set(corpus.partitions(name)) for name in ("signals", "minhash", "duplicates")}
    told.without = [name for name, found in there.items() if not found]
    for partition in partitions:
        _export_partition(corpus, partition, target, {n: partition in found for n, found in there.items()}, told)
        yield partition, told
    for name, listed in _listings(target).items():
        target.write(f"listings/{name}.txt", "".join(f"{base}\n" for base in listed).encode())


def _listings(target: Storage) -> dict[str, list[str]]:
    """The partitions of each listing: all that are there, since others may have been exported before."""
    listings: dict[str, list[str]] = {}
    for base in stored_bases(target):
        snapshot, language, bucket = parse_base(base)
        part = "head_middle" if bucket in ("head", "middle") else bucket
        listings.setdefault(f"{language}-{snapshot}-{part}", []).append(base)
    return listings


def _export_partition(corpus: Corpus, partition: str, target: Storage, there: Mapping[str, bool], told: Exported) -> None:
    documents = corpus.read("documents", partition)
    corpus.check_alignment(partition, "documents", *(name for name, is_there in there.items() if is_there))
    ids, id_ints = tables.identify(partition, documents.num_rows)

    def write(component: Component, content: bytes | pa.Buffer) -> None:
        told.bytes += target.write(component_path(component, partition), content).bytes

    told.partitions += 1
    told.documents += documents.num_rows
    told.renumbered += sum(a != b for a, b in zip(documents["id"].to_pylist(), ids.to_pylist(), strict=True))
    write("documents", _json_lines(_documents(documents)))
    signals = corpus.read("signals", partition) if there["signals"] else None
    if signals is not None:
        known = {"id", *SIGNALS, *tables.LINE_SPANS, DUPLICATE}
        told.left_out += [n for n in signals.column_names if n not in known and n not in told.left_out]
        records = list(_signals(documents, signals, partition, ids.to_pylist(), id_ints.to_pylist()))
        told.signals += len(records)
        write("quality_signals", _json_lines(records))
    if there["minhash"]:
        signatures = corpus.read("minhash", partition)["signature"]
        told.signatures += len(signatures) - signatures.null_count
        bands = [band_column(signatures, level) for level in BANDS]
        write("minhash", _parquet([_repeat(partition, ids), ids, id_ints, *bands], MINHASH))
    repeated = _duplicates(corpus, partition, signals, there)
    if repeated is not None:
        rows = pa.array([row for row, is_one in enumerate(repeated) if is_one], pa.int64())
        told.duplicates += len(rows)
        digests = [(digest or "").removeprefix(_DIGEST) for digest in documents["digest"].take(rows).to_pylist()]
        of = ids.take(rows)
        write("duplicates", _parquet([_repeat(partition, of), of, pa.array(digests, pa.string())], DUPLICATES))


def _documents(documents: pa.Table) -> Iterator[dict[str, Any]]:
    """CCNet's records; a field that is null is left out."""
    for batch in documents.select(DOCUMENT_FIELDS).to_batches(max_chunksize=1 << 10):
        for row in batch.to_pylist():
            yield {name: value for name, value in row.items() if value is not None}


def _signals(
    documents: pa.Table, signals: pa.Table, partition: str, ids: Sequence[str], id_ints: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """The signals of each document that has any, as [start, end, score] triples. Scores that are not there are null."""
    metadata = documents.select(["cc_segment", "url", "source_domain", "language"]).to_pylist()
    lengths = [len(text) for text in documents["raw_content"].to_pylist()]
    columns = {name: signals[name].to_pylist() if name in signals.column_names else None for name in SIGNALS}
    starts, ends = (
        signals[name].to_pylist() if name in signals.column_names else [None] * signals.num_rows for name in tables.LINE_SPANS
    )
    snapshot = partition.partition("/")[0]
    for row, (identifier, id_int) in enumerate(zip(ids, id_ints, strict=True)):
        values = {name: column[row] if column is not None else None for name, column in columns.items()}
        if starts[row] is None and all(value is None for value in values.values()):
            continue  # the release has no signals of it
        triples: dict[str, list[list[Any]]] = {}
        for name, value in values.items():
            if not is_of_lines(name):
                triples[name] = [[0, lengths[row], _number(value)]]
            elif value is not None and len(value) == len(starts[row] or ()):
                triples[name] = [[a, b, _number(v)] for a, b, v in zip(starts[row] or (), ends[row] or (), value, strict=True)]
            elif value is not None:  # a text without lines has one null for the document
                triples[name] = [[0, lengths[row], None]]
        cc_segment, url, source_domain, language = (
            metadata[row][k] for k in ("cc_segment", "url", "source_domain", "language")
        )
        yield {
            "id": identifier,
            "id_int": id_int,
            "metadata": {
                "cc_segment": cc_segment,
                "cc_net_source": f"{partition}.json.gz",
                "url": url,
                "source_domain": source_domain,
                "language": language,
                "snapshot_id": snapshot,
            },
            "quality_signals": triples,
        }


def _number(value: float | None) -> float | None:
    """JSON has no infinity and no NaN."""
    return value if value is not None and math.isfinite(value) else None


def _duplicates(
    corpus: Corpus, partition: str, signals: pa.Table | None, there: Mapping[str, bool]
) -> Sequence[bool | None] | None:
    """Whether each document is an exact duplicate of another; None where nobody has looked."""
    if there["duplicates"]:
        return [of is not None for of in corpus.read("duplicates", partition, ["exact_of"])["exact_of"].to_pylist()]
    if signals is not None and DUPLICATE in signals.column_names:
        marks = signals[DUPLICATE]
        return None if marks.null_count == len(marks) else marks.to_pylist()
    return None


def _json_lines(rows: Iterator[dict[str, Any]] | Sequence[dict[str, Any]]) -> bytes:
    lines = b"".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for row in rows)
    return gzip.compress(lines, 6, mtime=0)


def _repeat(partition: str, ids: pa.Array) -> pa.Array:
    return pa.array([f"{partition}.json.gz"] * len(ids), pa.string())


def _parquet(columns: Sequence[pa.Array], schema: pa.Schema) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(list(columns), schema=schema), sink, compression="zstd")
    return sink.getvalue()
