"""The stages `vote` and `label` of one labelling task, and the parameters of all its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
from pydantic import Field, StringConstraints, model_validator

from labelers.calibration import CalibrationKind
from labelers.distill import Kind, check_classifier_options
from labelers.functions import Faults, Function, apply, class_index
from labelers.functions_python import PythonParams
from labelers.functions_yaml import AnyFunctionParams, function_files, load_functions
from labelers.models import LabelModel, check_balance, choose, load_model, model_class
from labelers.options import check_options
from pipeline.frames import join_aligned
from pipeline.stage import Params, PartitionStage, StageResult
from pipeline.tables import labels_schema

MOST_CLASSES = 127  # votes are int8
LIGER = "liger"
"""The label model that needs embeddings beside votes."""
WEAVER = "weaver"
"""The one that weighs scores instead of votes."""

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
        (),
        description="Labelling functions: rules, words and patterns, scores, spans, classifiers, judges, Python files.",
    )
    scores: tuple[str, ...] = Field(
        (), description="Columns of continuous scores, for the label model `weaver`, instead of functions."
    )
    tables: tuple[str, ...] = Field(
        ("documents", "signals"), min_length=1, description="Aligned tables whose columns the functions see."
    )

    @model_validator(mode="after")
    def _votes_are_classes(self) -> VoteParams:
        if bool(self.functions) == bool(self.scores):
            raise ValueError(f"task {self.task}: give functions that vote, or scores for the label model weaver")
        index = {name: i for i, name in enumerate(self.classes)}
        for function in self.functions:
            if not isinstance(function, PythonParams):
                for vote in function.classes_named():
                    class_index(vote, index, f"labelling function {function.name}")
        return self


class ExtendParams(TaskParams):
    """Whether votes are extended to near documents."""

    embeddings: str | None = Field(
        None, description="For the label model `liger`: the name of the embeddings that say which documents are near."
    )


class FitParams(ExtendParams):
    """Which label model is fitted, and what is known beforehand."""

    model: str = Field(
        "auto",
        description="Label model: `auto` (looks at the votes and chooses), `majority`, `dawid-skene`, `flyingsquid`, "
        "`matrix-completion`, `liger` (extends votes to near documents, by `embeddings`), or `weaver` (weighs "
        "continuous `scores`).",
    )
    options: dict[str, Any] = Field({}, description="Further parameters of the label model, such as `seed`.")
    class_balance: dict[str, float] | None = Field(
        None, description="Share of each class, if it is known; otherwise the model estimates it."
    )
    dev: str | None = Field(
        None,
        description="Parquet or JSONL file with `id` and `label` of documents whose class is known: shows how good functions "
        "and models are, and is learned from by `calibrate` only.",
    )
    calibrate: CalibrationKind | None = Field(
        None,
        description="Mend the probabilities on the dev set: by `temperature` (some dozen documents suffice), or `isotonic` "
        "regression (some hundred).",
    )

    @model_validator(mode="after")
    def _known(self) -> FitParams:
        if (self.model == LIGER) != (self.embeddings is not None):
            raise ValueError("model liger and embeddings go together: give both, or neither")
        if self.calibrate is not None and self.dev is None:
            raise ValueError(f"task {self.task}: calibrate needs dev, documents whose class is known")
        check_options(f"label model {self.model}", self.options, self._class(), ("k",))
        self.balance()
        return self

    def balance(self) -> np.ndarray | None:
        """`class_balance` in the order of the classes."""
        if self.class_balance is None:
            return None
        if set(self.class_balance) != set(self.classes):
            raise ValueError(f"class_balance names {', '.join(self.class_balance)}; the classes are: {', '.join(self.classes)}")
        return check_balance([self.class_balance[c] for c in self.classes], len(self.classes))

    def new_model(self) -> LabelModel:
        """The label model, not fitted yet."""
        return self._class()(k=len(self.classes), **self.options)

    def _class(self) -> type[Any]:
        if self.model == LIGER:
            from labelers.liger import Liger

            return Liger
        if self.model == WEAVER:
            from labelers.weaver import Weaver

            return Weaver
        return model_class(self.model)


class DistillParams(Params):
    """A classifier of the text that learns what the label model says, and labels the whole corpus."""

    kind: Kind = Field("fasttext", description="`fasttext`, or `encoder` (a small neural network; needs torch).")
    apply: Literal["everywhere", "unlabelled"] = Field(
        "everywhere", description="Whose labels it decides: of all documents, or of those that no function votes on."
    )
    documents: int = Field(50_000, ge=2, description="Documents that it learns from, at most; a uniform sample.")
    characters: int = Field(3_000, ge=1, description="Characters of each that it learns from.")
    least_confidence: float = Field(
        0.0, ge=0, le=1, description="Least probability of its likeliest class with which a document is learned from."
    )
    options: dict[str, Any] = Field({}, description="Further parameters of the classifier, such as `epochs` or `seed`.")

    @model_validator(mode="after")
    def _known(self) -> DistillParams:
        check_classifier_options(self.kind, self.options)
        return self


class PredictParams(ExtendParams):
    """How probabilities become labels."""

    tie_break: Literal["abstain", "random"] = Field(
        "abstain", description="Label of a document whose classes tie: none, or one of them by a hash of its id."
    )
    distill: DistillParams | None = Field(
        None, description="Train a classifier on the labels, and let it label; the label model's own are in weak/<task> then."
    )

    @property
    def weak_table(self) -> str:
        """Where the label model's labels go."""
        return f"labels/{self.task}" if self.distill is None else f"weak/{self.task}"


