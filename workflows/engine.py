"""The engine: which partitions of a stage are not done yet, and what became of them. `make`, for corpora."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import pyarrow as pa

from pipeline.corpus import Corpus
from pipeline.receipt import Output, Receipt, fingerprint
from pipeline.stage import Executor, GlobalStage, PartitionStage, Stage
from pipeline.storage import split_url
from workflows.progress import Progress
from workflows.work import FAN_IN, Failure, FinishWork, Group, Merge, MergeWork, PartitionWork, Summarise, Task, chunks

X = TypeVar("X")


class NotBuiltError(ValueError):
    """A stage's input is not there, because a stage before it has not run."""


@dataclass
class Plan(Generic[X]):
    """Receipts that hold, tasks (or groups) to do, and receipts whose partition is gone."""

    done: list[Receipt]
    todo: list[X]
    stale: list[Receipt]


@dataclass
class Engine:
    """Runs stages over a corpus on an executor.

    The catalog holds every output that the receipts of the stages so far name, with its digest: a stage sees the files in
    the catalog, not the files in the folder, so nothing stale is ever read.
    """

    corpus: Corpus
    executor: Executor
    progress: Progress
    keep_rejects: bool = False
    catalog: dict[str, Output] = field(default_factory=dict)
    _written: set[str] = field(default_factory=set)  # tables that a stage before has written, even without a partition

    def run(self, stage: Stage) -> list[Receipt]:
        """Bring a stage up to date. Returns its receipts in partition order; ValueError names the partition that failed."""
        if isinstance(stage, PartitionStage):
            return self._run_partitions(stage)
        assert isinstance(stage, GlobalStage)
        return self._run_global(stage)

    # --- partition stages

    def _run_partitions(self, stage: PartitionStage) -> list[Receipt]:
        plan = self.plan(stage)
        for receipt in plan.stale:
            self.corpus.forget(receipt)
        done = list(plan.done)
        todo = sorted(plan.todo, key=self._size, reverse=True)
        work = PartitionWork(stage, self.corpus, stage.files(), self.keep_rejects)
        with self.progress.stage(stage.name, total=len(done) + len(todo), done=done) as bar:
            for receipt in self._results(self.executor.map(work, todo, stage.resources)):
                bar.advance(receipt)
                done.append(receipt)
        return self.record(stage, done)

    def plan(self, stage: PartitionStage) -> Plan[Task]:
        """What of a stage is done, what is to do, and which receipts are of partitions that no longer exist."""
        tasks = self.tasks(stage)
        found = {r.partition: r for r in self._receipts(stage.name)}
        done = [r for t in tasks if (r := found.get(t.partition)) and r.fingerprint == t.fingerprint and self.corpus.intact(r)]
        ready = {r.partition for r in done}
        wanted = {t.partition for t in tasks}
        return Plan(done, [t for t in tasks if t.partition not in ready], [r for p, r in found.items() if p not in wanted])

    def tasks(self, stage: PartitionStage) -> list[Task]:
        """One task per partition, with the fingerprint that its receipt must have."""
        names = stage.partitions()
        inputs = stage.input_tables()
        for table in inputs:
            if table not in self._written:
                raise NotBuiltError(
                    f"{stage.name} reads {table}, which no stage before it writes: is that stage in the recipe?"
                )
        partitions = list(names) if names is not None else self.partitions(inputs[0])
        files = self.file_digests(stage)
        params = stage.params.model_dump(mode="json")
        if self.keep_rejects:  # turned on later, the lost records must still be written
            params = [params, "keep_rejects"]
        with ThreadPoolExecutor(8) as pool:
            sources = list(pool.map(stage.source_digests, partitions))
        tasks = []
        for partition, source in zip(partitions, sources, strict=True):
            tables = stage.global_tables(partition)
            globals_ = {key: f"global/{path}" for key, path in tables.items()}
            paths = [*(self.corpus.path(t, partition) for t in inputs), *globals_.values()]
            known = {path: self._digest(path, stage.name) for path in paths}
            given = known | {f"file:{k}": v for k, v in files.items()} | {f"source:{k}": v for k, v in source.items()}
            tasks.append(Task(partition, fingerprint(stage.name, stage.version, params, given), inputs, globals_))
        return tasks

    def partitions(self, table: str) -> list[str]:
        """The partitions of a table that the stages so far have written, sorted."""
        prefix = f"{table}/"
        return sorted(
            p[len(prefix) : -len(".parquet")] for p in self.catalog if p.startswith(prefix) and p.endswith(".parquet")
        )

    def file_digests(self, stage: Stage) -> dict[str, str]:
        """Digest of each resource file. ValueError if one is not there."""
        digests = {}
        for key, location in stage.files().items():
            if location.startswith("global/"):
                digests[key] = self._digest(location, stage.name)
            else:
                digests[key] = digest_of(location, f"{stage.name}: {key}")
        return digests

    def _digest(self, path: str, stage: str) -> str:
        if path not in self.catalog:
            raise NotBuiltError(f"{stage} needs {path}, which no stage before it has written: is that stage in the recipe?")
        return self.catalog[path].digest

    def _size(self, task: Task) -> int:
        """Bytes to read: the largest partitions start first, so that no straggler is left at the end."""
        return sum(self.catalog[self.corpus.path(t, task.partition)].bytes for t in task.inputs)

    # --- global stages

    def _run_global(self, stage: GlobalStage) -> list[Receipt]:
        plan = self.plan_groups(stage, self._run_partitions(Summarise(stage)))
        for receipt in plan.stale:
            self.corpus.forget(receipt)
        done = list(plan.done)
        with self.progress.stage(f"{stage.name} (merge)", total=len(done) + len(plan.todo), done=done) as bar:
            for receipt in self._finish(stage, plan.todo):
                bar.advance(receipt)
                done.append(receipt)
        return self.record(stage, done)

    def plan_groups(self, stage: GlobalStage, summaries: Sequence[Receipt]) -> Plan[Group]:
        """The same for the groups of a global stage, whose summaries are all there."""
        paths = {r.partition: next(iter(r.outputs)) for r in summaries}
        rows = {r.partition: r.rows_in for r in summaries}
        groups: dict[str, list[str]] = {}
        for partition in sorted(paths):
            groups.setdefault(stage.group(partition), []).append(partition)
        params = stage.params.model_dump(mode="json")
        files = {f"file:{k}": v for k, v in self.file_digests(stage).items()}
        found = {r.partition: r for r in self._receipts(f"{stage.name}/groups")}
        plan: Plan[Group] = Plan([], [], [r for p, r in found.items() if p not in groups])
        for name, members in groups.items():
            sources = tuple(paths[m] for m in members)
            mark = fingerprint(stage.name, stage.version, params, {p: self.catalog[p].digest for p in sources} | files)
            receipt = found.get(name)
            if receipt and receipt.fingerprint == mark and self.corpus.intact(receipt):
                plan.done.append(receipt)
            else:
                plan.todo.append(Group(name, mark, sources, sum(rows[m] for m in members)))
        return plan

    def _finish(self, stage: GlobalStage, groups: Sequence[Group]) -> Iterator[Receipt]:
        if stage.shuffle_key is not None:
            for group in groups:
                reduced = list(self.executor.map_groups(
                    [self.corpus.storage.absolute(p) for p in group.sources], stage.shuffle_key, stage.reduce
                ))  # fmt: skip
                summary = pa.concat_tables(reduced) if reduced else stage.reduce(self._empty(group))
                shuffled = Group(group.name, group.fingerprint, group.sources, group.rows, summary)
                yield from self._results(iter([FinishWork(stage, self.corpus)(shuffled)]))
            return
        ready = [self._merge_tree(stage, group) for group in groups]
        yield from self._results(self.executor.map(FinishWork(stage, self.corpus), ready, stage.resources))
        for path in self.corpus.storage.files(f"global/{stage.name}/merging"):
            self.corpus.storage.delete(path)

    def _empty(self, group: Group) -> pa.Table:
        from workflows.work import read_parquet

        return read_parquet(self.corpus.storage, group.sources[0]).slice(0, 0)

    def _merge_tree(self, stage: GlobalStage, group: Group) -> Group:
        paths, level = list(group.sources), 0
        while len(paths) > FAN_IN:
            folder = f"global/{stage.name}/merging/{group.name}/{level}"
            nodes = [Merge(f"{folder}/{i:05d}.parquet", piece) for i, piece in enumerate(chunks(paths, FAN_IN))]
            # Results come in any order, a merge is in partition order: the names of the targets sort that way.
            paths = sorted(self._results(self.executor.map(MergeWork(stage, self.corpus), nodes, stage.resources)))
            level += 1
        return Group(group.name, group.fingerprint, tuple(paths), group.rows)

    # --- receipts

    def _receipts(self, stage: str) -> list[Receipt]:
        paths = [p for p in self.corpus.storage.files(f"receipts/{stage}", ".json") if _belongs(p, stage)]
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(self.corpus.read_receipt, paths))

    def record(self, stage: Stage, receipts: Iterable[Receipt]) -> list[Receipt]:
        """Enter what a stage wrote into the catalog, so that the stages after it find it."""
        self._written.update(stage.output_tables())
        ordered = sorted(receipts, key=lambda r: r.partition)
        for receipt in ordered:
            self.catalog.update(receipt.outputs)
        return ordered

    def adopt(self) -> None:
        """Enter what every receipt of the corpus names: for a command that runs a stage without the recipe before it."""
        for path in self.corpus.storage.files("receipts", ".json"):
            receipt = self.corpus.read_receipt(path)
            self.catalog.update(receipt.outputs)
            self._written.update(p.removesuffix(f"/{receipt.partition}.parquet") for p in receipt.outputs)

    @staticmethod
    def _results(results: Iterator) -> Iterator:
        try:
            for result in results:
                if isinstance(result, Failure):
                    result.raise_()
                yield result
        finally:  # at a failure, at once: what the executor has handed out must not outlive its session
            if isinstance(results, Generator):
                results.close()


def _belongs(path: str, stage: str) -> bool:
    """Whether a receipt is the stage's own, not one of its global halves (`<stage>/summaries/...`, `<stage>/groups/...`)."""
    below = path[len(f"receipts/{stage}/") :]
    return not below.startswith(("summaries/", "groups/"))


_known: dict[tuple[str, int, int], str] = {}


def digest_of(location: str, what: str) -> str:
    """xxh3-128 of a resource file, by path or URL. ValueError, saying what it is for, if it is not there."""
    storage, name = split_url(location)
    try:
        if storage.local is not None:
            stat = (storage.local / name).stat()
            key = (str(storage.local / name), stat.st_size, stat.st_mtime_ns)
            if key not in _known:
                _known[key] = storage.digest(name)
            return _known[key]
        return storage.digest(name)
    except FileNotFoundError as error:
        raise ValueError(f"{what}: {location} is not there") from error
