"""The stages `fit-labels` and `label` of a task whose evidence is continuous scores, with no threshold: Weaver."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from labelers import text_sample
from labelers.calibration import judged
from labelers.dev import DevSet
from labelers.metrics import measure
from labelers.stages import FitParams, PredictParams, VoteParams, count_labels, narrowed, probability_table
from labelers.weaver import Weaver
from pipeline import expressions
from pipeline.frames import join_aligned
from pipeline.stage import GlobalResult, GlobalStage, PartitionStage, StageResult

DOCUMENTS = 200_000
"""Documents that Weaver is fitted on, at most; a uniform sample."""


class WeaverFitParams(VoteParams, FitParams):
    """What the fit depends on."""


class WeaverPredictParams(VoteParams, PredictParams):
    """What the labels depend on."""


@dataclass
class FitWeaver(GlobalStage):
    """Leaves `model.json` in `global/fit-labels/<task>/`."""

    params: WeaverFitParams
    _dev: DevSet | None = field(default=None, init=False, repr=False, compare=False)

    version = 2

    def __post_init__(self) -> None:
        self.params = narrowed(self.params, WeaverFitParams)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"fit-labels/{self.params.task}"

    def files(self) -> Mapping[str, str]:
        return {"dev": self.params.dev} if self.params.dev else {}

    def input_tables(self) -> tuple[str, ...]:
        return self.params.tables

    def setup(self, files: Mapping[str, Path]) -> None:
        self._dev = DevSet.read(files["dev"], self.params.classes) if "dev" in files else None

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        frame = join_aligned({name: tables[name] for name in self.params.tables}, partition)
        return summarise(frame, self.params, self._dev)

    def merge(self, summaries: Sequence[pa.Table]) -> pa.Table:
        rows = pa.concat_tables(summaries)
        dev = rows["gold"].to_numpy() >= 0
        kept = text_sample.merge([rows.filter(pa.array(~dev))], DOCUMENTS)
        return pa.concat_tables([kept, rows.filter(pa.array(dev))])

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        model, metrics = fit_weaver(self.merge([summary]), self.params)
        with tempfile.TemporaryDirectory(prefix="weaver.") as folder:
            path = Path(folder) / "model.json"
            model.save(path)
            return GlobalResult({"model.json": path.read_bytes()}, metrics)


@dataclass
class LabelWeaver(PartitionStage):
    """`labels/<task>` (or `weak/<task>`) from scores; `votes` counts the scores that a document has."""

    params: WeaverPredictParams
    _model: Weaver | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.params = narrowed(self.params, WeaverPredictParams)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"label/{self.params.task}"

    def files(self) -> Mapping[str, str]:
        return {"model": f"global/fit-labels/{self.params.task}/model.json"}

    def input_tables(self) -> tuple[str, ...]:
        return self.params.tables

    def output_tables(self) -> tuple[str, ...]:
        return (self.params.weak_table,)

    def setup(self, files: Mapping[str, Path]) -> None:
        self._model = Weaver.load(files["model"])

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        assert self._model is not None, "setup loads the model"
        frame = join_aligned({name: tables[name] for name in self.params.tables}, partition)
        labels = score_labels(self._model, frame, self.params)
        metrics = {"labels": count_labels(labels, self.params.classes)}
        return StageResult(len(labels), {self.output_tables()[0]: labels}, metrics=metrics)


def summarise(frame: pl.DataFrame, params: VoteParams, dev: DevSet | None) -> pa.Table:
    """Scores of a sample of a frame's documents, and of all that are in the dev set: key, id, scores, known class or -1."""
    ids, scores = frame["id"].cast(pl.String).to_list(), score_matrix(frame, params)
    rows, gold = dev.rows(ids) if dev is not None else (np.empty(0, np.int64), np.empty(0, np.int64))
    others = np.setdiff1d(np.arange(len(ids)), rows)
    parts = []
    for chosen, known, size in ((others, np.full(len(others), -1), DOCUMENTS), (rows, gold, len(rows))):
        flat = pa.array(np.ascontiguousarray(scores[chosen]).ravel(), pa.float64())
        columns: dict[str, Any] = {
            "scores": pa.FixedSizeListArray.from_arrays(flat, scores.shape[1]),
            "gold": pa.array(known, pa.int16()),
        }
        parts.append(text_sample.sample([ids[i] for i in chosen.tolist()], columns, size))
    return pa.concat_tables(parts)


def fit_weaver(rows: pa.Table, params: FitParams) -> tuple[Weaver, dict[str, Any]]:
    """Weaver on a summary's scores, and what there is to say of it. Of the dev set only calibration learns, if it is asked
    for."""
    assert isinstance(params, VoteParams)
    column, gold = rows["scores"].combine_chunks(), rows["gold"].to_numpy().astype(np.int64)
    scores = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    balance = params.balance()
    model = Weaver(**params.options).fit(
        scores[gold < 0], None if balance is None else float(balance[1]), functions=params.scores
    )
    metrics: dict[str, Any] = {
        "documents": int((gold < 0).sum()),
        "model": model.name,
        "class_balance": dict(zip(params.classes, model.class_balance_.tolist(), strict=True)),
        "correlations": dict(zip(params.scores, model.correlations_.tolist(), strict=True)),
        "warnings": list(model.notes_),
    }
    known = np.flatnonzero(gold >= 0)
    if len(known):
        found, metrics["reliability"], warnings = judged(
            model, model.predict_proba(scores[known]), gold[known], params.calibrate
        )
        metrics["warnings"] += warnings
        scored = measure(found, found.argmax(axis=1), gold[known], ("accuracy", "macro_f1", "log_loss"))
        metrics["dev"] = {"documents": len(known), **scored}
    elif params.calibrate is not None:
        metrics["warnings"].append("nothing is calibrated: no document of the dev set is there")
    return model, metrics


def score_labels(model: Weaver, frame: pl.DataFrame, params: PredictParams) -> pa.Table:
    """`tables.labels_schema` of a frame by a fitted Weaver. A document without any score gets no label."""
    assert isinstance(params, VoteParams)
    scores = score_matrix(frame, params)
    there = np.isfinite(scores).sum(axis=1)
    ids = frame["id"].cast(pl.String).to_arrow().cast(pa.string())
    return probability_table(ids, model.predict_proba(scores), there, params.classes, params.tie_break)


def score_matrix(frame: pl.DataFrame, params: VoteParams) -> np.ndarray:
    """The task's scores (n, m) float64, NaN where there is none. ValueError on a column that is not there or no number."""
    what = f"task {params.task}"
    for name in params.scores:
        if name not in frame.columns:
            raise expressions.unknown_column(name, frame.columns, what)
        if not (frame.schema[name].is_numeric() or frame.schema[name] == pl.Boolean):
            raise ValueError(f"{what}: column {name} is {frame.schema[name]}; a score is a number")
    scores = frame.select(pl.col(name).cast(pl.Float64).fill_null(float("nan")) for name in params.scores).to_numpy()
    return np.where(np.isinf(scores), np.nan, scores)
