"""The stages `plan` and `mix`: what a mixture will be, and which document belongs to which part of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import xxhash
from pydantic import Field, model_validator

from pipeline import tables as schemas
from pipeline.expressions import unknown_column
from pipeline.frames import TEXT_COLUMNS, characters, join_aligned
from pipeline.importance_sample import NOT_SAMPLED, ranks
from pipeline.plan import SUMMARY, SUMMARY_COUNTS, SUMMARY_KEYS, MixturePlan, add_up, make_plan
from pipeline.select import Component, ComponentName, Filter, assign, held_out
from pipeline.stage import GlobalResult, GlobalStage, Params, PartitionStage, StageResult

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class MixParams(Params):
    """A mixture: filters in order, components in order, and a budget in tokens."""

    name: ComponentName = Field("main", description="Name of the mixture: tables are mixture/<name>, shards tokens/<name>.")
    tables: tuple[str, ...] = Field(
        ("documents", "signals", "duplicates"), min_length=1, description="Aligned tables whose columns conditions may use."
    )
    select: tuple[Filter, ...] = Field(
        (),
        description="Filters, in order; the first that a document fails is its reason. `{rules: gopher}`: a published set.",
    )
    components: tuple[Component, ...] = Field(min_length=1, description="Components, in order; the first that matches wins.")
    tokens: int | None = Field(None, gt=0, description="Budget in tokens; null: the largest that the epoch caps permit.")
    characters_per_token: float = Field(4.0, gt=0, description="Assumed for token counts where no tokenizer is given.")
    tokenizer: str | None = Field(None, description="A tokenizer.json with which characters per token are measured.")
    sample: int = Field(32, gt=0, description="Documents per partition, component and language measured with the tokenizer.")
    heldout: float = Field(0.01, ge=0, lt=1, description="Share of the selected documents kept from training, for evaluation.")
    heldout_by: str = Field(
        "id", description="Column whose hash decides: id, or source_domain to hold out whole sites; null values count by id."
    )

    @model_validator(mode="after")
    def _check(self) -> MixParams:
        for kind, names in (("filter", [f.name for f in self.select]), ("component", [c.name for c in self.components])):
            twice = [n for n, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f"two {kind}s are called {twice[0]}")
        if len({c.weight is None for c in self.components}) > 1:
            raise ValueError("some components have a weight and some do not; give it for all, or for none")
        return self


def mark(params: MixParams, frame: pl.DataFrame) -> pl.DataFrame:
    """Columns `component`, `split` and `reason`, aligned with the frame; `split` is null where a document is not selected.

    ValueError if a condition or `heldout_by` names a column that the frame does not have.
    """
    marked = assign(frame, params.select, params.components)
    if params.heldout_by not in frame.columns:
        raise unknown_column(params.heldout_by, frame.columns, "heldout_by")
    keys = frame.select(pl.coalesce(pl.col(params.heldout_by).cast(pl.String), "id")).to_series()
    out = held_out(keys, params.heldout)
    split = pl.when(pl.col("component").is_not_null()).then(
        pl.when(out).then(pl.lit("heldout")).otherwise(pl.lit("train"))
    )  # fmt: skip
    return marked.select("component", split.alias("split"), "reason")


def summarise(params: MixParams, frame: pl.DataFrame, tokenizer: Tokenizer | None = None) -> pa.Table:
    """Documents and characters (and tokens of a sample) by component, reason, split, language and bucket: `plan.SUMMARY`."""
    known = [
        pl.col(c).cast(pl.String) if c in frame.columns else pl.lit(None, pl.String).alias(c) for c in ("language", "bucket")
    ]
    counted = frame.select("id", *known, characters(frame, f"mixture {params.name}").alias("characters"))
    marked = mark(params, frame)
    counted = pl.concat([counted, marked, _ranks(params, frame, marked).to_frame()], how="horizontal")
    counted = counted.with_columns(sampled_characters=pl.lit(0, pl.Int64), sampled_tokens=pl.lit(0, pl.Int64))
    if tokenizer is not None:
        counted = counted.with_columns(_measure(params, frame, counted, tokenizer))
    rows = counted.group_by(SUMMARY_KEYS).agg(
        pl.len().cast(pl.Int64).alias("documents"), *(pl.col(c).sum() for c in SUMMARY_COUNTS[1:])
    )  # fmt: skip
    return add_up([rows.select(SUMMARY.names).to_arrow().cast(SUMMARY)])


def mixture_table(params: MixParams, frame: pl.DataFrame, plan: MixturePlan) -> pa.Table:
    """`tables.MIXTURE`, aligned with the frame. `repeats` is the epochs planned; 0 for held-out documents too."""
    epochs = {c.name: c.epochs for c in plan.components}
    marked = _sampled(params, frame, mark(params, frame), plan)
    repeats = (
        pl.when(pl.col("split") == "train")
        .then(pl.col("component").replace_strict(list(epochs), list(epochs.values()), default=0.0, return_dtype=pl.Float64))
        .otherwise(0.0)
    )
    told = pl.concat([frame.select("id"), marked.with_columns(repeats=repeats)], how="horizontal")
    return schemas.conform(told.select(schemas.MIXTURE.names).to_arrow(), schemas.MIXTURE, f"mixture {params.name}")


def _ranks(params: MixParams, frame: pl.DataFrame, marked: pl.DataFrame) -> pl.Series:
    """The rank of each document in the sample of its component; null where that is not sampled."""
    rank = pl.lit(None, pl.String)
    columns = {"component": marked["component"]}
    for part in params.components:
        if part.sample is not None:
            columns[f"rank {part.name}"] = ranks(part.sample, frame, f"component {part.name}")
            rank = pl.when(pl.col("component") == part.name).then(f"rank {part.name}").otherwise(rank)
    return pl.DataFrame(columns).select(rank.alias("rank")).to_series() if len(columns) > 1 else _no_ranks(frame.height)


def _no_ranks(height: int) -> pl.Series:
    return pl.Series("rank", [None] * height, dtype=pl.String)


def _sampled(params: MixParams, frame: pl.DataFrame, marked: pl.DataFrame, plan: MixturePlan) -> pl.DataFrame:
    """What `mark` says, less the documents below their component's cut."""
    cuts = {c.name: c.cut for c in plan.components if c.cut is not None}
    if not cuts:
        return marked
    lowest = pl.col("component").replace_strict(list(cuts), list(cuts.values()), default=None, return_dtype=pl.String)
    out = lowest.is_not_null() & (pl.col("rank").fill_null("") < lowest)
    kept = [pl.when(out).then(None).otherwise(pl.col(c)).alias(c) for c in ("component", "split")]
    reason = pl.when(out).then(pl.lit(NOT_SAMPLED)).otherwise("reason").alias("reason")
    return marked.with_columns(_ranks(params, frame, marked)).select(*kept, reason)


