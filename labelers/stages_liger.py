"""The stages `fit-labels` and `label` with Liger: votes are extended to near documents before they are weighed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from labelers import text_sample
from labelers.liger import Liger
from labelers.models import load_model, save_model
from labelers.posterior import posterior
from labelers.stages import Label, PredictParams, count_labels, probability_table, vote_matrix
from labelers.stages_embed import embedding_matrix
from labelers.stages_fit import SUMMARY, FitLabels, VoteSummary, decode, encode, judge
from pipeline.stage import GlobalResult, StageResult

DOCUMENTS = 100_000
"""Documents that Liger is fitted on, at most; a uniform sample. Their votes and embeddings are part of the model."""
_NEAR, _DEV_POINTS = "near", "dev_points"


@dataclass
class FitLiger(FitLabels):
    """`fit-labels` on votes and embeddings."""

    def input_tables(self) -> tuple[str, ...]:
        return (f"votes/{self.params.task}", f"embeddings/{self.params.embeddings}")

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        votes, points = (tables[name] for name in self.input_tables())
        ids = votes["id"].to_pylist()
        matrix = np.ascontiguousarray(vote_matrix(votes))
        flat = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel(), pa.int8()), matrix.shape[1])
        known = self._dev.rows(ids)[0] if self._dev is not None else np.empty(0, np.int64)
        usable = np.flatnonzero(np.any(embedding_matrix(points) != 0, axis=1))  # a document without a word is near to none
        taken = pa.array(usable, pa.int64())
        columns = {"votes": flat.take(taken), "embedding": points["embedding"].take(taken)}
        parts = {
            _NEAR: text_sample.sample([ids[i] for i in usable.tolist()], columns, DOCUMENTS),
            _DEV_POINTS: pa.table({"embedding": points["embedding"].take(pa.array(known, pa.int64()))}),
        }
        return pa.concat_tables([super().summarise(partition, tables), _packed(parts)])

    def merge(self, summaries: Sequence[pa.Table]) -> pa.Table:
        rows = pa.concat_tables(summaries)
        near = text_sample.merge(_unpacked(rows, _NEAR), DOCUMENTS)
        parts = {_NEAR: near, _DEV_POINTS: pa.concat_tables(_unpacked(rows, _DEV_POINTS))}
        return pa.concat_tables([super().merge([_without(rows)]), _packed(parts)])

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        known = VoteSummary.from_table(_without(summary), self.params.classes)
        (near,), (dev_points,) = _unpacked(summary, _NEAR), _unpacked(summary, _DEV_POINTS)
        column = near["votes"].combine_chunks()
        votes = column.flatten().to_numpy().reshape(-1, column.type.list_size)
        model = Liger(k=len(self.params.classes), **self.params.options).fit(
            votes, self.params.balance(), embeddings=embedding_matrix(near), functions=known.statistics.functions,
            classes=self.params.classes,
        )  # fmt: skip
        dev = predict(model, known.dev_votes, embedding_matrix(dev_points))[0] if len(known.dev_gold) else None
        fitted = judge(model, known, dev, self.params.calibrate)
        if model.base == "auto" and model.notes_:  # what it chose to weigh the votes by, and why
            fitted.metrics["reason"] = f"Liger on {model.notes_[0]}"
            fitted.metrics["warnings"] = [w for w in fitted.metrics["warnings"] if w != model.notes_[0]]
        radii = zip(model.functions, np.asarray(model.radius_, float).tolist(), strict=True)
        fitted.metrics["radius"] = {name: radius if np.isfinite(radius) else None for name, radius in radii}
        return GlobalResult({"analysis.parquet": fitted.analysis, "model.json": save_model(model)}, fitted.metrics)


@dataclass
class LabelLiger(Label):
    """`label` on votes and embeddings. A document without votes gets a label if a near one has votes."""

    params: PredictParams
    _liger: Liger | None = field(default=None, init=False, repr=False, compare=False)

    def input_tables(self) -> tuple[str, ...]:
        return (f"votes/{self.params.task}", f"embeddings/{self.params.embeddings}")

    def setup(self, files: Mapping[str, Path]) -> None:
        model = load_model(files["model"].read_bytes())
        assert isinstance(model, Liger), "fit-labels leaves a Liger where embeddings are given"
        self._liger = model

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        assert self._liger is not None, "setup loads the model"
        votes, points = (tables[name] for name in self.input_tables())
        matrix = vote_matrix(votes)
        probabilities, extended = predict(self._liger, matrix, embedding_matrix(points))
        cast = (matrix >= 0).sum(axis=1)
        labels = probability_table(
            votes["id"], probabilities, cast, self._liger.classes, self.params.tie_break, np.any(extended >= 0, axis=1)
        )
        told = count_labels(labels, self._liger.classes)
        metrics = {"labels": told, "extended_votes": int((extended >= 0).sum() - cast.sum())}
        return StageResult(len(labels), {self.output_tables()[0]: labels}, metrics=metrics)


def predict(model: Liger, votes: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) probabilities and (n, m) extended votes. Points of zeros (documents without a word) are near to nothing: their
    votes are weighed as they are."""
    somewhere = np.any(points != 0, axis=1)
    extended = votes.copy()
    probabilities = model._calibrated(posterior(votes, model.log_prior_, model.weights_))
    if somewhere.any():
        probabilities[somewhere] = model.predict_proba(votes[somewhere], points[somewhere])
        extended[somewhere] = model.extend(votes[somewhere], points[somewhere])
    return probabilities, extended


def _packed(parts: Mapping[str, pa.Table]) -> pa.Table:
    return pa.table([list(parts), [encode(t) for t in parts.values()]], schema=SUMMARY)


def _unpacked(rows: pa.Table, part: str) -> list[pa.Table]:
    return [decode(row["content"]) for row in rows.to_pylist() if row["part"] == part]


def _without(rows: pa.Table) -> pa.Table:
    kept = [row["part"] not in (_NEAR, _DEV_POINTS) for row in rows.select(["part"]).to_pylist()]
    return rows.filter(pa.array(kept, pa.bool_()))
