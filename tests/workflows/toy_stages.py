"""Small real stages for engine tests: numbers instead of documents, the same contract."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.stage import GlobalResult, GlobalStage, Params, PartitionStage, StageResult


class CountParams(Params):
    shards: int = 4
    rows: int = 100
    salt: int = 0


@dataclass
class Count(PartitionStage):
    """Writes `numbers`: rows of shard s are s, s + 1, ...; every tenth is dropped."""

    params: CountParams
    name, outputs = "count", ("numbers",)

    def partitions(self) -> Sequence[str]:
        return [f"toy/{s:04d}" for s in range(self.params.shards)]

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        start = int(partition[-4:])
        values = [v + self.params.salt for v in range(start, start + self.params.rows)]
        kept = [v for v in values if v % 10]
        return StageResult(len(values), {"numbers": pa.table({"value": kept})}, {"multiple_of_ten": len(values) - len(kept)})


class SplitParams(Params):
    modulus: int = 3
    die_on: str = ""  # path of a file: the first task that finds none makes it and kills its own process
    always_die_on: str = ""
    fail_on: str = ""


@dataclass
class Split(PartitionStage):
    """Splits `numbers` by remainder into partitions of `parts`; subtracts half of the group's largest duplicate."""

    params: SplitParams
    name, inputs, outputs = "split", ("numbers",), ("parts",)

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        if self.params.fail_on == partition:
            raise ValueError(f"{partition} is not to my taste")
        if self.params.die_on and not Path(self.params.die_on).exists():
            Path(self.params.die_on).touch()
            os.kill(os.getpid(), 9)
        if self.params.always_die_on == partition:
            os.kill(os.getpid(), 9)
        values = tables["numbers"]["value"].to_pylist()
        parts: dict[str | tuple[str, str], pa.Table] = {}
        for remainder in sorted({v % self.params.modulus for v in values}):
            mine = [v for v in values if v % self.params.modulus == remainder]
            parts["parts", f"{partition}/r{remainder}"] = pa.table({"value": mine})
        return StageResult(len(values), parts)


class NoParams(Params):
    buckets: int = 5


@dataclass
class Sum(GlobalStage):
    """Adds up, per group of two shards, through a merge tree."""

    params: NoParams
    name, inputs = "sum", ("numbers",)

    def group(self, partition: str) -> str:
        return f"g{int(partition[-4:]) // 2}"

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        return pa.table({"sum": [pc.sum(tables["numbers"]["value"]).as_py() or 0]})

    def merge(self, summaries: Sequence[pa.Table]) -> pa.Table:
        return pa.table({"sum": [sum(s["sum"][0].as_py() for s in summaries)]})

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        return GlobalResult({f"{group}.parquet": summary}, {"sum": summary["sum"][0].as_py()})


@dataclass
class Repeated(GlobalStage):
    """Values that several shards have, found through a shuffle."""

    params: NoParams
    name, inputs, shuffle_key = "repeated", ("numbers",), "bucket"

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        values = tables["numbers"]["value"]
        return pa.table(
            {"bucket": pa.array([v % self.params.buckets for v in values.to_pylist()], pa.int32()), "value": values}
        )

    def reduce(self, rows: pa.Table) -> pa.Table:
        counts = rows["value"].value_counts()
        seen = sorted(c["values"].as_py() for c in counts if c["counts"].as_py() > 1)
        return pa.table({"value": pa.array(seen, pa.int64())})

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        return GlobalResult({"all.parquet": summary.sort_by("value")})


@dataclass
class Unsound(PartitionStage):
    """Loses a row without a reason."""

    params: NoParams
    name, inputs, outputs = "unsound", ("numbers",), ("fewer",)

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        return StageResult(len(tables["numbers"]), {"fewer": tables["numbers"].slice(1)})
