"""What the report tells of labelling tasks: functions, label model, distilled model, and what decided some labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pyarrow.parquet as pq

from labelers.analysis import Explanation, explain
from labelers.calibration import tell_reliability
from labelers.models import load_model
from labelers.stages import LIGER, WEAVER
from pipeline.corpus import Corpus
from pipeline.receipt import Receipt
from workflows.report.charts import EVERYTHING, INK, LOST, SELECTED, layout

BINS = 20
MOST_SHARES = 8
_RANK = "rank"


@dataclass(frozen=True)
class Why:
    """A document and what decided its label."""

    title: str
    url: str
    explanation: Explanation


@dataclass(frozen=True)
class LabelFacts:
    """One labelling task. confidence: documents by the probability of their likeliest class, in `BINS` bins over `ends`.

    fit: metrics of the label model's fit. card: of the distilled model, or None.
    """

    task: str
    analysis: pl.DataFrame
    counted: pl.DataFrame
    ends: tuple[float, float]
    confidence: Sequence[int]
    fit: Mapping[str, Any]
    card: Mapping[str, Any] | None
    whys: Sequence[Why]


def gather(
    corpus: Corpus, tasks: Sequence[str], receipts: Mapping[str, Sequence[Receipt]], partitions: Sequence[str]
) -> list[LabelFacts]:
    """Every task whose label model is fitted. tasks: those with a complete table `labels/<task>`."""
    return [_task(corpus, t, receipts, partitions) for t in tasks if receipts.get(f"fit-labels/{t}/groups")]


def _task(corpus: Corpus, task: str, receipts: Mapping[str, Sequence[Receipt]], partitions: Sequence[str]) -> LabelFacts:
    fit = receipts[f"fit-labels/{task}/groups"][0].metrics
    analysis = _analysis(corpus, task, fit)
    labels = corpus.scan(f"labels/{task}", partitions=partitions)
    shares = [c for c in labels.collect_schema().names() if c.startswith("p_")]
    counted = labels.group_by("label").agg(pl.len().alias("documents"), *(pl.col(s).mean().alias(f"mean {s}") for s in shares))
    low = 1 / len(shares)
    bins = ((pl.max_horizontal(shares) - low) / (1 - low) * BINS).floor().clip(0, BINS - 1).cast(pl.Int32)
    spread = dict(labels.select(bins.alias("bin")).group_by("bin").agg(pl.len()).collect().iter_rows())
    distilled = receipts.get(f"distill/{task}/groups", ())
    return LabelFacts(
        task,
        analysis,
        counted.collect().sort("documents", descending=True),
        (low, 1.0),
        [spread.get(i, 0) for i in range(BINS)],
        fit,
        distilled[0].metrics if distilled else None,
        _whys(corpus, task, fit, partitions),
    )


def _analysis(corpus: Corpus, task: str, fit: Mapping[str, Any]) -> pl.DataFrame:
    """The table of functions; of a task of scores, how much each has to do with the class."""
    if "correlations" in fit:
        return pl.DataFrame({"score": list(fit["correlations"]), "correlation_with_class": list(fit["correlations"].values())})
    with corpus.storage.open(f"global/fit-labels/{task}/analysis.parquet") as source:
        analysis = pl.from_arrow(pq.read_table(source))
    assert isinstance(analysis, pl.DataFrame)
    return analysis


def _whys(corpus: Corpus, task: str, fit: Mapping[str, Any], partitions: Sequence[str]) -> list[Why]:
    """The surest document of each class and the most doubtful one, with what decided their labels by the label model."""
    path = f"global/fit-labels/{task}/model.json"
    if fit["model"] in (LIGER, WEAVER):
        return []  # what decides there are the votes of near documents too, or no votes at all
    model = load_model(corpus.storage.read(path), path)
    # The label model's own labels, which a distilled model's may replace.
    weak = f"weak/{task}" if corpus.partitions(f"weak/{task}") == list(partitions) else f"labels/{task}"
    shares = [f"p_{c}" for c in model.classes]
    labels = corpus.scan(weak, partitions=partitions).filter(pl.col("votes") > 0)
    ranked = labels.with_columns(pl.col("id").hash(seed=1).alias(_RANK))
    chosen = [ranked.sort([s, _RANK], descending=[True, False]).head(1) for s in shares[:3]]
    chosen.append(ranked.sort([pl.max_horizontal(shares), pl.col(_RANK)]).head(1))
    ids = pl.concat([c.select("id") for c in chosen]).collect()["id"].unique(maintain_order=True).to_list()
    documents, votes_on = (  # apart, since a function may be called as a column of the documents is
        {row["id"]: row for row in corpus.scan(t, partitions=partitions).filter(pl.col("id").is_in(ids)).collect().to_dicts()}
        for t in ("documents", f"votes/{task}")
    )
    found = []
    for name in ids:
        row, votes = documents[name], np.array([votes_on[name][f] for f in model.functions], np.int8)
        title = row["title"] or (row["raw_content"] or "").strip().split("\n")[0][:90]
        found.append(Why(title, row["url"] or name, explain(model, votes)))
    return found


def functions_figure(facts: LabelFacts) -> go.Figure | None:
    """Per function: coverage, the part of it in conflict, and the estimated accuracy with two standard errors."""
    if "coverage" not in facts.analysis.columns:
        return None
    frame = facts.analysis.reverse()
    names = frame["function"].to_list()
    figure = go.Figure()
    figure.add_bar(y=names, x=frame["coverage"].to_list(), orientation="h", name="coverage", marker_color=EVERYTHING)
    figure.add_bar(y=names, x=frame["conflicts"].to_list(), orientation="h", name="in conflict", marker_color=LOST)
    if "accuracy" in frame.columns and frame["accuracy"].null_count() < frame.height:
        errors = [None if e is None else 2 * e for e in frame["error"].to_list()]
        figure.add_scatter(
            y=names, x=frame["accuracy"].to_list(), mode="markers", name="estimated accuracy", marker={"color": INK, "size": 8},
            error_x={"type": "data", "array": errors, "color": INK, "thickness": 1.2} if any(errors) else None,
        )  # fmt: skip
    if "dev_precision" in frame.columns and frame["dev_precision"].null_count() < frame.height:
        figure.add_scatter(
            y=names, x=frame["dev_precision"].to_list(), mode="markers", name="precision on dev",
            marker={"color": SELECTED, "size": 9, "symbol": "diamond"},
        )  # fmt: skip
    figure.update_yaxes(type="category", automargin=True)
    figure.update_xaxes(range=[0, 1.02], tickformat=".0%")
    return layout(figure, 110 + 24 * len(names), barmode="overlay")


def confidence_figure(facts: LabelFacts) -> go.Figure:
    """Documents by the probability of their likeliest class."""
    low, high = facts.ends
    width = (high - low) / BINS
    figure = go.Figure()
    middles = [low + width * (i + 0.5) for i in range(BINS)]
    figure.add_bar(x=middles, y=list(facts.confidence), width=width, marker_color=SELECTED, showlegend=False)
    figure.update_xaxes(title="probability of the likeliest class", tickformat=".0%", range=[low, high])
    figure.update_yaxes(title="documents")
    return layout(figure, 240)


def shares_of(explanation: Explanation) -> list[tuple[str, str, float, float]]:
    """(function, vote, log-odds, length from -1 to 1) of the largest shares, the class balance among them."""
    shares = [("class balance", "", explanation.prior), *((f, v or "abstains", s) for f, v, s in explanation.shares)]
    largest = max(abs(s) for *_, s in shares) or 1.0
    shown = sorted(shares, key=lambda s: -abs(s[2]))[:MOST_SHARES]
    return [(name, vote, share, share / largest) for name, vote, share in shown]


def comparison(card: Mapping[str, Any]) -> pl.DataFrame:
    """Label model and distilled model on the dev set; no rows without one."""
    dev = card.get("dev")
    if not dev:
        return pl.DataFrame()
    columns = sorted({metric for scores in dev["comparison"].values() for metric in scores})
    rows = [{"model": name, **{c: scores.get(c) for c in columns}} for name, scores in dev["comparison"].items()]
    return pl.DataFrame(rows)


def summary(facts: LabelFacts) -> list[str]:
    """What a person should read first: model and reason, class balance, dev set, distilled model, warnings."""
    fit, told = facts.fit, []
    if fit.get("model"):
        told.append(f"Label model: {fit.get('reason') or fit['model']}.")
    if balance := fit.get("class_balance"):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in balance.items())
        told.append(f"Class balance: {shares}.")
    if "effective_functions" in fit:
        told.append(f"Effective functions: {fit['effective_functions']:.1f} of {facts.analysis.height}.")
    if "label_coverage" in fit:
        told.append(
            f"{fit['label_coverage']:.1%} of the documents have a vote, {fit['label_overlap']:.1%} two or more, "
            f"{fit['label_conflict']:.1%} votes that disagree."
        )
    if dev := fit.get("dev"):
        scores = ", ".join(f"{n.replace('_', ' ')} {v:.3f}" for n, v in dev.items() if n != "documents")
        told.append(f"Label model on the dev set ({dev['documents']:,} documents): {scores}.")
    if reliability := fit.get("reliability"):
        told.append(f"Its {tell_reliability(reliability)}.")
    if facts.card:
        held = facts.card.get("held_out")
        agrees = (
            f" It agrees with the label model on {held['agreement']:.1%} of {held['documents']:,} held-out ones."
            if held
            else ""
        )
        told.append(f"Distilled into a {facts.card['kind']} classifier on {facts.card['documents']:,} documents.{agrees}")
    return told
