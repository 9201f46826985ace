"""What a stage is: parameters, inputs, outputs, and a pure `run`. The engine does the reading, writing and scheduling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

T = TypeVar("T")
R = TypeVar("R")


class Params(BaseModel):
    """Base of every stage's parameters: frozen, and strict about names, so that a recipe's typing error is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Resources:
    """What the engine reserves for one task of a stage. `memory` in bytes, 0 for no reservation."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0


@dataclass(frozen=True)
class StageResult:
    """What `run` returns for one partition.

    tables: by table name, or by (table name, partition) where a stage writes other partitions than the one it reads.
    rows_in: records read; the engine checks rows_in = rows out of the first output + all drops.
    drops: records lost, by reason. rejects: the lost records (tables.REJECTS), written when the recipe keeps them.
    files: other outputs, path below the corpus to content. metrics: numbers for the receipt (status and report show them).
    """

    rows_in: int
    tables: Mapping[str | tuple[str, str], pa.Table] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)
    rejects: pa.Table | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    rows_out: int | None = None  # only for a stage that writes no table


class Stage(ABC):
    """What partition stages and global stages share. Subclasses are dataclasses: picklable, compared by value.

    A stage that a recipe may have twice (two labelling tasks, say) makes `name` a property: `vote/<task>`.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[str, ...]] = ()
    outputs: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources()
    params: Params

    def files(self) -> Mapping[str, str]:
        """Resource files by key: a path or URL, or `global/...` for what a global stage left. Digested into the fingerprint."""
        return {}

    def input_tables(self) -> tuple[str, ...]:
        """The tables to read; those of `inputs` unless the parameters name more (signals that a rule reads, say)."""
        return self.inputs

    def output_tables(self) -> tuple[str, ...]:
        """The tables that it writes; those of `outputs` unless the parameters name them (`votes/<task>`)."""
        return self.outputs


class PartitionStage(Stage):
    """A pure function of one partition."""

    def partitions(self) -> Sequence[str] | None:
        """The partitions of a stage that reads no table (`ingest`); None: those of the first input table."""
        return None

    def source_digests(self, partition: str) -> Mapping[str, str]:
        """For a stage that reads sources: an identity (size and version) of each file, for the fingerprint."""
        return {}

    def global_tables(self, partition: str) -> Mapping[str, str]:
        """Parquet files below `global/` that `run` finds in `tables`, by key. A missing file reads as an error."""
        return {}

    def setup(self, files: Mapping[str, Path]) -> None:
        """Load models, once per worker. `files`: the local path of each entry of `self.files()`."""

    @abstractmethod
    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        """The result of one partition. `tables`: input tables and global tables by name."""


class GlobalStage(Stage):
    """A function of the whole corpus, through one small summary per partition and group.

    The engine calls `summarise` per partition, then combines the summaries of a group: with `merge`, in a tree, unless
    `shuffle_key` names a column of the summaries, in which case rows of equal key meet in `reduce` (Ray Data's hash shuffle)
    and the results are concatenated. `finish` turns a group's combined summary into files below `global/<stage>/`.
    """

    shuffle_key: ClassVar[str | None] = None
    preserves: ClassVar[tuple[str, ...]] = ()

    def setup(self, files: Mapping[str, Path]) -> None:
        """Load models, once per worker that summarises."""

    def group(self, partition: str) -> str:
        """The group whose summaries are combined; one for the whole corpus unless a stage says otherwise."""
        return "all"

    @abstractmethod
    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        """A small table that describes one partition."""

    def merge(self, summaries: Sequence[pa.Table]) -> pa.Table:
        """Combine summaries, in partition order. Must be associative. Concatenates by default."""
        return pa.concat_tables(summaries)

    def reduce(self, rows: pa.Table) -> pa.Table:
        """For a shuffle: all rows of one key (or of several whole keys) to result rows, sorted deterministically."""
        raise TypeError(f"{self.name} sets no shuffle_key, so nothing is reduced")

    @abstractmethod
    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        """The group's files, by path below `global/<stage>/`: tables (written as Parquet) or bytes."""


@dataclass(frozen=True)
class GlobalResult:
    """What `finish` returns. files: path below `global/<stage>/` to a table (`.parquet`) or bytes; metrics: for the receipt."""

    files: Mapping[str, pa.Table | bytes]
    metrics: Mapping[str, Any] = field(default_factory=dict)


class Executor(Protocol):
    """Where work runs. `workflows.engine` has one in-process and one on Ray; nothing here imports Ray."""

    def map(self, function: Callable[[T], R], items: Sequence[T], resources: Resources = Resources()) -> Iterator[R]:
        """Results as they come, in any order."""
        ...

    def map_groups(self, files: Sequence[str], key: str, function: Callable[[pa.Table], pa.Table]) -> Iterator[pa.Table]:
        """Shuffle the rows of Parquet files by `key` and apply a function to each group of whole keys, in any order."""
        ...
