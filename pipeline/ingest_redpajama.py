"""The stage `ingest` for RedPajama-V2 as published: its documents with their ids, and its signals, without mining again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipeline import tables
from pipeline.sources.jsonl import Row, read_json
from pipeline.sources.lines import LineLimits
from pipeline.sources.record import Reject
from pipeline.sources.redpajama import Component, RedPajamaParams, component_path
from pipeline.sources.redpajama_signals import SignalFile, SignalRow, read_signals, to_table
from pipeline.stage import Params, PartitionStage, StageResult
from pipeline.storage import join_url

_PUBLISHED = [f for f in tables.DOCUMENTS if f.name not in ("id", "id_int", "record_id")]
_INTEGERS = {pa.int64(): 1 << 63, pa.int32(): 1 << 31}
_TEXT = "raw_content"
_WHOLE = "signature_sim1.0"
"""The column whose one band is the whole signature."""


class IngestRedPajamaParams(Params):
    """RedPajama-V2 with what it publishes beside the text."""

    source: RedPajamaParams = Field(default=RedPajamaParams(), description="Which partitions, and where they are.")
    duplicates: Literal["mark", "drop"] = Field(
        default="mark", description="Published exact duplicates: only mark them in is_duplicate, or drop them too."
    )
    signatures: bool = Field(
        default=False, description="Read the published MinHash signatures too (`minhash`), so that nothing is signed again."
    )
    require_signals: bool = Field(default=False, description="Drop documents without published signals (no_signals).")
    max_line_bytes: int = Field(default=64 << 20, ge=1, description="A longer JSON line is dropped as too_large.")


@dataclass
class IngestRedPajama(PartitionStage):
    """Writes `documents` and `signals`, aligned. A document keeps the row of the published file in its id, so that ids agree
    with the release's own even where a line before it is damaged.

    Drops: those of `read_json`; `no_text`, `bad_field` (a value of another type than the release has), `signals_mismatch`
    (the signals of its row are of another URL), `no_signals` and `exact_duplicate` as parameters say, `missing_file`.
    Metrics: what is missing without loss of a document.
    """

    name = "ingest"
    version = 2
    outputs = ("documents", "signals")

    params: IngestRedPajamaParams = field(default_factory=IngestRedPajamaParams)

    def output_tables(self) -> tuple[str, ...]:
        return (*self.outputs, "minhash") if self.params.signatures else self.outputs

    def partitions(self) -> Sequence[str]:
        return self.params.source.bases()

    def source_digests(self, partition: str) -> Mapping[str, str]:
        """The identity of each component; one that is missing is part of the fingerprint as such."""
        source = self.params.source
        found: dict[str, str] = {}
        for component in self._components():
            path = component_path(component, partition)
            there = source.on_the_web or source.locate(component, partition) is not None
            found[path] = source.identity(join_url(source.url, path)) if there else "missing"
        return found

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        source, limits = self.params.source, LineLimits(self.params.max_line_bytes)
        documents = source.locate("documents", partition)
        if documents is None:
            lost = Reject(partition, None, "missing_file", f"{component_path('documents', partition)} is not there")
            return _result([], [], [], [lost], {"missing_documents_files": 1}, [] if self.params.signatures else None)
        signals_file = source.locate("quality_signals", partition)
        signals = read_signals(signals_file, partition, limits) if signals_file else SignalFile()
        duplicates, damage = self._read_duplicates(partition)
        kept: list[dict[str, Any]] = []
        kept_signals: list[SignalRow | None] = []
        marks: list[bool | None] = []
        rejects: list[Reject] = []
        last = -1
        for row in read_json(documents, partition, limits):
            if isinstance(row, Reject):
                rejects.append(row)
                continue
            last = row.number
            published = signals.rows.get(row.number)
            document = _document(row, partition)
            if isinstance(document, dict):
                document = self._judge(document, published, duplicates)
            if isinstance(document, Reject):
                rejects.append(document)
                continue
            kept.append(document)
            kept_signals.append(published)
            marks.append(document["id"] in duplicates if duplicates is not None else None)
        metrics: dict[str, Any] = {
            "missing_signals_files": int(signals_file is None),
            "documents_without_signals": sum(row is None for row in kept_signals),
            "signals_without_document": sum(number > last for number in signals.rows),
            "unusable_signals": dict(sorted(signals.bad.items())),
            "unknown_signals": sorted(signals.unknown),
            **damage,
        }
        signatures = None
        if self.params.signatures:
            signatures, missing = self._read_signatures(partition, [document["id"] for document in kept])
            metrics |= missing
        for component in self._components():
            source.release(component, partition)
        return _result(kept, kept_signals, marks, rejects, metrics, signatures)

    def _components(self) -> tuple[Component, ...]:
        signed: tuple[Component, ...] = ("minhash",) if self.params.signatures else ()
        return ("documents", "quality_signals", *signed, "duplicates")

    def _judge(
        self, document: dict[str, Any], signals: SignalRow | None, duplicates: set[str] | None
    ) -> dict[str, Any] | Reject:
        record_id, url = document["record_id"], document["url"]
        excerpt = document[_TEXT][: tables.EXCERPT_LENGTH]
        if signals is not None and signals.url is not None and url is not None and signals.url != url:
            return Reject(record_id, url, "signals_mismatch", f"the signals of this row are of {signals.url}", excerpt)
        if signals is None and self.params.require_signals:
            return Reject(record_id, url, "no_signals", None, excerpt)
        if self.params.duplicates == "drop" and duplicates is not None and document["id"] in duplicates:
            return Reject(record_id, url, "exact_duplicate", None, excerpt)
        return document

    def _read_duplicates(self, partition: str) -> tuple[set[str] | None, dict[str, int]]:
        """Ids that the release lists as duplicates, or None without a usable list, and what that means for the metrics."""
        file = self.params.source.locate("duplicates", partition)
        if file is None:
            return None, {"missing_duplicates_files": 1, "damaged_duplicates_files": 0}
        from pipeline.storage import open_filesystem

        filesystem, path = open_filesystem(file)
        try:
            with filesystem.open_input_file(path) as stream:
                listed = pq.read_table(stream, columns=["doc_id"])["doc_id"].to_pylist()
        except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError):
            return None, {"missing_duplicates_files": 0, "damaged_duplicates_files": 1}
        return set(listed), {"missing_duplicates_files": 0, "damaged_duplicates_files": 0}

    def _read_signatures(self, partition: str, ids: Sequence[str]) -> tuple[list[bytes | None], dict[str, int]]:
        """The 128 values of each document, big-endian: the one band of similarity 1.0; None where there is none."""
        from pipeline.storage import open_filesystem

        file = self.params.source.locate("minhash", partition)
        if file is None:
            return [None] * len(ids), {"missing_minhash_files": 1, "damaged_minhash_files": 0}
        filesystem, path = open_filesystem(file)
        try:
            with filesystem.open_input_file(path) as stream:
                read = pq.read_table(stream, columns=["id", _WHOLE])
            bands = dict(zip(read["id"].to_pylist(), read[_WHOLE].to_pylist(), strict=True))
        except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError):
            return [None] * len(ids), {"missing_minhash_files": 0, "damaged_minhash_files": 1}
        found = [bands.get(identifier) for identifier in ids]
        usable = [b[0] if b is not None and len(b) == 1 and len(b[0]) == 4 * tables.PERMUTATIONS else None for b in found]
        metrics = {"missing_minhash_files": 0, "damaged_minhash_files": 0}
        return usable, {**metrics, "unsigned_documents": sum(each is None for each in usable)}


def _document(row: Row, partition: str) -> dict[str, Any] | Reject:
    """The columns of tables.DOCUMENTS from a published record; what the record lacks is null."""
    record_id = f"{partition}/{row.number}"
    url = row.value.get("url") if isinstance(row.value.get("url"), str) else None
    text = row.value.get(_TEXT)
    if not isinstance(text, str):
        return Reject(record_id, url, "no_text", "there is no raw_content" if text is None else "raw_content is no string")
    document: dict[str, Any] = {}
    for each in _PUBLISHED:
        try:
            document[each.name] = _value(row.value.get(each.name), each.type)
        except (TypeError, ValueError, OverflowError):
            told = str(row.value[each.name])[:100].encode(errors="replace").decode()
            return Reject(record_id, None, "bad_field", f"{each.name} is {told}, not a {each.type}")
    identifier = tables.document_id(partition, row.number)
    return {**document, "id": identifier, "id_int": tables.id_int(identifier), "record_id": record_id}


def _value(value: Any, kind: pa.DataType) -> Any:
    """A JSON value as one of the Arrow type. TypeError, ValueError or OverflowError if it is none."""
    if value is None:
        return None
    if pa.types.is_list(kind):
        if not isinstance(value, list):
            raise TypeError("not a list")
        return [_value(item, kind.value_type) for item in value]
    if kind in _INTEGERS:
        if isinstance(value, bool) or int(value) != value or not -_INTEGERS[kind] <= value < _INTEGERS[kind]:
            raise TypeError("not an integer of this width")
        return int(value)
    if pa.types.is_floating(kind):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError("not a number")
        return float(value)
    if not isinstance(value, str):
        raise TypeError("not a string")
    value.encode()  # ValueError on a lone surrogate
    return value


def _result(
    documents: list[dict[str, Any]],
    signals: Sequence[SignalRow | None],
    marks: Sequence[bool | None],
    rejects: Sequence[Reject],
    metrics: Mapping[str, Any],
    signatures: Sequence[bytes | None] | None = None,
) -> StageResult:
    drops: dict[str, int] = {}
    for reject in rejects:
        drops[reject.reason] = drops.get(reject.reason, 0) + 1
    ids = [document["id"] for document in documents]
    written: dict[str | tuple[str, str], pa.Table] = {
        "documents": pa.Table.from_arrays(list(_arrays(documents)), schema=tables.DOCUMENTS),
        "signals": to_table(ids, signals, marks),
    }
    if signatures is not None:
        values = np.frombuffer(b"".join(each or bytes(4 * tables.PERMUTATIONS) for each in signatures), ">u4").astype(np.uint32)
        of_documents = pa.FixedSizeListArray.from_arrays(
            values,
            type=tables.MINHASH.field("signature").type,
            mask=pa.array([each is None for each in signatures], pa.bool_()),
        )
        written["minhash"] = pa.Table.from_arrays([pa.array(ids, pa.string()), of_documents], schema=tables.MINHASH)
    return StageResult(
        rows_in=len(documents) + len(rejects),
        tables=written,
        drops=dict(sorted(drops.items())),
        rejects=pa.Table.from_pylist(
            [
                {"record_id": r.record_id, "url": r.url, "reason": r.reason, "detail": r.detail, "excerpt": r.excerpt}
                for r in rejects
            ],
            schema=tables.REJECTS,
        ),
        metrics=metrics,
    )


def _arrays(documents: list[dict[str, Any]]) -> Iterator[pa.Array]:
    for each in tables.DOCUMENTS:
        yield pa.array([document[each.name] for document in documents], each.type)
