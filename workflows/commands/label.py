"""`menagerie label`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import pyarrow as pa


@click.command()
@click.argument("documents", metavar="IN", type=click.Path(path_type=Path))
@click.option(
    "--functions", "-f", "config", required=True, type=click.Path(path_type=Path), metavar="YAML",
    help="Classes and labelling functions: a file of their own, or a recipe.",
)  # fmt: skip
@click.option("--task", help="Which task, if the file has several.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .parquet or .jsonl file of labels, probabilities and votes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def label(documents: Path, config: Path, task: str | None, output: Path | None, as_json: bool) -> None:
    """Let labelling functions vote on the documents of IN (Parquet or JSONL), and show what each of them does.

    Functions see the columns that the file has. With -o, also write per document, in the order of IN: `id`, `label`, a
    probability per class, the number of votes, and each function's vote (-1 abstains).
    """
    from labelers.analysis import analyse, label_shares, render_analysis
    from labelers.functions import apply
    from labelers.functions_yaml import function_files, load_functions
    from labelers.models import model_class
    from labelers.stages import LabelParams, label_table, vote_matrix
    from labelers.statistics import VoteStatistics
    from pipeline.frames import read_plain
    from workflows.plain_files import check_outputs
    from workflows.section import load_section

    check_outputs([documents, config], output)
    params = load_section(config, "label", LabelParams, {"task": "label"}, task)
    files = {key: Path(path) for key, path in function_files(params.functions).items()}
    functions = load_functions(params.functions, files)
    votes = apply(functions, params.classes, read_plain(documents))
    statistics = VoteStatistics.measure(vote_matrix(votes), [f.name for f in functions], params.classes)
    model = model_class(params.model)(len(params.classes)).fit(statistics)
    labels = label_table(model, votes, params.tie_break)
    analysis, shares = analyse(statistics), label_shares(statistics)
    counts = {entry["values"]: entry["counts"] for entry in labels["label"].value_counts().to_pylist()}
    told = {c: counts.get(c, 0) for c in params.classes} | {"none": counts.get(None, 0)}
    if output is not None:
        _write(output, labels, votes)
    if as_json:
        summary = {"documents": statistics.documents, "model": params.model, "labels": told} | shares
        click.echo(json.dumps(summary | {"functions": analysis.to_pylist()}))
        return
    from rich.console import Console

    console = Console()
    console.print(render_analysis(analysis, shares, statistics.documents))
    console.print(f"labels by {params.model}: " + ", ".join(f"{name} {count:,}" for name, count in told.items()))


def _write(output: Path, labels: pa.Table, votes: pa.Table) -> None:
    """Labels, then votes, side by side. ValueError if a function has the name of a column of the labels."""
    from workflows.plain_files import Sink

    table = labels
    for name in votes.column_names[1:]:
        if name in table.column_names:
            raise ValueError(f"{output}: a labelling function cannot be called {name}, which is a column of the labels")
        table = table.append_column(name, votes[name])
    with Sink(output) as sink:
        sink.write(table)
