"""The page itself: facts and figures into one HTML file, which opens anywhere without a network."""

from __future__ import annotations

import html
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
import plotly.offline
import polars as pl
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipeline.corpus import Corpus
from pipeline.storage import Storage
from workflows.report import charts
from workflows.report.diff import side_by_side
from workflows.report.gather import CorpusFacts

TEMPLATE = "report.html.j2"
MOST_CHARACTERS = 2_500
"""Of a sampled document's text."""


def write_report(corpus: Corpus, path: Path, title: str | None = None, samples: int = 12) -> int:
    """Write the report of a corpus to a local path. Returns its size in bytes; ValueError if nothing is built."""
    page = render(CorpusFacts(corpus), title or corpus.url.rstrip("/").rsplit("/", 1)[-1], samples).encode()
    Storage(str(path.absolute().parent)).write(path.name, page)
    return len(page)


def render(facts: CorpusFacts, title: str, samples: int) -> str:
    """The report as HTML. Parts whose stages have not run are left out."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["thousands"] = lambda n: f"{n:,}" if isinstance(n, int) else n
    template = environment.from_string((importlib.resources.files("workflows") / "templates" / TEMPLATE).read_text("utf-8"))
    built = bool(facts.partitions)
    kept, dropped = facts.samples(samples) if built else ([], [])
    pair = facts.similar_pair() if built else None
    training = facts.training()
    plan = facts.plan()
    told = {
        "title": title,
        "url": facts.corpus.url,
        "tiles": _tiles(facts),
        "stages": facts.stages,
        "funnel": _figure(charts.funnel(facts.stages, _splits(facts)), "funnel"),
        "languages": _figure(charts.counts(facts.languages(), "language", "Languages"), "languages") if built else None,
        "domains": _figure(charts.counts(facts.domains(), "source_domain", "Domains"), "domains") if built else None,
        "buckets": _figure(charts.counts(facts.buckets(), "bucket", "Perplexity buckets"), "buckets") if built else None,
        "histograms": _figure(charts.histograms(facts.histograms()), "histograms") if built else None,
        "rules": _table(facts.rules()),
        "duplicates": _table(facts.duplicates()) if built else None,
        "pair": _pair(pair) if pair else None,
        "labels": [(task, _table(analysis), _table(counted)) for task, analysis, counted in facts.labels()] if built else [],
        "plan": plan,
        "mixture": _figure(charts.mixture(plan), "mixture") if plan else None,
        "training": training[0] if training else None,
        "losses": _figure(charts.training(training[1]), "losses") if training else None,
        "evaluation": facts.evaluation(),
        "kept": [_shown(s) for s in kept],
        "dropped": [_shown(s) for s in dropped],
        "plotly": Markup(plotly.offline.get_plotlyjs()),
    }
    return template.render(told)


def _splits(facts: CorpusFacts) -> dict[str, int]:
    if not facts.mixture or not facts.partitions:
        return {}
    counted = facts.frame.filter("selected").group_by("split").agg(pl.len()).collect()
    return dict(sorted(counted.iter_rows(), key=lambda kv: kv[0] != "train"))


def _tiles(facts: CorpusFacts) -> list[tuple[str, str]]:
    """The numbers at the top: value and meaning."""
    tiles: list[tuple[str, str]] = []
    if ingest := facts.stage("ingest"):
        tiles += [(f"{ingest.rows_in:,}", "records read"), (f"{ingest.rows_out:,}", "documents extracted")]
    if facts.mixture:
        tiles.append((f"{sum(_splits(facts).values()):,}", "documents selected"))
    manifests = facts.receipts.get("manifests/groups") or facts.receipts.get(f"manifests/{facts.mixture}/groups") or []
    tokens = sum(count for r in manifests for name, count in r.metrics.items() if name.startswith("tokens/"))
    if tokens:
        tiles.append((_short(tokens), "tokens in shards"))
    if run := facts.training():
        tiles.append((_short(int(run[0].metrics.get("parameters", 0))), "parameters trained"))
    evaluation = facts.evaluation()
    if evaluation and evaluation["heldout"]:
        best = min(v["perplexity"] for v in evaluation["heldout"].values())
        tiles.append((f"{best:.1f}", "held-out perplexity" + (" (best component)" if len(evaluation["heldout"]) > 1 else "")))
    return tiles


def _short(number: int) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def _figure(figure: go.Figure | None, name: str) -> Markup | None:
    """A figure as a `<div>`; the library is in the page once."""
    if figure is None:
        return None
    config = {"displaylogo": False, "responsive": True, "displayModeBar": False}
    return Markup(plotly.io.to_html(figure, include_plotlyjs=False, full_html=False, config=config, div_id=f"figure-{name}"))


def _table(frame: pl.DataFrame) -> Markup | None:
    if frame.is_empty():
        return None
    classes = [" class=n" if kind.is_numeric() else "" for kind in frame.dtypes]
    head = "".join(f"<th{c}>{html.escape(name.replace('_', ' '))}</th>" for name, c in zip(frame.columns, classes, strict=True))
    cells = (zip(row, classes, strict=True) for row in frame.iter_rows())
    rows = "".join("<tr>" + "".join(f"<td{c}>{_cell(value)}</td>" for value, c in row) + "</tr>" for row in cells)
    return Markup(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return html.escape(", ".join(str(v) for v in value))
    return html.escape(str(value))


def _pair(pair: Sequence[Any]) -> dict[str, Any]:
    left, right = side_by_side(pair[0].text, pair[1].text)
    halves = [{"title": s.title, "url": s.url, "text": Markup(text)} for s, text in zip(pair, (left, right), strict=True)]
    return {"halves": halves, "same": pair[0].text == pair[1].text}


def _shown(sample: Any) -> Mapping[str, Any]:
    text = re.sub(r"\n{3,}", "\n\n", sample.text[:MOST_CHARACTERS])
    cut = len(sample.text) - MOST_CHARACTERS
    facts = {k: f"{v:.2f}" if isinstance(v, float) else v for k, v in sample.facts.items()}
    return {
        "title": sample.title or text.strip().split("\n")[0][:90] or sample.url,
        "url": sample.url,
        "text": text + (f"\n… {cut:,} more characters" if cut > 0 else ""),
        "reason": sample.reason.replace("_", " ") if sample.reason else None,
        "facts": facts,
    }