class LabelParams(VoteParams, FitParams, PredictParams):
    """A labelling task: functions vote, a label model weighs the votes, a classifier may learn from the outcome."""

    @model_validator(mode="after")
    def _scores_are_woven(self) -> LabelParams:
        if (self.model == WEAVER) != bool(self.scores):
            raise ValueError(f"task {self.task}: the label model weaver and scores go together: give both, or neither")
        if self.scores and len(self.classes) != 2:
            raise ValueError(f"task {self.task}: weaver knows two classes, the second one where scores are high")
        return self


@dataclass
class Vote(PartitionStage):
    """Votes of every labelling function on every document: `votes/<task>`."""

    params: VoteParams
    _functions: list[Function] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.params = narrowed(self.params, VoteParams)

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
            metrics |= {"faults": {name: dict(reasons) for name, reasons in faults.items()}}
            metrics |= {"warnings": [f"{partition}: {told}" for told in tell_faults(faults)]}
        return StageResult(frame.height, {self.output_tables()[0]: votes}, metrics=metrics)


@dataclass
class Label(PartitionStage):
    """Class probabilities and labels by the fitted model: `labels/<task>`, or `weak/<task>` before a distilled model's."""

    params: PredictParams
    _model: LabelModel | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        told = narrowed(self.params, PredictParams)
        # Of the classifier's parameters, only whether there is one matters here.
        self.params = (
            told.model_copy(update={"distill": DistillParams.model_validate({})}) if told.distill is not None else told
        )

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"label/{self.params.task}"

    def files(self) -> Mapping[str, str]:
        return {"model": f"global/fit-labels/{self.params.task}/model.json"}

    def input_tables(self) -> tuple[str, ...]:
        return (f"votes/{self.params.task}",)

    def output_tables(self) -> tuple[str, ...]:
        return (self.params.weak_table,)

    def setup(self, files: Mapping[str, Path]) -> None:
        self._model = load_model(files["model"].read_bytes())

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        assert self._model is not None, "setup loads the model"
        votes = tables[self.input_tables()[0]]
        labels = label_table(self._model, votes, self.params.tie_break)
        return StageResult(
            votes.num_rows, {self.output_tables()[0]: labels}, metrics={"labels": count_labels(labels, self.params.classes)}
        )


def count_votes(votes: pa.Table) -> dict[str, int]:
    """Votes that each function cast."""
    return {name: int(np.count_nonzero(votes[name].to_numpy() >= 0)) for name in votes.column_names if name != "id"}


def count_labels(labels: pa.Table, classes: tuple[str, ...]) -> dict[str, int]:
    """Documents by label, in the order of the classes; `none` last."""
    counted = {entry["values"]: entry["counts"] for entry in labels["label"].value_counts().to_pylist()}
    return {c: counted.get(c, 0) for c in classes} | {"none": counted.get(None, 0)}


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
    return probability_table(votes["id"], model.predict_proba(matrix), (matrix >= 0).sum(axis=1), model.classes, tie_break)


def probability_table(
    ids: pa.ChunkedArray | pa.Array,
    probabilities: np.ndarray,
    cast: np.ndarray,
    classes: tuple[str, ...],
    tie_break: str,
    decided: np.ndarray | None = None,
) -> pa.Table:
    """`tables.labels_schema` of probabilities (n, k) and votes cast (n,). decided: (n,) documents that get a label; those with
    a vote if not given."""
    chosen = choose(probabilities, cast if decided is None else decided.astype(np.int64), ids.to_pylist(), tie_break)
    labels = [classes[c] if c >= 0 else None for c in chosen.tolist()]
    shares = [pa.array(np.ascontiguousarray(p), pa.float64()) for p in probabilities.T]
    columns = [ids, pa.array(labels, pa.string()), *shares, pa.array(cast, pa.int16())]
    return pa.Table.from_arrays(columns, schema=labels_schema(classes))


def narrowed(params: TaskParams, kind: type[P]) -> P:
    """Only the parameters that a stage depends on, so that the others do not make it run again."""
    return kind.model_validate({name: getattr(params, name) for name in kind.model_fields})
