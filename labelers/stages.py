"""The stages `vote`, `fit-labels` and `label` of one labelling task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
from pydantic import Field, StringConstraints, model_validator

from labelers.analysis import analyse, label_shares
from labelers.functions import Faults, Function, apply, class_index
from labelers.functions_python import PythonParams
from labelers.functions_yaml import AnyFunctionParams, function_files, load_functions
from labelers.models import LabelModel, choose, load_model, model_class, save_model
from labelers.statistics import SCHEMA, VoteStatistics
from pipeline.frames import join_aligned
from pipeline.stage import GlobalResult, GlobalStage, Params, PartitionStage, StageResult
from pipeline.tables import labels_schema

MOST_CLASSES = 127  # votes are int8

P = TypeVar("P", bound="TaskParams")
TaskName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class TaskParams(Params):
    """What names a labelling task."""

    task: TaskName = Field(description="Name of the task: votes/<task>, labels/<task>.")
    classes: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(
        min_length=2, max_length=MOST_CLASSES, description="Classes, in order: a vote is the number of a class, from 0."
    )

    @model_validator(mode="after")
    def _distinct(self) -> TaskParams:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"task {self.task}: a class is named twice in {', '.join(self.classes)}")
        return self


class VoteParams(TaskParams):
    """Labelling functions and the tables that they see."""

    functions: tuple[AnyFunctionParams, ...] = Field(
        min_length=1,
        description="Labelling functions: rules, words and patterns, scores, spans, classifiers, judges, Python files.",
    )
    tables: tuple[str, ...] = Field(
        ("documents", "signals"), min_length=1, description="Aligned tables whose columns the functions see."
    )

    @model_validator(mode="after")
    def _votes_are_classes(self) -> VoteParams:
        index = {name: i for i, name in enumerate(self.classes)}
        for function in self.functions:
            if not isinstance(function, PythonParams):
                for vote in function.classes_named():
                    class_index(vote, index, f"labelling function {function.name}")
        return self


class FitParams(TaskParams):
    """Which label model is fitted."""

    model: str = Field("majority", description="Label model: `majority`.")

    @model_validator(mode="after")
    def _known(self) -> FitParams:
        model_class(self.model)
        return self


class PredictParams(TaskParams):
    """How probabilities become labels."""

    tie_break: Literal["abstain", "random"] = Field(
        "abstain", description="Label of a document whose classes tie: none, or one of them by a hash of its id."
    )


class LabelParams(VoteParams, FitParams, PredictParams):
    """A labelling task: functions vote, a label model weighs the votes."""


@dataclass
class Vote(PartitionStage):
    """Votes of every labelling function on every document: `votes/<task>`."""

    params: VoteParams
    _functions: list[Function] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.params = _narrowed(self.params, VoteParams)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"vote/{self.params.task}"

    def files(self) -> Mapping[str, str]:
        return function_files(self.params.functions)

    def input_tables(self) -> tuple[str, ...]:
        return self.params.tables

    def output_tables(self) -> tuple[str, ...]:
        return (f"votes/{self.params.task}",)

    def setup(self, files: Mapping[str, Path]) -> None:
        self._functions = load_functions(self.params.functions, files)

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        assert self._functions is not None, "setup loads the functions"
        frame = join_aligned({name: tables[name] for name in self.params.tables}, partition)
        faults: Faults = {}
        votes = apply(self._functions, self.params.classes, frame, faults)
        metrics: dict[str, Any] = {"votes": count_votes(votes)}
        if faults:
            metrics |= {"faults": {name: dict(reasons) for name, reasons in faults.items()}, "warnings": tell_faults(faults)}
        return StageResult(frame.height, {self.output_tables()[0]: votes}, metrics=metrics)


@dataclass
class FitLabels(GlobalStage):
    """Statistics of all votes; leaves `analysis.parquet` and `model.json` in `global/fit-labels/<task>/`."""

    params: FitParams

    def __post_init__(self) -> None:
        self.params = _narrowed(self.params, FitParams)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"fit-labels/{self.params.task}"

    def input_tables(self) -> tuple[str, ...]:
        return (f"votes/{self.params.task}",)

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        votes = tables[self.input_tables()[0]]
        functions = [c for c in votes.column_names if c != "id"]
        return VoteStatistics.measure(vote_matrix(votes), functions, self.params.classes).to_table()

    def merge(self, summaries: Sequence[pa.Table]) -> pa.Table:
        rows = pa.concat_tables(summaries)
        return VoteStatistics.from_table(rows, self.params.classes).to_table().cast(SCHEMA)

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        statistics = VoteStatistics.from_table(summary, self.params.classes)
        model = model_class(self.params.model)(len(self.params.classes)).fit(statistics)
        balance = dict(zip(model.classes, model.class_balance_.tolist(), strict=True))
        metrics = {"documents": statistics.documents, "class_balance": balance, **label_shares(statistics)}
        return GlobalResult({"analysis.parquet": analyse(statistics), "model.json": save_model(model)}, metrics)


@dataclass
class Label(PartitionStage):
    """Class probabilities and labels by the fitted model: `labels/<task>`."""

    params: PredictParams
    _model: LabelModel | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.params = _narrowed(self.params, PredictParams)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"label/{self.params.task}"

    def files(self) -> Mapping[str, str]:
        return {"model": f"global/fit-labels/{self.params.task}/model.json"}

    def input_tables(self) -> tuple[str, ...]:
        return (f"votes/{self.params.task}",)

    def output_tables(self) -> tuple[str, ...]:
        return (f"labels/{self.params.task}",)

    def setup(self, files: Mapping[str, Path]) -> None:
        self._model = load_model(files["model"].read_bytes())

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        assert self._model is not None, "setup loads the model"
        votes = tables[self.input_tables()[0]]
        labels = label_table(self._model, votes, self.params.tie_break)
        counted = labels["label"].value_counts().to_pylist()
        told = {v["values"] or "none": v["counts"] for v in sorted(counted, key=lambda v: v["values"] or "")}
        return StageResult(votes.num_rows, {self.output_tables()[0]: labels}, metrics={"labels": told})


def count_votes(votes: pa.Table) -> dict[str, int]:
    """Votes that each function cast."""
    return {name: int(np.count_nonzero(votes[name].to_numpy() >= 0)) for name in votes.column_names if name != "id"}


def tell_faults(faults: Faults) -> list[str]:
    """A sentence per function with votes that could not be had."""
    return [
        f"labelling function {name} abstains on {sum(reasons.values()):,} documents for want of an answer: "
        + ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
        for name, reasons in faults.items()
    ]


def vote_matrix(votes: pa.Table) -> np.ndarray:
    """A votes table as (n, m) int8."""
    columns = [votes[c].to_numpy() for c in votes.column_names if c != "id"]
    return np.stack(columns, axis=1) if columns else np.empty((votes.num_rows, 0), np.int8)


def label_table(model: LabelModel, votes: pa.Table, tie_break: str) -> pa.Table:
    """`tables.labels_schema` of a votes table. ValueError if its functions are not those that the model was fitted on."""
    functions = tuple(c for c in votes.column_names if c != "id")
    if functions != model.functions:
        raise ValueError(
            f"the label model was fitted on the functions {', '.join(model.functions)}, and the votes are those of "
            f"{', '.join(functions)}: fit it again"
        )
    matrix = vote_matrix(votes)
    probabilities = model.predict_proba(matrix)
    cast = (matrix >= 0).sum(axis=1)
    chosen = choose(probabilities, cast, votes["id"].to_pylist(), tie_break)
    labels = [model.classes[c] if c >= 0 else None for c in chosen.tolist()]
    columns = [votes["id"], pa.array(labels, pa.string()), *(pa.array(p) for p in probabilities.T), pa.array(cast, pa.int16())]
    return pa.Table.from_arrays(columns, schema=labels_schema(model.classes))


def _narrowed(params: TaskParams, kind: type[P]) -> P:
    """Only the parameters that a stage depends on, so that the others do not make it run again."""
    return kind.model_validate({name: getattr(params, name) for name in kind.model_fields})
