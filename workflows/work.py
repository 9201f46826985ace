"""One task of a stage: read, run, check, write, and the receipt last. Runs in any process; knows nothing of scheduling."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.corpus import Corpus, encode_table
from pipeline.receipt import Output, Receipt
from pipeline.stage import GlobalStage, PartitionStage, StageResult
from pipeline.storage import Storage, split_url

FAN_IN = 32
"""Summaries that one task merges; more are merged in a tree."""


@dataclass(frozen=True)
class Task:
    """One partition of a partition stage. inputs: table by name; global_tables: path below the corpus by key."""

    partition: str
    fingerprint: str
    inputs: tuple[str, ...]
    global_tables: Mapping[str, str]


@dataclass(frozen=True)
class Failure:
    """A task that raised. Travels back as a value, so that the error names the partition and not a scheduler's frame."""

    stage: str
    partition: str
    message: str
    user_error: bool
    traceback: str

    def raise_(self) -> None:
        """ValueError for what a user can mend, else RuntimeError; the worker's traceback is a note (`--debug` shows it)."""
        told = f"{self.stage} failed on {self.partition}: {self.message}"
        error = ValueError(told) if self.user_error else RuntimeError(told)
        error.add_note(self.traceback)
        raise error


@dataclass
class PartitionWork:
    """Performs tasks of one stage. The stage's models load once per process, at the first task.

    files: where each resource file is, as `Stage.files` gives it.
    """

    stage: PartitionStage
    corpus: Corpus
    files: Mapping[str, str]
    keep_rejects: bool = False

    def __post_init__(self) -> None:
        self._ready = False

    def __getstate__(self) -> Mapping[str, object]:
        return self.__dict__ | {"_ready": False}

    def __call__(self, task: Task) -> Receipt | Failure:
        try:
            return self._perform(task)
        except Exception as error:
            user = isinstance(error, ValueError | OSError)
            return Failure(self.stage.name, task.partition, str(error) or repr(error), user, traceback.format_exc())

    def _perform(self, task: Task) -> Receipt:
        begun = time.perf_counter()
        if not self._ready:
            self.stage.setup(resolve_files(self.corpus, self.files))
            self._ready = True
        given = {name: self.corpus.read(name, task.partition) for name in task.inputs}
        read = len(next(iter(given.values()))) if given else None
        given |= {key: read_parquet(self.corpus.storage, path) for key, path in task.global_tables.items()}
        bytes_in = sum(t["raw_content"].nbytes for t in given.values() if "raw_content" in t.column_names)
        result = self.stage.run(task.partition, given)
        receipt = commit(self.stage, self.corpus, task, result, read, self.keep_rejects)
        return self._sealed(receipt, bytes_in, time.perf_counter() - begun)

    def _sealed(self, receipt: Receipt, bytes_in: int, seconds: float) -> Receipt:
        sealed = replace(receipt, bytes_in=bytes_in, seconds=round(seconds, 3))
        replace_receipt(self.corpus, sealed)
        return sealed


def replace_receipt(corpus: Corpus, receipt: Receipt) -> None:
    """Write a receipt in place of an older one, whose other outputs (a language that is gone, say) go first.

    In this order, because a kill between the two leaves a receipt that is not intact, and the partition is done again.
    """
    before = corpus.receipt(receipt.stage, receipt.partition)
    for path in before.outputs if before else ():
        if path not in receipt.outputs:
            corpus.storage.delete(path)
    corpus.write_receipt(receipt)


def commit(
    stage: PartitionStage, corpus: Corpus, task: Task, result: StageResult, read: int | None, keep_rejects: bool
) -> Receipt:
    """Check conservation and alignment, then write a result's tables and files. AssertionError if a stage loses rows."""
    outputs: dict[str, Output] = {}
    rows: dict[str, int] = {}
    for key, table in result.tables.items():
        name, partition = (key, task.partition) if isinstance(key, str) else key
        assert name in stage.output_tables(), f"{stage.name} writes {name}, which is not among its outputs"
        rows[name] = rows.get(name, 0) + table.num_rows
    first = stage.output_tables()[0] if stage.output_tables() else None
    rows_out = result.rows_out if result.rows_out is not None else rows.get(first or "", 0)
    lost = result.rows_in - rows_out - sum(result.drops.values())
    assert lost == 0, (
        f"{stage.name} breaks conservation on {task.partition}: {result.rows_in} in, {rows_out} out, drops {dict(result.drops)}"
    )
    assert read in (None, result.rows_in), f"{stage.name} was given {read} rows of {task.partition}, says {result.rows_in}"
    for key, table in sorted(result.tables.items(), key=lambda kv: str(kv[0])):
        name, partition = (key, task.partition) if isinstance(key, str) else key
        written = corpus.write(name, partition, table)
        outputs[written.path] = Output(written.digest, written.bytes, table.num_rows)
    for path, content in sorted(result.files.items()):
        written = corpus.storage.write(path, content)
        outputs[path] = Output(written.digest, written.bytes)
    if keep_rejects and result.rejects is not None and result.rejects.num_rows:
        path = f"rejects/{stage.name}/{task.partition}.parquet"
        rejects = tables.conform(result.rejects, tables.REJECTS, f"rejects of {stage.name}")
        written = corpus.storage.write(path, encode_table("rejects", rejects))
        outputs[path] = Output(written.digest, written.bytes, rejects.num_rows)
    drops = {reason: count for reason, count in sorted(result.drops.items()) if count}
    return Receipt(stage.name, task.partition, task.fingerprint, result.rows_in, rows_out, drops, outputs, dict(result.metrics))


