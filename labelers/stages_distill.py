"""The stages `distill` and `classify`: a classifier learns a task's weak labels, then labels the whole corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from labelers import text_sample
from labelers.dev import DevSet
from labelers.distill import (
    ENCODER,
    FASTTEXT,
    Distilled,
    compare,
    encode_card,
    fit_distilled,
    load_distilled,
    noise_aware_targets,
)
from labelers.stages import PredictParams, count_labels, narrowed, probability_table
from pipeline.stage import GlobalResult, GlobalStage, PartitionStage, StageResult

HELD_OUT = 0.1
"""Share of the sample that is kept from training, to see how often the classifier agrees with the label model."""
_DEV, _TRAIN = 1, 0


class DistillTaskParams(PredictParams):
    """What the two stages depend on."""

    dev: str | None = Field(None, description="As in `FitParams`.")


@dataclass
class Distill(GlobalStage):
    """Leaves the classifier and `card.json` in `global/distill/<task>/`."""

    params: DistillTaskParams
    _dev: DevSet | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.params = narrowed(self.params, DistillTaskParams)
        assert self.params.distill is not None

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"distill/{self.params.task}"

    def files(self) -> Mapping[str, str]:
        return {"dev": self.params.dev} if self.params.dev else {}

    def input_tables(self) -> tuple[str, ...]:
        return (self.params.weak_table, "documents")

    def setup(self, files: Mapping[str, Path]) -> None:
        self._dev = DevSet.read(files["dev"], self.params.classes) if "dev" in files else None

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        return summarise(tables[self.params.weak_table], tables["documents"], self.params, self._dev)

    def merge(self, summaries: Sequence[pa.Table]) -> pa.Table:
        assert self.params.distill is not None
        rows = pa.concat_tables(summaries)
        dev = np.asarray(rows["gold"].to_numpy() >= 0)
        kept = text_sample.merge([rows.filter(pa.array(~dev))], self.params.distill.documents)
        return pa.concat_tables([kept, rows.filter(pa.array(dev))])

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        model, told = train(self.merge([summary]), self.params)
        name, content = model.file()
        return GlobalResult({name: content, "card.json": encode_card(told)}, told)


def summarise(weak: pa.Table, documents: pa.Table, params: PredictParams, dev: DevSet | None) -> pa.Table:
    """The documents of one partition to learn from (a sample) and those of the dev set: text, probabilities, known class."""
    assert params.distill is not None
    ids = weak["id"].to_pylist()
    probabilities = np.stack([weak[f"p_{c}"].to_numpy() for c in params.classes], axis=1)
    rows, gold = dev.rows(ids) if dev is not None else (np.empty(0, np.int64), np.empty(0, np.int64))
    usable = noise_aware_targets(probabilities, weak["votes"].to_numpy(), params.distill.least_confidence)
    usable[rows] = False  # the dev set is for comparing only
    flat = pa.array(np.ascontiguousarray(probabilities).ravel())
    targets = pa.FixedSizeListArray.from_arrays(flat, len(params.classes))
    parts = []
    for chosen, known, size in (
        (np.flatnonzero(usable), None, params.distill.documents),
        (rows, gold, len(rows)),
    ):
        taken = pa.array(chosen, pa.int64())
        texts = text_sample.texts_of(documents["raw_content"].take(taken), params.distill.characters)
        columns: dict[str, Any] = {
            "text": texts,
            "target": targets.take(taken),
            "gold": pa.array(np.full(len(chosen), -1) if known is None else known, pa.int16()),
            "voted": pa.array(weak["votes"].to_numpy()[chosen] > 0, pa.bool_()),
        }
        parts.append(text_sample.sample([ids[i] for i in chosen.tolist()], columns, size))
    return pa.concat_tables(parts)


def train(rows: pa.Table, params: PredictParams) -> tuple[Distilled, dict[str, Any]]:
    """The classifier of a summary's documents, and its card. ValueError if there are too few to learn from."""
    assert params.distill is not None
    texts, gold = rows["text"].to_pylist(), rows["gold"].to_numpy()
    targets = rows["target"].combine_chunks().flatten().to_numpy().reshape(len(texts), -1)
    learnable = np.flatnonzero(gold < 0)
    kind = params.distill.kind
    if len(learnable) < 2:
        raise ValueError(
            f"distill/{params.task}: {len(learnable)} documents have a vote and are not of the dev set: too few to learn from"
        )
    # The sample is in the order of hashes of ids: its last part is a random one.
    held = learnable[len(learnable) - int(HELD_OUT * len(learnable)) :]
    used = learnable[: len(learnable) - len(held)]
    model = fit_distilled(kind, [texts[i] for i in used], targets[used], params.classes, **params.distill.options)
    told: dict[str, Any] = {
        "task": params.task,
        "kind": kind,
        "classes": list(params.classes),
        "options": params.distill.options,
        "documents": len(used),
        "class_balance": dict(zip(params.classes, targets[used].mean(axis=0).tolist(), strict=True)),
    }
    if len(held):
        found = model.predict_proba([texts[i] for i in held])
        agreement = compare({"label model": targets[held], "distilled": found}, None)["distilled"]["agreement"]
        told["held_out"] = {"documents": len(held), "agreement": agreement}
    known = np.flatnonzero(gold >= 0)
    if len(known):
        found = model.predict_proba([texts[i] for i in known])
        told["dev"] = {
            "documents": len(known),
            "with_votes": int(rows["voted"].to_numpy()[known].sum()),
            "comparison": compare({"label model": targets[known], "distilled": found}, gold[known].astype(np.int64)),
        }
    return model, told


