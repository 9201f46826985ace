"""A mixture's plan: how many tokens each component has, how many the mixture takes, and how often each is then seen."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.importance_sample import NOT_SAMPLED, cut
from pipeline.select import Component

if TYPE_CHECKING:
    from rich.tree import Tree

SUMMARY_KEYS = ("component", "reason", "split", "language", "bucket", "rank")
SUMMARY_COUNTS = ("documents", "characters", "sampled_characters", "sampled_tokens")
SUMMARY = pa.schema([(k, pa.string()) for k in SUMMARY_KEYS] + [(c, pa.int64()) for c in SUMMARY_COUNTS])
"""Counts by group of documents. They add up: over partitions, in any order and any grouping."""

_ROUNDING = 1e-9
"""Epochs may pass a cap by this share: the budget that exactly meets a cap must not fail on a float's last bit."""


@dataclass(frozen=True)
class PlannedComponent:
    """One component of a plan. Tokens are those of its training documents; held-out ones come on top.

    tokens_planned = weight x the mixture's budget; epochs = tokens_planned / tokens_available.
    """

    name: str
    weight: float
    documents: int
    characters: int
    tokens_available: int
    tokens_planned: int
    epochs: float
    max_epochs: float
    cut: str | None = None  # the lowest rank that its sample keeps
    heldout_documents: int = 0
    heldout_tokens: int = 0
    languages: Mapping[str, int] = field(default_factory=dict)
    buckets: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Dropped:
    """The documents that one reason kept out."""

    documents: int
    characters: int
    tokens: int


@dataclass(frozen=True)
class MixturePlan:
    """What a mixture will be. `capped`: the budget was not given and is the largest that the epoch caps permit.

    Tokens are estimates: characters / characters_per_token (`measured` on a sample with a tokenizer, or assumed).
    """

    name: str
    tokens: int
    capped: bool
    measured: bool
    characters_per_token: float
    documents: int
    components: tuple[PlannedComponent, ...]
    drops: Mapping[str, Dropped]

    @property
    def selected(self) -> int:
        """Documents in the mixture, held-out ones included."""
        return sum(c.documents + c.heldout_documents for c in self.components)

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> MixturePlan:
        values: dict[str, Any] = json.loads(content)
        values["components"] = tuple(PlannedComponent(**c) for c in values["components"])
        values["drops"] = {reason: Dropped(**d) for reason, d in values["drops"].items()}
        return cls(**values)


def add_up(summaries: Sequence[pa.Table]) -> pa.Table:
    """Summaries as one, in a fixed order of rows."""
    rows = pa.concat_tables(summaries)
    added = rows.group_by(list(SUMMARY_KEYS), use_threads=False).aggregate([(c, "sum") for c in SUMMARY_COUNTS])
    added = added.rename_columns([c.removesuffix("_sum") for c in added.column_names]).select(SUMMARY.names).cast(SUMMARY)
    return added.sort_by([(k, "ascending") for k in SUMMARY_KEYS])