@dataclass
class Plan(GlobalStage):
    """Counts what every component has, and leaves the plan at `global/plan/<name>/plan.json`."""

    params: MixParams
    _tokenizer: Tokenizer | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"plan/{self.params.name}"

    def files(self) -> Mapping[str, str]:
        return {"tokenizer": self.params.tokenizer} if self.params.tokenizer is not None else {}

    def input_tables(self) -> tuple[str, ...]:
        return self.params.tables

    def setup(self, files: Mapping[str, Path]) -> None:
        if "tokenizer" in files:
            self._tokenizer = load_tokenizer(files["tokenizer"])

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        assert self._tokenizer is not None or self.params.tokenizer is None, "setup loads the tokenizer"
        return summarise(self.params, join_aligned(_only(tables, self.params.tables), partition), self._tokenizer)

    def merge(self, summaries: Sequence[pa.Table]) -> pa.Table:
        return add_up(summaries)

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        p = self.params
        plan = make_plan(p.name, p.components, p.tokens, p.characters_per_token, summary)
        metrics = {"tokens": plan.tokens, "documents": plan.documents, "selected": plan.selected}
        return GlobalResult({"plan.json": plan.to_json()}, metrics)


@dataclass
class Mix(PartitionStage):
    """Marks every document with its component and split, or with the reason why it is not selected."""

    params: MixParams
    _plan: MixturePlan | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"mix/{self.params.name}"

    def files(self) -> Mapping[str, str]:
        return {"plan": plan_path(self.params.name)}

    def input_tables(self) -> tuple[str, ...]:
        return self.params.tables

    def output_tables(self) -> tuple[str, ...]:
        return (f"mixture/{self.params.name}",)

    def setup(self, files: Mapping[str, Path]) -> None:
        self._plan = MixturePlan.from_json(files["plan"].read_bytes())

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        assert self._plan is not None, "setup reads the plan"
        frame = join_aligned(_only(tables, self.params.tables), partition)
        marked = mixture_table(self.params, frame, self._plan)
        metrics = {kind: _counts(marked[kind]) for kind in ("component", "split", "reason")}
        return StageResult(frame.height, {self.output_tables()[0]: marked}, metrics=metrics)


def plan_path(name: str) -> str:
    """Where a corpus keeps the plan of a mixture."""
    return f"global/plan/{name}/plan.json"


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer.json. ValueError if it cannot be read as one."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ValueError(f"{path} is no tokenizer.json: {error}") from error


def _only(tables: Mapping[str, pa.Table], names: Sequence[str]) -> dict[str, pa.Table]:
    return {name: tables[name] for name in names}


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(sorted(Counter(v for v in column.to_pylist() if v is not None).items()))


def _measure(params: MixParams, frame: pl.DataFrame, counted: pl.DataFrame, tokenizer: Tokenizer) -> list[pl.Series]:
    """Characters and tokens of a sample of selected documents; zero elsewhere. Tokens include the end-of-document token."""
    text = next((c for c in TEXT_COLUMNS if c in frame.columns), None)
    if text is None:
        raise ValueError(f"mixture {params.name}: measuring needs one of the columns {', '.join(TEXT_COLUMNS)}")
    order = pl.Series("order", [xxhash.xxh3_64_intdigest(i.encode()) for i in frame["id"].to_list()], dtype=pl.UInt64)
    rank = pl.col("order").rank("ordinal").over("component", "language")
    chosen = counted.with_columns(order).select(pl.col("component").is_not_null() & (rank <= params.sample)).to_series()
    texts = frame.filter(chosen)[text].fill_null("").to_list()
    lengths = iter([len(e.ids) + 1 for e in tokenizer.encode_batch(texts, add_special_tokens=False)])
    tokens = [next(lengths) if c else 0 for c in chosen.to_list()]
    measured = counted["characters"].zip_with(chosen, pl.zeros(counted.height, pl.Int64, eager=True))
    return [measured.alias("sampled_characters"), pl.Series("sampled_tokens", tokens, dtype=pl.Int64)]
