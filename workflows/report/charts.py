"""The report's figures, in Plotly. One palette: grey is everything, green is what was selected, red is what was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from pipeline.plan import MixturePlan

if TYPE_CHECKING:
    from workflows.report.gather import Histogram, StageTotals

EVERYTHING, SELECTED, LOST, INK = "#b9c0ca", "#2a9d8f", "#e76f51", "#264653"
SERIES = ("#2a9d8f", "#e9a23b", "#5b7db1", "#b5577f", "#7a8f3c", "#8367c7")
_FUNNEL = ("ingest", "mine", "mix")
"""The stages that lose documents."""


def layout(figure: go.Figure, height: int, **more: Any) -> go.Figure:
    """A figure in the look that all of them share."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 10, "r": 10, "t": 36, "b": 10},
        font={"family": "Inter, system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        bargap=0.06,
        **more,
    )
    return figure


def funnel(stages: Sequence[StageTotals], splits: Mapping[str, int]) -> go.Figure | None:
    """Records to training documents, with what each stage lost by reason, as flows. splits: documents by mixture split."""
    names = {"ingest": "documents", "mine": "mined documents", "mix": "selected"}
    present = [s for s in stages if s.name.split("/")[0] in _FUNNEL]
    if not present:
        return None
    labels, colours = ["records"], [INK]
    flows: list[tuple[int, int, int, str]] = []  # from, to, documents, colour
    at = 0
    for stage in present:
        kept = stage.rows_out
        drops = stage.drops
        if stage.name.startswith("mix") and splits:
            kept = splits.get("train", 0) + splits.get("heldout", 0)
        labels.append(names[stage.name.split("/")[0]])
        colours.append(SELECTED)
        here = len(labels) - 1
        flows.append((at, here, kept, "rgba(42,157,143,.35)"))
        for reason, count in drops.items():
            labels.append(reason.replace("_", " "))
            colours.append(LOST)
            flows.append((at, len(labels) - 1, count, "rgba(231,111,81,.30)"))
        at = here
    for split, count in splits.items():
        labels.append({"train": "training", "heldout": "held out"}.get(split, split))
        colours.append(SERIES[0] if split == "train" else SERIES[1])
        flows.append((at, len(labels) - 1, count, "rgba(42,157,143,.20)"))
    told = [f"{name} · {_at(i, flows):,}" for i, name in enumerate(labels)]
    nodes = {"label": told, "color": colours, "pad": 20, "thickness": 14, "line": {"width": 0}}
    links = dict(zip(("source", "target", "value", "color"), map(list, zip(*flows, strict=True)), strict=True))
    return layout(go.Figure(go.Sankey(node=nodes, link=links, arrangement="snap")), max(380, 36 * len(labels)))


def _at(node: int, flows: Sequence[tuple[int, int, int, str]]) -> int:
    """Documents at a node: what flows in, or out of the first one."""
    return sum(n for _, to, n, _ in flows if to == node) or sum(n for start, _, n, _ in flows if start == node)


def counts(frame: pl.DataFrame, column: str, title: str) -> go.Figure:
    """Documents by a category, selected ones over all."""
    frame = frame.reverse()
    names = [str(n) if n is not None else "unknown" for n in frame[column]]
    figure = go.Figure()
    figure.add_bar(y=names, x=frame["documents"].to_list(), orientation="h", name="all", marker_color=EVERYTHING)
    figure.add_bar(y=names, x=frame["selected"].to_list(), orientation="h", name="selected", marker_color=SELECTED)
    figure.update_yaxes(type="category", automargin=True)
    figure.update_xaxes(title=None)
    figure = layout(
        figure, max(170, 110 + 24 * len(names)), barmode="overlay", title={"text": title, "font": {"size": 14}, "y": 0.99}
    )
    return figure.update_layout(margin={"t": 64})


def histograms(found: Sequence[Histogram]) -> go.Figure | None:
    """Small multiples: each quantity's distribution, the selection marked in it."""
    if not found:
        return None
    columns = 3
    rows = -(-len(found) // columns)
    titles = [h.name + (f" ({h.nulls:,} null)" if h.nulls else "") for h in found]
    spacing = min(0.12, 0.5 / rows)
    figure = make_subplots(rows, columns, subplot_titles=titles, vertical_spacing=spacing, horizontal_spacing=0.06)
    for number, histogram in enumerate(found):
        row, column = number // columns + 1, number % columns + 1
        middles = [(a + b) / 2 for a, b in zip(histogram.edges, histogram.edges[1:], strict=False)]
        width = histogram.edges[1] - histogram.edges[0]
        for name, values, colour in (("all", histogram.everything, EVERYTHING), ("selected", histogram.selected, SELECTED)):
            figure.add_bar(
                x=middles, y=list(values), width=width, name=name, marker_color=colour, legendgroup=name,
                showlegend=number == 0, row=row, col=column,
            )  # fmt: skip
    figure.update_annotations(font_size=12)
    return layout(figure, 60 + 210 * rows, barmode="overlay")


def mixture(plan: MixturePlan) -> go.Figure:
    """Tokens of each component: at hand, and planned (with the epochs that this takes)."""
    names = [c.name for c in plan.components][::-1]
    components = list(plan.components)[::-1]
    figure = go.Figure()
    figure.add_bar(
        y=names, x=[c.tokens_available for c in components], orientation="h", name="tokens at hand", marker_color=EVERYTHING
    )
    figure.add_bar(
        y=names, x=[c.tokens_planned for c in components], orientation="h", name="tokens planned", marker_color=SELECTED,
        text=[f"{c.weight:.0%} · {c.epochs:.2f} epochs" for c in components], textposition="auto",
    )  # fmt: skip
    figure.update_yaxes(type="category", automargin=True)
    return layout(figure, 100 + 60 * len(names), barmode="group")


def training(metrics: Sequence[Mapping[str, Any]]) -> go.Figure | None:
    """Loss, in total and per component; learning rate, gradient norm and tokens per second."""
    if not metrics:
        return None
    figure = make_subplots(
        2, 3, specs=[[{"colspan": 3}, None, None], [{}, {}, {}]], row_heights=[0.65, 0.35], vertical_spacing=0.16,
        subplot_titles=["loss (nats per token)", "learning rate", "gradient norm", "tokens per second"],
    )  # fmt: skip
    steps = [m["step"] for m in metrics]
    components = sorted({name for m in metrics for name in m.get("losses", {})})
    for name, colour in zip(components, SERIES[1:], strict=False):
        values = [m.get("losses", {}).get(name) for m in metrics]
        figure.add_scatter(x=steps, y=values, name=name, line={"color": colour, "width": 1.2}, opacity=0.8, row=1, col=1)
    losses = [m["loss"] for m in metrics]
    figure.add_scatter(x=steps, y=losses, name="all components", line={"color": SELECTED, "width": 2.6}, row=1, col=1)
    for column, key in ((1, "lr"), (2, "grad_norm"), (3, "tokens_per_second")):
        values = [m.get(key) for m in metrics]
        figure.add_scatter(x=steps, y=values, showlegend=False, line={"color": INK, "width": 1.2}, row=2, col=column)
    figure.update_annotations(font_size=12)
    return layout(figure, 560)