def make_plan(
    name: str, components: Sequence[Component], budget: int | None, assumed_characters_per_token: float, summary: pa.Table
) -> MixturePlan:
    """The plan of a mixture.

    budget: tokens, or None for the largest that no epoch cap forbids. ValueError, naming the component, what it has and
    what it would need, if a component has no document to train on or would be seen more often than its `max_epochs`.
    """
    rows = add_up([summary]).to_pylist()
    cuts = _cuts(components, rows)
    rows = [_not_sampled(r) if r["component"] in cuts and (r["rank"] or "") < cuts[r["component"]] else r for r in rows]
    rate = _Rate(rows, assumed_characters_per_token)
    trained = {c.name: [r for r in rows if r["component"] == c.name and r["split"] == "train"] for c in components}
    heldout = {c.name: [r for r in rows if r["component"] == c.name and r["split"] == "heldout"] for c in components}
    available = {c: rate.tokens(part) for c, part in trained.items()}
    drops = _drops(rows, rate)
    for component, tokens in available.items():
        if tokens == 0:
            raise ValueError(_empty(name, component, trained[component], heldout[component], drops))
    weights = _weights(name, components, available)
    capped = budget is None
    if budget is None:
        budget = math.floor(min(available[c.name] * c.max_epochs / weights[c.name] for c in components))
    planned = []
    for c in components:
        epochs = weights[c.name] * budget / available[c.name]
        if not capped and epochs > c.max_epochs * (1 + _ROUNDING):
            raise ValueError(_too_often(name, c, weights, available, budget, components))
        planned.append(
            PlannedComponent(
                name=c.name,
                weight=weights[c.name],
                documents=_sum(trained[c.name], "documents"),
                characters=_sum(trained[c.name], "characters"),
                tokens_available=available[c.name],
                tokens_planned=round(weights[c.name] * budget),
                epochs=min(epochs, c.max_epochs),
                max_epochs=c.max_epochs,
                cut=cuts.get(c.name),
                heldout_documents=_sum(heldout[c.name], "documents"),
                heldout_tokens=rate.tokens(heldout[c.name]),
                languages=_tokens_by(trained[c.name], "language", rate),
                buckets=_tokens_by(trained[c.name], "bucket", rate),
            )
        )
    return MixturePlan(
        name, budget, capped, rate.measured, rate.overall, _sum(rows, "documents"), tuple(planned), drops
    )  # fmt: skip


def render_plan(plan: MixturePlan) -> Tree:
    """The plan as a tree for the terminal: tokens, epochs, and why documents stay out."""
    from rich.tree import Tree

    how = "measured" if plan.measured else "assumed"
    size = "as many as the epoch caps permit" if plan.capped else "as asked"
    root = Tree(f"[bold]mixture {plan.name}[/bold]: {tokens_told(plan.tokens)} tokens, {size}")
    root.add(f"{plan.selected:,} of {plan.documents:,} documents; {plan.characters_per_token:.2f} characters per token ({how})")
    components = root.add("[bold]components[/bold]")
    for c in plan.components:
        node = components.add(
            f"[cyan]{c.name}[/cyan] {c.weight:.1%}: "
            f"{tokens_told(c.tokens_planned)} of {tokens_told(c.tokens_available)} tokens, "
            f"{c.epochs:.2f} epochs (at most {c.max_epochs:g}), {c.documents:,} documents"
        )
        for title, parts in (("languages", c.languages), ("buckets", c.buckets)):
            if parts:
                node.add(f"{title}: {_shares(parts)}")
        if c.heldout_documents:
            node.add(f"held out: {c.heldout_documents:,} documents, {tokens_told(c.heldout_tokens)} tokens")
    if plan.drops:
        dropped = root.add(f"[bold]not selected[/bold]: {sum(d.documents for d in plan.drops.values()):,} documents")
        for reason, d in plan.drops.items():
            dropped.add(f"[yellow]{reason}[/yellow]: {d.documents:,} documents, {tokens_told(d.tokens)} tokens")
    return root


def tokens_told(tokens: int) -> str:
    """A number of tokens as people say it: 950, 12.3k, 4.56M, 7.89B, 1.20T."""
    value, letter = float(tokens), ""
    for letter in ("", "k", "M", "B", "T"):
        if value < 999.5 or letter == "T":
            break
        value /= 1000
    return f"{value:.3g}{letter}" if value < 999.5 else f"{value:,.0f}{letter}"


