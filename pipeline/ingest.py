"""The first stage: files of a source to raw documents, one shard of files to one partition."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pydantic import Field

from pipeline.extract import Extraction, Failure, Method, Text, form_of
from pipeline.guard import Guard, Job
from pipeline.sources.parameters import Limits
from pipeline.sources.record import Document, Page, Reject, Source
from pipeline.sources.registry import AnySource, open_source
from pipeline.stage import Params, PartitionStage, StageResult
from pipeline.tables import EXCERPT_LENGTH, RAW, REJECTS

_BATCH = 1024  # rows that are Python objects at a time
_MIB = 1 << 20
_PLAIN_URL = re.compile(r"https?://([A-Za-z0-9.:-]+)/[!-~]*")  # of which urlsplit would say the same, more slowly


class ExtractParams(Params):
    """How text is taken from HTML pages. Sources that hold text already do not use it."""

    method: Method = Field(default="resiliparse", description="Library: resiliparse (fast) or trafilatura.")
    main_content: bool = Field(
        default=True, description="Leave out navigation, footers and the like; false takes all visible text, as WET files do."
    )
    time_limit: float = Field(
        default=10.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds of CPU time per page, above which it is dropped as `time_limit`; 0 for none.",
    )
    max_bytes: int = Field(default=10 * _MIB, ge=1, description="Largest page; larger ones are dropped as `too_large`.")
    max_memory: int = Field(
        default=4 << 30, ge=256 * _MIB, description="Address space of the extracting process, in bytes (where time is limited)."
    )


class IngestParams(Params):
    """What to read, how to cut it into shards, and how to take text from it."""

    snapshot: str = Field(description="First part of every partition's name.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    source: AnySource = Field(description="Where documents come from, by `kind`.")
    shards: int | None = Field(
        default=None, ge=1, le=10_000, description="Contiguous ranges of files, one partition each; null: one per file."
    )
    extract: ExtractParams = Field(default=ExtractParams(), description="From pages to text.")
    limits: Limits = Field(default=Limits(), description="Sizes that no sound record has.")
    min_length: int = Field(
        default=300,
        ge=0,
        description="Documents of fewer characters are dropped as `too_short` (CCNet: 300; title not counted).",
    )


@dataclass
class Ingest(PartitionStage):
    """Reads a shard's files, one after the other; every record in them becomes a row of `raw` or is dropped for a reason."""

    name = "ingest"
    outputs = ("raw",)

    params: IngestParams
    _guard: Guard | None = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        # The list of files travels, so that no worker has to make it again; the extracting process cannot.
        return {**self.__dict__, "_guard": None}

    @cached_property
    def source_files(self) -> list[str]:
        """Every file of the source, in order. ValueError if there is none."""
        return open_source(self.params.source, self.params.limits)[0]

    def partitions(self) -> Sequence[str]:
        """`<snapshot>/<shard>`; never more shards than files."""
        return [f"{self.params.snapshot}/{shard:04d}" for shard in range(self._shards())]

    def shard_files(self, partition: str) -> list[str]:
        """The files of a partition: a contiguous range, cut where CCNet cuts. ValueError if there is no such partition."""
        snapshot, _, shard = partition.rpartition("/")
        count = self._shards()
        if snapshot != self.params.snapshot or not shard.isdecimal() or int(shard) >= count:
            raise ValueError(
                f"{partition} is no partition of this source: they are {self.params.snapshot}/0000 to {count - 1:04d}"
            )
        files = self.source_files
        return files[int(shard) * len(files) // count : (int(shard) + 1) * len(files) // count]

    def source_digests(self, partition: str) -> Mapping[str, str]:
        return {file: self.params.source.identity(file) for file in self.shard_files(partition)}

    def setup(self, files: Mapping[str, Path]) -> None:
        self._guard = new_guard(self.params.extract)

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        files = self.shard_files(partition)
        source = self.params.source.open(self.params.limits)
        if self._guard is None:
            self.setup({})
        assert self._guard is not None
        rows, rejects = RawRows(), RejectRows()
        for item in documents(source, files, self.params.extract, self.params.min_length, self._guard):
            if isinstance(item, Reject):
                rejects.add(item)
            else:
                rows.add(item)
        dropped = rejects.counts
        return StageResult(
            rows_in=rows.count + sum(dropped.values()),
            tables={"raw": rows.table()},
            drops=dict(sorted(dropped.items())),
            rejects=rejects.table(),
            metrics={"files": len(files), "characters": rows.characters},
        )

    def _shards(self) -> int:
        files = len(self.source_files)
        if not files:
            raise ValueError("the source has no files")
        return min(self.params.shards or files, files)


def new_guard(params: ExtractParams) -> Guard:
    """What extracts pages with these parameters."""
    return Guard(Extraction(params.method, params.main_content), params.time_limit, params.max_memory)


def documents(
    source: Source, files: Sequence[str], params: ExtractParams, min_length: int, guard: Guard
) -> Iterator[Document | Reject]:
    """What becomes of every record of some files, in order. Holds no more than a few MB of pages at a time.

    Reasons, besides those of the source: `http_status_3xx` and the like, `content_type_...`, `too_large`, `no_text`,
    `time_limit`, `extraction_failed`, `extraction_crashed`, `memory_limit`, `too_short`.
    """
    records = (record for file in files for record in source.read(file))
    for item, answer in guard.map(_job(record, params) for record in records):
        if isinstance(item, Job):
            assert isinstance(item.origin, Page) and answer is not None
            result = _document(item.origin, answer)
        else:
            result = item
        yield result if isinstance(result, Reject) else _long_enough(result, min_length)


def _job(record: Page | Document | Reject, params: ExtractParams) -> Job | Document | Reject:
    if not isinstance(record, Page):
        return record
    if record.status is not None and not 200 <= record.status < 300:
        return Reject(record.record_id, record.url, f"http_status_{record.status // 100}xx", str(record.status))
    if len(record.content) > params.max_bytes:
        return Reject(record.record_id, record.url, "too_large", f"{len(record.content)} bytes of page")
    form = form_of(record.content, record.content_type)
    if isinstance(form, Failure):
        return Reject(record.record_id, record.url, form.reason, form.detail)
    return Job(record, record.content, record.charset, form)


def _document(page: Page, answer: Text | Failure) -> Document | Reject:
    if isinstance(answer, Failure):
        return Reject(page.record_id, page.url, answer.reason, answer.detail)
    return Document(
        page.record_id, page.url, page.date, page.digest, page.segment, page.original_length, answer.title, answer.text
    )


def _long_enough(document: Document, min_length: int) -> Document | Reject:
    length = len(document.text)
    if length >= min_length:
        return document
    return Reject(document.record_id, document.url, "too_short", f"{length} characters", document.text)


def source_domain(url: str | None) -> str | None:
    """The network location of a URL, as CCNet takes it: with `www.` and the port."""
    if url is None:
        return None
    if (plain := _PLAIN_URL.fullmatch(url)) is not None:
        return plain[1]
    try:
        return urlsplit(url).netloc
    except ValueError:  # brackets that hold no IPv6 address
        return ""


class RawRows:
    """Documents on their way into a table of tables.RAW."""

    def __init__(self) -> None:
        self.count = self.characters = 0
        self._rows: list[tuple[Any, ...]] = []
        self._batches: list[pa.RecordBatch] = []

    def add(self, document: Document) -> None:
        d = document
        self._rows.append(
            (d.record_id, d.url, d.date, d.digest, source_domain(d.url), d.title, d.text, d.segment, d.original_length)
        )
        self.count += 1
        self.characters += len(d.text)
        if len(self._rows) == _BATCH:
            self._flush()

    def take(self) -> pa.Table:
        """The rows since the last call."""
        self._flush()
        batches, self._batches = self._batches, []
        return pa.Table.from_batches(batches, RAW)

    table = take

    def _flush(self) -> None:
        self._batches.append(_batch(self._rows, RAW))
        self._rows = []


class RejectRows:
    """Rejects on their way into a table of tables.REJECTS, counted by reason."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._rows: list[tuple[Any, ...]] = []
        self._batches: list[pa.RecordBatch] = []

    def add(self, reject: Reject) -> None:
        r = reject
        self.counts[r.reason] += 1
        excerpt = r.excerpt[:EXCERPT_LENGTH] if r.excerpt is not None else None
        self._rows.append((r.record_id, r.url, r.reason, r.detail, excerpt))
        if len(self._rows) == _BATCH:
            self._flush()

    def table(self) -> pa.Table:
        self._flush()
        return pa.Table.from_batches(self._batches, REJECTS)

    def _flush(self) -> None:
        self._batches.append(_batch(self._rows, REJECTS))
        self._rows = []


def _batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    return pa.record_batch([_array(column, f.type) for column, f in zip(columns, schema, strict=True)], schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # a lone surrogate, from JSON that spells one out
        return pa.array([v.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if v else v for v in values], kind)
