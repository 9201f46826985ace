"""What labelling functions do on a corpus, and how good they seem: the table that Snorkel's LFAnalysis prints, and more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from labelers.models import LabelModel, listed
from labelers.statistics import VoteStatistics
from labelers.votes import Votes, check_votes, dense_blocks

if TYPE_CHECKING:
    from rich.console import Group

_MOST_PAIRS = 5  # that are told one by one

ANALYSIS = pa.schema(
    [
        pa.field("function", pa.string(), nullable=False),
        pa.field("polarity", pa.list_(pa.string()), nullable=False),  # classes that it ever votes for
        pa.field("votes", pa.int64(), nullable=False),
        pa.field("coverage", pa.float64(), nullable=False),
        pa.field("overlaps", pa.float64(), nullable=False),
        pa.field("conflicts", pa.float64(), nullable=False),
        pa.field("accuracy", pa.float64()),  # estimated P(vote = class | it votes); null if the model has none
        pa.field("error", pa.float64()),  # one standard error of it; null if the model gives none
        pa.field("redundancy", pa.float64(), nullable=False),  # 0: says what no other says; 1: copies another one
        pa.field("redundant_with", pa.string()),  # which one
        pa.field("dev_votes", pa.int64()),  # votes on documents whose class is known; null without a dev set
        pa.field("dev_precision", pa.float64()),  # share of them that are right
    ]
)
"""One row per labelling function. Coverage: share of documents on which it votes; overlaps: ... and another one votes too;
conflicts: ... and another one votes for a different class. Snorkel's empirical accuracy is a precision, and called so."""


@dataclass(frozen=True)
class DevCounts:
    """Votes on documents whose class is known: (m, k, k) counts [function, vote, class]. They add up over documents."""

    counts: np.ndarray

    @classmethod
    def measure(cls, votes: Votes, gold: np.ndarray, k: int) -> DevCounts:
        """votes (n, m), gold (n,) classes from 0."""
        checked = check_votes(votes, k)
        m = checked.shape[1]
        counts = np.zeros((m, k, k), np.int64)
        for first, block in dense_blocks(checked):
            known = np.asarray(gold)[first : first + len(block)]
            for i in range(m):
                cast = block[:, i] >= 0
                np.add.at(counts[i], (block[cast, i].astype(np.int64), known[cast]), 1)
        return cls(counts)

    @property
    def votes(self) -> np.ndarray:
        return self.counts.sum(axis=(1, 2))

    @property
    def right(self) -> np.ndarray:
        return np.einsum("icc->i", self.counts)


def analyse(statistics: VoteStatistics, model: LabelModel | None = None, dev: DevCounts | None = None) -> pa.Table:
    """`ANALYSIS` of a vote matrix's statistics. Shares of no documents are 0.

    model: fitted on them; its accuracies and their errors are shown. dev: what is known of the truth.
    """
    from labelers.dependencies import association

    n, m = statistics.documents or 1, len(statistics.functions)
    counts = statistics.counts
    twin = association(statistics) if statistics.documents else np.zeros((m, m))
    np.fill_diagonal(twin, 0)
    nearest = twin.argmax(axis=1) if m else np.zeros(0, np.int64)
    redundancy = twin[np.arange(m), nearest] if m else np.zeros(0)
    accuracy = np.full(m, np.nan) if model is None else np.asarray(model.accuracies_, float)
    accuracy = np.where(counts.any(axis=1), accuracy, np.nan)  # of a function that never votes, a model knows its prior only
    error = np.full(m, np.nan) if model is None else np.asarray(getattr(model, "standard_errors_", np.full(m, np.nan)), float)
    error = np.where(np.isfinite(error) & ~np.isnan(accuracy), error, np.nan)
    voted = dev.votes if dev is not None else None
    precision = (
        None if dev is None else [r / v if v else None for r, v in zip(dev.right.tolist(), dev.votes.tolist(), strict=True)]
    )
    columns = [
        pa.array(statistics.functions, pa.string()),
        pa.array([[c for c, v in zip(statistics.classes, row, strict=True) if v] for row in counts], ANALYSIS.field(1).type),
        pa.array(counts.sum(axis=1), pa.int64()),
        pa.array(counts.sum(axis=1) / n, pa.float64()),
        pa.array(statistics.overlaps / n, pa.float64()),
        pa.array(statistics.conflicts / n, pa.float64()),
        pa.array(accuracy, pa.float64(), mask=np.isnan(accuracy)),
        pa.array(error, pa.float64(), mask=np.isnan(error)),
        pa.array(redundancy, pa.float64()),
        pa.array([statistics.functions[j] if r > 0 else None for j, r in zip(nearest, redundancy, strict=True)], pa.string()),
        pa.array([None] * m if voted is None else voted, pa.int64()),
        pa.array([None] * m if precision is None else precision, pa.float64()),
    ]
    return pa.Table.from_arrays(columns, schema=ANALYSIS)


def label_shares(statistics: VoteStatistics) -> dict[str, float]:
    """Shares of documents with a vote (label_coverage), with two or more (label_overlap), with a conflict (label_conflict)."""
    n = statistics.documents or 1
    return {
        "label_coverage": statistics.labelled / n,
        "label_overlap": statistics.overlapping / n,
        "label_conflict": statistics.conflicting / n,
    }


