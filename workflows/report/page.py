"""The page itself: facts and figures into one HTML file, which opens anywhere without a network."""

from __future__ import annotations

import html
import importlib.resources
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import plotly.graph_objects as go
import plotly.io
import plotly.offline
import polars as pl
import pyarrow as pa
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipeline.corpus import Corpus
from pipeline.storage import Storage
from workflows.report import charts, labels
from workflows.report.diff import side_by_side
from workflows.report.gather import CorpusFacts
from workflows.report.labels import LabelFacts

T = TypeVar("T")

TEMPLATE = "report.html.j2"
MOST_CHARACTERS = 2_500
"""Of a sampled document's text."""


def write_report(corpus: Corpus, path: Path, title: str | None = None, samples: int = 12) -> tuple[int, list[str]]:
    """Write the report of a corpus to a local path. Returns its size in bytes, and what damage kept from being read; ValueError
    if nothing is built.
    """
    facts = CorpusFacts(corpus)
    page = render(facts, title or corpus.url.rstrip("/").rsplit("/", 1)[-1], samples).encode()
    Storage(str(path.absolute().parent)).write(path.name, page)
    return len(page), list(dict.fromkeys(facts.problems))


def render(facts: CorpusFacts, title: str, samples: int) -> str:
    """The report as HTML. Parts whose stages have not run are left out; so are parts that damage keeps from being read, and
    `facts.problems` takes a line for each.
    """
    part = partial(_part, facts.problems)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["thousands"] = lambda n: f"{n:,}" if isinstance(n, int) else n
    template = environment.from_string((importlib.resources.files("workflows") / "templates" / TEMPLATE).read_text("utf-8"))
    built = bool(facts.partitions)
    kept, dropped = part("documents", lambda: facts.samples(samples)) or ([], []) if built else ([], [])
    pair = part("similar pair", facts.similar_pair) if built else None
    training = part("training", facts.training)
    plan = part("mixture", facts.plan)
    figures: dict[str, Callable[[], go.Figure | None]] = {
        "funnel": lambda: charts.funnel(facts.stages, part("splits", lambda: _splits(facts)) or {}),
        "mixture": lambda: charts.mixture(plan) if plan else None,
        "losses": lambda: charts.training(training[1]) if training else None,
    }
    of_documents: dict[str, Callable[[], go.Figure | None]] = {
        "languages": lambda: charts.counts(facts.languages(), "language", "Languages"),
        "domains": lambda: charts.counts(facts.domains(), "source_domain", "Domains"),
        "buckets": lambda: charts.counts(facts.buckets(), "bucket", "Perplexity buckets"),
        "histograms": lambda: charts.histograms(facts.histograms()),
    }
    told = {name: _figure(part(name, draw), name) for name, draw in figures.items()}
    told |= {name: _figure(part(name, draw), name) if built else None for name, draw in of_documents.items()}
    told |= {
        "title": title,
        "url": facts.corpus.url,
        "tiles": _tiles(facts, part),
        "stages": facts.stages,
        "rules": part("rules", lambda: _table(facts.rules())),
        "duplicates": part("duplicates", lambda: _table(facts.duplicates())) if built else None,
        "pair": _pair(pair) if pair else None,
        "labels": (part("labels", lambda: [_labels(task) for task in facts.labels()]) or []) if built else [],
        "plan": plan,
        "training": training[0] if training else None,
        "evaluation": facts.evaluation(),
        "kept": [_shown(s) for s in kept],
        "dropped": [_shown(s) for s in dropped],
        "plotly": Markup(plotly.offline.get_plotlyjs()),
        "problems": list(dict.fromkeys(facts.problems)),
    }
    return template.render(told)


def _part(problems: list[str], name: str, read: Callable[[], T]) -> T | None:
    """A part of the page; None, and a line in `problems`, if damage keeps it from being read."""
    try:
        return read()
    except (ValueError, OSError, pl.exceptions.PolarsError, pa.ArrowException) as error:
        problems.append(f"{name}: {' '.join(str(error).split())}")
        return None


def _labels(facts: LabelFacts) -> dict[str, Any]:
    return {
        "task": facts.task,
        "summary": labels.summary(facts),
        "warnings": facts.fit.get("warnings", ()),
        "functions": _figure(labels.functions_figure(facts), f"functions-{facts.task}"),
        "analysis": _table(facts.analysis),
        "confidence": _figure(labels.confidence_figure(facts), f"confidence-{facts.task}"),
        "counted": _table(facts.counted),
        "comparison": _table(labels.comparison(facts.card)) if facts.card else None,
        "whys": [(w.title, w.url, w.explanation, labels.shares_of(w.explanation)) for w in facts.whys],
    }


def _splits(facts: CorpusFacts) -> dict[str, int]:
    if not facts.mixture or not facts.partitions:
        return {}
    counted = facts.frame.filter("selected").group_by("split").agg(pl.len()).collect()
    return dict(sorted(counted.iter_rows(), key=lambda kv: kv[0] != "train"))


def _tiles(facts: CorpusFacts, part: Callable[..., Any]) -> list[tuple[str, str]]:
    """The numbers at the top: value and meaning."""
    tiles: list[tuple[str, str]] = []
    if ingest := facts.stage("ingest"):
        tiles += [(f"{ingest.rows_in:,}", "records read"), (f"{ingest.rows_out:,}", "documents extracted")]
    if facts.mixture:
        tiles.append((f"{sum((part('splits', lambda: _splits(facts)) or {}).values()):,}", "documents selected"))
    manifests = facts.receipts.get("manifests/groups") or facts.receipts.get(f"manifests/{facts.mixture}/groups") or []
    tokens = sum(count for r in manifests for name, count in r.metrics.items() if name.startswith("tokens/"))
    if tokens:
        tiles.append((_short(tokens), "tokens in shards"))
    if run := part("training", facts.training):
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
