"""The stage `fit-labels`: statistics of all votes, merged in a tree; a label model; and what there is to say about them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from labelers.analysis import DevCounts, advice, analyse, label_shares
from labelers.calibration import CalibrationKind, judged
from labelers.dev import DevSet
from labelers.metrics import measure
from labelers.models import LabelModel, save_model
from labelers.sample import VoteSample
from labelers.stages import FitParams, narrowed, vote_matrix
from labelers.statistics import VoteStatistics
from pipeline.stage import GlobalResult, GlobalStage

SUMMARY = pa.schema([pa.field("part", pa.string(), nullable=False), pa.field("content", pa.large_binary(), nullable=False)])
"""Tables of several kinds in one: `statistics`, `sample` and, with a dev set, `dev`, each as an Arrow stream."""


@dataclass(frozen=True)
class VoteSummary:
    """What is kept of the votes on a set of documents; it adds up. dev: votes (d, m) and classes (d,) of known documents."""

    statistics: VoteStatistics
    sample: VoteSample
    dev_votes: np.ndarray
    dev_gold: np.ndarray

    @classmethod
    def measure(cls, votes: pa.Table, classes: Sequence[str], dev: DevSet | None = None) -> VoteSummary:
        """Of a votes table."""
        functions = [c for c in votes.column_names if c != "id"]
        matrix, ids = vote_matrix(votes), votes["id"].to_pylist()
        rows, gold = dev.rows(ids) if dev is not None else (np.empty(0, np.int64), np.empty(0, np.int64))
        statistics = VoteStatistics.measure(matrix, functions, classes)
        return cls(statistics, VoteSample.measure(matrix, ids), matrix[rows], gold)

    @classmethod
    def merge(cls, parts: Iterable[VoteSummary]) -> VoteSummary:
        """ValueError on no parts."""
        parts = list(parts)
        if not parts:
            raise ValueError("there are no votes to merge: the stream is empty")
        votes, gold = (np.concatenate([getattr(p, n) for p in parts]) for n in ("dev_votes", "dev_gold"))
        return cls(VoteStatistics.merge(p.statistics for p in parts), VoteSample.merge(p.sample for p in parts), votes, gold)

    def to_table(self) -> pa.Table:
        """`SUMMARY`."""
        m = self.dev_votes.shape[1]
        flat = pa.array(np.ascontiguousarray(self.dev_votes).ravel(), pa.int8())
        dev = pa.table({"gold": pa.array(self.dev_gold, pa.int16()), "votes": pa.FixedSizeListArray.from_arrays(flat, m)})
        parts = {"statistics": self.statistics.to_table(), "sample": self.sample.to_table(), "dev": dev}
        return pa.table([list(parts), [encode(t) for t in parts.values()]], schema=SUMMARY)

    @classmethod
    def from_table(cls, table: pa.Table, classes: Sequence[str]) -> VoteSummary:
        """What a table holds, or several concatenated ones together."""
        parts: dict[str, list[pa.Table]] = {"statistics": [], "sample": [], "dev": []}
        for row in table.to_pylist():
            parts[row["part"]].append(decode(row["content"]))
        dev = pa.concat_tables(parts["dev"])
        column = dev["votes"].combine_chunks()
        return cls(
            VoteStatistics.from_table(pa.concat_tables(parts["statistics"]), classes),
            VoteSample.from_table(pa.concat_tables(parts["sample"])),
            column.flatten().to_numpy().reshape(-1, column.type.list_size),
            dev["gold"].to_numpy().astype(np.int64),
        )

    @property
    def dev_counts(self) -> DevCounts | None:
        """Votes by true class; None without a dev set."""
        return DevCounts.measure(self.dev_votes, self.dev_gold, len(self.statistics.classes)) if len(self.dev_gold) else None


@dataclass(frozen=True)
class Fitted:
    """A label model, what it says of itself, and how it does on the dev set."""

    model: LabelModel
    analysis: pa.Table
    metrics: dict[str, Any]


def fit_summary(summary: VoteSummary, params: FitParams) -> Fitted:
    """Fit the task's label model on a summary of its votes. ValueError as the model's own `fit`."""
    model = params.new_model().fit(summary.statistics, params.balance(), sample=summary.sample.votes)
    return judge(model, summary, calibrate=params.calibrate)


def judge(
    model: LabelModel, summary: VoteSummary, dev: np.ndarray | None = None, calibrate: CalibrationKind | None = None
) -> Fitted:
    """What there is to say of a fitted model and the votes of a summary. ValueError if they are of other functions.

    dev: the model's probabilities (d, k) on the dev set, if it needs more than votes for them. calibrate: the model on the
    documents of the dev set that have a vote; how good it is then is told by those that a calibration has not seen.
    """
    from labelers.dependencies import effective_functions

    statistics = summary.statistics
    if model.functions != statistics.functions:
        raise ValueError(
            f"the model is of the functions {', '.join(model.functions)}, the votes of {', '.join(statistics.functions)}"
        )
    reason = getattr(model, "reason_", None)
    metrics: dict[str, Any] = {
        "documents": statistics.documents,
        "model": getattr(model, "chosen_", model.name),
        "reason": reason,
        "class_balance": dict(zip(model.classes, np.asarray(model.class_balance_, float).tolist(), strict=True)),
        "effective_functions": effective_functions(statistics),
        **label_shares(statistics),
        "warnings": [note for note in advice(statistics, model) if note != reason],
    }
    if len(summary.dev_gold):
        found = model.predict_proba(summary.dev_votes) if dev is None else dev
        voted = (summary.dev_votes >= 0).any(axis=1)
        if voted.any():
            found = found.copy()
            found[voted], told, warnings = judged(model, found[voted], summary.dev_gold[voted], calibrate)
            metrics["reliability"] = told
            metrics["warnings"] += warnings
        metrics["dev"] = {"documents": len(summary.dev_gold), **_score(found, summary)}
    if calibrate is not None and "reliability" not in metrics:
        metrics["warnings"].append("nothing is calibrated: no document of the dev set has a vote")
    return Fitted(model, analyse(statistics, model, summary.dev_counts), metrics)


def _score(probabilities: np.ndarray, summary: VoteSummary) -> dict[str, float]:
    chosen = np.where((summary.dev_votes >= 0).any(axis=1), probabilities.argmax(axis=1), -1)
    return measure(probabilities, chosen, summary.dev_gold, ("accuracy", "macro_f1", "coverage", "log_loss"))


@dataclass
class FitLabels(GlobalStage):
    """Leaves `analysis.parquet` and `model.json` in `global/fit-labels/<task>/`. Memory does not grow with the corpus."""

    params: FitParams
    _dev: DevSet | None = field(default=None, init=False, repr=False, compare=False)

    version = 3

    def __post_init__(self) -> None:
        self.params = narrowed(self.params, FitParams)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"fit-labels/{self.params.task}"

    def files(self) -> Mapping[str, str]:
        return {"dev": self.params.dev} if self.params.dev else {}

    def input_tables(self) -> tuple[str, ...]:
        return (f"votes/{self.params.task}",)

    def setup(self, files: Mapping[str, Path]) -> None:
        self._dev = DevSet.read(files["dev"], self.params.classes) if "dev" in files else None

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        return VoteSummary.measure(tables[self.input_tables()[0]], self.params.classes, self._dev).to_table()

    def merge(self, summaries: Sequence[pa.Table]) -> pa.Table:
        return VoteSummary.from_table(pa.concat_tables(summaries), self.params.classes).to_table()

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        fitted = fit_summary(VoteSummary.from_table(summary, self.params.classes), self.params)
        if self.params.dev and "dev" not in fitted.metrics:
            fitted.metrics["warnings"].append(f"no document of {self.params.dev} is in the corpus: nothing is compared with it")
        return GlobalResult({"analysis.parquet": fitted.analysis, "model.json": save_model(fitted.model)}, fitted.metrics)


def encode(table: pa.Table) -> bytes:
    """A table as an Arrow stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return sink.getvalue()


def decode(content: bytes) -> pa.Table:
    """What `encode` gave."""
    with pa.ipc.open_stream(content) as stream:
        return stream.read_all()