def advice(statistics: VoteStatistics, model: LabelModel | None = None) -> list[str]:
    """What a person should know or do: pairs that copy each other, functions below chance, low coverage."""
    from labelers.dependencies import find_dependencies

    told = [] if model is None else list(model.notes_)
    if not statistics.documents:
        return told
    pairs = [note for note in map(str, find_dependencies(statistics)) if note not in told]
    told += pairs[:_MOST_PAIRS]
    if len(pairs) > _MOST_PAIRS:
        told.append(f"{len(pairs) - _MOST_PAIRS} more pairs of functions go together")
    if model is not None and getattr(model, "chosen_", model.name) != "majority":  # which only knows how often they agree
        accuracies = zip(statistics.functions, np.asarray(model.accuracies_, float).tolist(), strict=True)
        wrong = [f"{name} ({accuracy:.0%})" for name, accuracy in accuracies if accuracy < 1 / len(statistics.classes)]
        if wrong:
            told.append(f"right less often than chance: {listed(wrong)}; turn their votes round, or drop them")
    if statistics.labelled < statistics.documents / 2:
        share = statistics.labelled / statistics.documents
        told.append(f"only {share:.0%} of the documents have a vote: more functions help more than another label model")
    return told


def render_analysis(analysis: pa.Table, shares: dict[str, float], documents: int) -> Group:
    """The table for the terminal. Columns that nothing is known for are left out."""
    from rich.console import Group
    from rich.table import Table

    caption = ", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in shares.items())
    table = Table(box=None, header_style="bold")
    rows = analysis.to_pylist()
    estimated = any(row["accuracy"] is not None for row in rows)
    judged = any(row["dev_votes"] is not None for row in rows)
    table.add_column("function", overflow="fold")
    table.add_column("polarity")
    for column in ("votes", "coverage", "overlaps", "conflicts"):
        table.add_column(column, justify="right")
    if estimated:
        table.add_column("accuracy", justify="right")
    if judged:
        table.add_column("precision on dev", justify="right")
    table.add_column("redundant with")
    for row in rows:
        cells = [row["function"], ", ".join(row["polarity"]) or "[dim]none[/dim]", f"{row['votes']:,}"]
        cells += [f"{row[c]:.1%}" for c in ("coverage", "overlaps", "conflicts")]
        if estimated:
            cells.append("" if row["accuracy"] is None else _with_error(row["accuracy"], row["error"]))
        if judged:
            known = row["dev_precision"]
            cells.append("[dim]none[/dim]" if known is None else f"{known:.1%} of {row['dev_votes']:,}")
        cells.append(f"{row['redundant_with']} {row['redundancy']:.2f}" if row["redundancy"] >= 0.5 else "")
        table.add_row(*cells)
    return Group(table, f"[dim]{documents:,} documents: {caption}[/dim]")


def _with_error(accuracy: float, error: float | None) -> str:
    return f"{accuracy:.1%}" if error is None else f"{accuracy:.1%} ± {error:.1%}"


@dataclass(frozen=True)
class Explanation:
    """Why a document has its label: the log-odds of the likeliest class against the next one, share by share.

    shares: per function (name, vote or None for an abstention, log-odds that this adds), largest first; `prior` is the class
    balance's own share. prior + Σ shares = log_odds = log(p_label / p_other), exactly.
    """

    label: str
    other: str
    probability: float
    prior: float
    log_odds: float
    shares: list[tuple[str, str | None, float]]


def explain(model: LabelModel, votes: Sequence[int] | np.ndarray) -> Explanation:
    """Why a fitted model labels one document's votes (m,) as it does. ValueError on votes that are not the model's."""
    row = np.asarray(check_votes(np.asarray(votes, np.int8)[None, :], model.k, model.functions))[0]
    shares = model.weights_[np.arange(len(row)), row.astype(np.int64) + 1]  # (m, k)
    scores = model.log_prior_ + shares.sum(axis=0)
    order = np.argsort(-scores, kind="stable")
    label, other = int(order[0]), int(order[1])
    probability = float(model.predict_proba(row[None, :])[0, label])
    added = shares[:, label] - shares[:, other]
    told = [
        (name, model.classes[vote] if vote >= 0 else None, float(share))
        for name, vote, share in zip(model.functions, row.tolist(), added.tolist(), strict=True)
    ]
    told.sort(key=lambda entry: -abs(entry[2]))
    prior = float(model.log_prior_[label] - model.log_prior_[other])
    return Explanation(
        model.classes[label], model.classes[other], probability, prior, float(scores[label] - scores[other]), told
    )


def render_explanation(explanation: Explanation, document: str) -> Group:
    """The explanation for the terminal: a bar per share, green for the label, red against it."""
    from rich.console import Group
    from rich.table import Table

    told = explanation
    title = f"{document}: {told.label} {told.probability:.1%} (log-odds {told.log_odds:+.2f} against {told.other})"
    table = Table(box=None, header_style="bold")
    table.add_column("function", overflow="fold")
    table.add_column("vote")
    table.add_column("log-odds", justify="right")
    table.add_column("")
    largest = max([abs(told.prior), *(abs(s) for *_, s in told.shares)]) or 1.0
    shown = [s for s in told.shares if abs(s[2]) >= 0.005]
    for name, vote, share in [("[dim]class balance[/dim]", None, told.prior), *shown]:
        length = round(20 * abs(share) / largest)
        bar = f"[green]{'█' * length}[/green]" if share >= 0 else f"[red]{'█' * length}[/red]"
        cast = vote or ("" if name.startswith("[dim]") else "[dim]abstains[/dim]")
        table.add_row(name, cast, f"{share:+.2f}", bar)
    if rest := len(told.shares) - len(shown):
        table.add_row(f"[dim]{rest} more[/dim]", "", "[dim]0.00[/dim]", "")
    return Group(title, table)