def tell(card: Mapping[str, Any]) -> str:
    """A card in lines for the terminal: label model, distilled model and dev set side by side."""
    lines = [f"{card['task']}: {card['kind']} classifier distilled from {card['documents']:,} documents"]
    if "held_out" in card:
        lines[0] += (
            f"; agrees with the label model on {card['held_out']['agreement']:.1%} of {card['held_out']['documents']:,} others"
        )
    if "dev" in card:
        lines.append(f"  on the dev set ({card['dev']['documents']:,} documents, {card['dev']['with_votes']:,} with a vote):")
        for name, scores in card["dev"]["comparison"].items():
            told = ", ".join(f"{metric.replace('_', ' ')} {value:.3f}" for metric, value in scores.items())
            lines.append(f"    {name:12} {told}")
    return "\n".join(lines)


@dataclass
class Classify(PartitionStage):
    """Labels by the distilled classifier: `labels/<task>`."""

    params: PredictParams
    _model: Distilled | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.params = narrowed(self.params, PredictParams)
        assert self.params.distill is not None

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"classify/{self.params.task}"

    def files(self) -> Mapping[str, str]:
        assert self.params.distill is not None
        file = FASTTEXT if self.params.distill.kind == "fasttext" else ENCODER
        return {"model": f"global/distill/{self.params.task}/{file}"}

    def input_tables(self) -> tuple[str, ...]:
        return ("documents", self.params.weak_table)

    def output_tables(self) -> tuple[str, ...]:
        return (f"labels/{self.params.task}",)

    def setup(self, files: Mapping[str, Path]) -> None:
        self._model = load_distilled(files["model"], self.params.classes)

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        assert self._model is not None, "setup loads the model"
        labels = classify(self._model, tables[self.params.weak_table], tables["documents"], self.params)
        metrics = {"labels": count_labels(labels, self.params.classes)}
        return StageResult(len(labels), {self.output_tables()[0]: labels}, metrics=metrics)


def classify(model: Distilled, weak: pa.Table, documents: pa.Table, params: PredictParams) -> pa.Table:
    """`tables.labels_schema` by a distilled model, of documents and the label model's labels of them."""
    assert params.distill is not None
    cast = weak["votes"].to_numpy()
    texts = text_sample.texts_of(documents["raw_content"], params.distill.characters).to_pylist()
    probabilities = np.stack([weak[f"p_{c}"].to_numpy() for c in params.classes], axis=1)
    asked = np.arange(len(texts)) if params.distill.apply == "everywhere" else np.flatnonzero(cast == 0)
    probabilities[asked] = model.predict_proba([texts[i] for i in asked.tolist()])
    everywhere = np.ones(len(texts), bool)
    return probability_table(weak["id"], probabilities, cast, params.classes, params.tie_break, everywhere)