class _Rate:
    """Characters per token: of a component's language where it was sampled, else of the component, else of all samples."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], assumed: float) -> None:
        characters: dict[tuple[Any, ...], int] = defaultdict(int)
        tokens: dict[tuple[Any, ...], int] = defaultdict(int)
        for row in rows:
            for key in self._keys(row):
                characters[key] += row["sampled_characters"]
                tokens[key] += row["sampled_tokens"]
        self._rates = {k: characters[k] / tokens[k] for k in tokens if tokens[k] and characters[k]}
        self.measured = () in self._rates
        self.overall = self._rates.get((), assumed)

    @staticmethod
    def _keys(row: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return [(row["component"], row["language"]), (row["component"],), ()]

    def tokens(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Estimated tokens of groups of documents."""
        return round(math.fsum(row["characters"] / self._of(row) for row in rows))

    def _of(self, row: Mapping[str, Any]) -> float:
        return next((self._rates[k] for k in self._keys(row) if k in self._rates), self.overall)


def _cuts(components: Sequence[Component], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The lowest rank kept of each component that is sampled."""
    return {c.name: cut(c.sample, [r for r in rows if r["component"] == c.name]) for c in components if c.sample is not None}


def _not_sampled(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "component": None, "split": None, "reason": NOT_SAMPLED}


def _weights(name: str, components: Sequence[Component], available: Mapping[str, int]) -> dict[str, float]:
    shares = {c.name: available[c.name] if c.weight is None else c.weight for c in components}
    if len({c.weight is None for c in components}) > 1:
        without = ", ".join(c.name for c in components if c.weight is None)
        raise ValueError(f"mixture {name}: no weight for {without}; give all components a weight, or none")
    total = math.fsum(shares.values())
    return {c: share / total for c, share in shares.items()}


def _drops(rows: Sequence[Mapping[str, Any]], rate: _Rate) -> dict[str, Dropped]:
    reasons = sorted({r["reason"] for r in rows if r["reason"] is not None})
    groups = {reason: [r for r in rows if r["reason"] == reason] for reason in reasons}
    return {k: Dropped(_sum(g, "documents"), _sum(g, "characters"), rate.tokens(g)) for k, g in groups.items()}


def _too_often(
    name: str, c: Component, weights: Mapping[str, float], available: Mapping[str, int], budget: int, all_: Sequence[Component]
) -> str:
    need = round(weights[c.name] * budget)
    largest = math.floor(min(available[o.name] * o.max_epochs / weights[o.name] for o in all_))
    return (
        f"mixture {name}: component {c.name} has {available[c.name]:,} tokens and the plan needs {need:,}, which is "
        f"{need / available[c.name]:.2f} epochs where max_epochs is {c.max_epochs:g}: ask for {largest:,} tokens or fewer, "
        f"raise max_epochs, lower the component's weight ({weights[c.name]:.3g}), or select more documents for it"
    )


def _empty(name: str, component: str, trained: Sequence[Any], heldout: Sequence[Any], drops: Mapping[str, Dropped]) -> str:
    if heldout and not trained:
        return f"mixture {name}: every document of component {component} is held out; lower heldout"
    if trained:
        return f"mixture {name}: the documents of component {component} hold less than one token; drop the component"
    told = ", ".join(f"{reason} {d.documents:,}" for reason, d in drops.items()) or "none dropped"
    return (
        f"mixture {name}: no document falls into component {component} (an earlier component takes them, or none matches; "
        f"dropped: {told}); widen its conditions or drop it"
    )


def _sum(rows: Iterable[Mapping[str, Any]], count: str) -> int:
    return sum(row[count] for row in rows)


def _tokens_by(rows: Sequence[Mapping[str, Any]], key: str, rate: _Rate) -> dict[str, int]:
    """Tokens by language or bucket, most first; {} where no document has one."""
    values = {r[key] for r in rows}
    if values <= {None}:
        return {}
    tokens = {v or "unknown": rate.tokens(r for r in rows if r[key] == v) for v in values}
    return dict(sorted(tokens.items(), key=lambda item: (-item[1], item[0])))


def _shares(parts: Mapping[str, int], most: int = 6) -> str:
    total = sum(parts.values()) or 1
    told = [f"{name} {tokens / total:.0%}" for name, tokens in list(parts.items())[:most]]
    return ", ".join(told) + (f" and {len(parts) - most} more" if len(parts) > most else "")