@dataclass
class Summarise(PartitionStage):
    """The partition half of a global stage: its summaries are a table like any other, with receipts of their own."""

    of: GlobalStage

    def __post_init__(self) -> None:
        self.params = self.of.params

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.of.name}/summaries"

    @property
    def version(self) -> int:  # type: ignore[override]
        return self.of.version

    @property
    def resources(self):  # type: ignore[override]
        return self.of.resources

    def files(self) -> Mapping[str, str]:
        return self.of.files()

    def input_tables(self) -> tuple[str, ...]:
        return self.of.input_tables()

    def output_tables(self) -> tuple[str, ...]:
        return (f"global/{self.of.name}/summaries",)

    def setup(self, files: Mapping[str, Path]) -> None:
        self.of.setup(files)

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        rows = len(tables[self.input_tables()[0]])
        return StageResult(rows, {self.output_tables()[0]: self.of.summarise(partition, tables)}, rows_out=rows)


@dataclass(frozen=True)
class Merge:
    """One node of a merge tree: summaries (paths below the corpus, in partition order) into one."""

    target: str
    sources: tuple[str, ...]


@dataclass
class MergeWork:
    """Merges summaries of a global stage into an intermediate file; returns its path."""

    stage: GlobalStage
    corpus: Corpus

    def __call__(self, node: Merge) -> str | Failure:
        try:
            merged = self.stage.merge([read_parquet(self.corpus.storage, p) for p in node.sources])
            self.corpus.storage.write(node.target, encode_table("summary", merged))
            return node.target
        except Exception as error:
            user = isinstance(error, ValueError | OSError)
            return Failure(self.stage.name, node.target, str(error) or repr(error), user, traceback.format_exc())


@dataclass(frozen=True)
class Group:
    """A group to finish: its (merged) summaries, or the table that a shuffle left."""

    name: str
    fingerprint: str
    sources: tuple[str, ...]
    rows: int
    summary: pa.Table | None = None


@dataclass
class FinishWork:
    """Finishes a group of a global stage: its files, and its receipt."""

    stage: GlobalStage
    corpus: Corpus

    def __call__(self, group: Group) -> Receipt | Failure:
        begun = time.perf_counter()
        try:
            summary = group.summary
            if summary is None:
                summary = self.stage.merge([read_parquet(self.corpus.storage, p) for p in group.sources])
            result = self.stage.finish(group.name, summary)
            with ThreadPoolExecutor(8) as pool:  # small files, one per partition: their writes wait for the disk
                outputs = dict(pool.map(self._write, sorted(result.files), (result.files[p] for p in sorted(result.files))))
            seconds = round(time.perf_counter() - begun, 3)
            receipt = Receipt(
                f"{self.stage.name}/groups", group.name, group.fingerprint, group.rows, group.rows, {}, outputs,
                dict(result.metrics), 0, seconds,
            )  # fmt: skip
            replace_receipt(self.corpus, receipt)
            return receipt
        except Exception as error:
            user = isinstance(error, ValueError | OSError)
            return Failure(self.stage.name, group.name, str(error) or repr(error), user, traceback.format_exc())

    def _write(self, path: str, content: pa.Table | bytes) -> tuple[str, Output]:
        name = f"global/{self.stage.name}"
        table = content if isinstance(content, pa.Table) else None
        written = self.corpus.storage.write(f"{name}/{path}", encode_table(name, table) if table is not None else content)  # type: ignore
        return written.path, Output(written.digest, written.bytes, len(table) if table is not None else None)


def read_parquet(storage: Storage, path: str) -> pa.Table:
    """A Parquet file without its metadata. ValueError, naming the file, if it is missing or damaged."""
    try:
        with storage.open(path) as source:
            return pq.read_table(source).replace_schema_metadata(None)
    except FileNotFoundError as error:
        raise ValueError(f"{storage.url}/{path} is missing") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{storage.url}/{path}: {error}") from error


def resolve_files(corpus: Corpus, files: Mapping[str, str]) -> dict[str, Path]:
    """Resource files as local paths: copies of what lies on an object store."""
    return {key: _resolve(corpus, location) for key, location in files.items()}


def _resolve(corpus: Corpus, location: str) -> Path:
    if location.startswith("global/"):
        return corpus.storage.fetch(location, _cache_folder() / "corpus")
    storage, name = split_url(location)
    return storage.fetch(name, _cache_folder() / "files")


@cache
def _cache_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="menagerie-"))


def chunks(paths: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Contiguous pieces of at most `size`."""
    return [tuple(paths[i : i + size]) for i in range(0, len(paths), size)]
