"""`menagerie label fit`, `apply`, `analyze`, `explain`: label models on plain files of votes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import yaml


def _votes_options(command):
    """VOTES, --classes and --key."""
    for decorate in (
        click.option("--key", help="Name of the matrix in an .npz file; L, votes or L_train if not given."),
        click.option("--classes", metavar="A,B", help="Names of the classes, if the file does not tell; else 0, 1, ..."),
        click.argument("votes", metavar="VOTES", type=click.Path(path_type=Path)),
    ):
        command = decorate(command)
    return command


def _fit_options(command):
    """How a model is fitted."""
    for decorate in (
        click.option("--dev", type=click.Path(path_type=Path), metavar="FILE", help="`id` and `label` of documents whose class "
                     "is known (Parquet, JSONL): shown; only --calibrate learns from it."),
        click.option("--calibrate", type=click.Choice(["temperature", "isotonic"]), help="Mend the probabilities on --dev."),
        click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="A parameter of the label model."),
        click.option("--balance", metavar="X,Y", help="Share of each class, if it is known; otherwise it is estimated."),
        click.option("--model", "model_name", default="auto", show_default=True, help="Label model, by name."),
    ):  # fmt: skip
        command = decorate(command)
    return command


@click.command()
@_votes_options
@_fit_options
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File of the model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def fit(votes: Path, output: Path, as_json: bool, **told: Any) -> None:
    """Fit a label model on VOTES: Parquet or JSONL with a column per function, or .npz. -1 abstains, classes count from 0."""
    from labelers.models import save_model
    from pipeline.storage import Storage

    if output.resolve() == votes.resolve():
        raise ValueError(f"{output} is an input too, which would be lost: write to another file")
    fitted, _ = _fitted(votes, **told)
    Storage(str(output.absolute().parent)).write(output.name, save_model(fitted.model))
    if as_json:
        click.echo(json.dumps({"path": str(output), **fitted.metrics}))
        return
    from rich.console import Console

    from workflows.commands.label import tell_fitted

    console = Console()
    tell_fitted(console, fitted.metrics, fitted.metrics["warnings"])
    console.print(f"{output}: {fitted.metrics['model']} of {len(fitted.model.functions)} functions, fitted on "
                  f"{fitted.metrics['documents']:,} documents", highlight=False, soft_wrap=True)  # fmt: skip


@click.command()
@_votes_options
@click.option("-m", "--model", "model_path", required=True, type=click.Path(path_type=Path), help="What `fit` wrote.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A .parquet or .jsonl file."
)
@click.option("--tie-break", type=click.Choice(["abstain", "random"]), default="abstain", show_default=True,
              help="Label of a document whose classes tie: none, or one by a hash of its id.")  # fmt: skip
def apply(votes: Path, classes: str | None, key: str | None, model_path: Path, output: Path, tie_break: str) -> None:
    """Write `id`, `label`, a probability per class and the number of votes of each document of VOTES."""
    from labelers.stages import count_labels, label_table
    from workflows.plain_files import Sink, check_outputs
    from workflows.vote_files import read_votes

    check_outputs([votes, model_path], output)
    model = _load(model_path)
    _same_classes(classes, model.classes)
    table = read_votes(votes, model.classes, key).table
    try:
        labels = label_table(model, table, tie_break)
    except ValueError as error:
        raise ValueError(f"{votes}: {error}") from error
    with Sink(output) as sink:
        sink.write(labels)
    counts = count_labels(labels, model.classes)
    click.echo(f"{output}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))


@click.command()
@_votes_options
@_fit_options
@click.option(
    "-m", "--fitted", "model_path", type=click.Path(path_type=Path), help="A model that `fit` wrote, instead of fitting one."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def analyze(votes: Path, model_path: Path | None, as_json: bool, **told: Any) -> None:
    """What each labelling function of VOTES does: polarity, coverage, overlaps, conflicts, estimated accuracy, redundancy.

    With --dev, also the precision on documents whose class is known.
    """
    from labelers.analysis import label_shares, render_analysis

    fitted, summary = _fitted(votes, **told, model_path=model_path)
    shares = label_shares(summary.statistics)
    if as_json:
        click.echo(json.dumps({**fitted.metrics, "functions": fitted.analysis.to_pylist()}))
        return
    from rich.console import Console

    from workflows.commands.label import tell_fitted

    console = Console()
    console.print(render_analysis(fitted.analysis, shares, summary.statistics.documents))
    tell_fitted(console, fitted.metrics, fitted.metrics["warnings"])


@click.command()
@_votes_options
@click.option("-m", "--model", "model_path", required=True, type=click.Path(path_type=Path), help="What `fit` wrote.")
@click.option("--id", "document", required=True, help="Id of the document (for a file without ids: <file name>/<row>).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def explain(votes: Path, classes: str | None, key: str | None, model_path: Path, document: str, as_json: bool) -> None:
    """Why a document has its label: each function's vote, and its share of the log-odds."""
    from dataclasses import asdict

    import numpy as np

    from labelers.analysis import explain as explain_votes
    from labelers.analysis import render_explanation
    from workflows.vote_files import read_votes

    model = _load(model_path)
    _same_classes(classes, model.classes)
    table = read_votes(votes, model.classes, key).table
    functions = tuple(table.column_names[1:])
    if functions != model.functions:
        raise ValueError(f"{votes} has the functions {', '.join(functions)}, and the model {', '.join(model.functions)}")
    ids = table["id"].to_pylist()
    if document not in ids:
        raise ValueError(f"{votes} has no document {document}; the first is {ids[0] if ids else 'missing: it is empty'}")
    row = ids.index(document)
    explanation = explain_votes(model, np.array([table[f][row].as_py() for f in functions], np.int8))
    if as_json:
        click.echo(json.dumps({"id": document, **asdict(explanation)}))
        return
    from rich.console import Console

    Console().print(render_explanation(explanation, document))


def _fitted(
    votes: Path,
    classes: str | None,
    key: str | None,
    model_name: str,
    balance: str | None,
    options: tuple[str, ...],
    dev: Path | None,
    calibrate: str | None,
    model_path: Path | None = None,
):
    """A label model fitted on a file of votes (or loaded), and the votes' summary."""
    from labelers.dev import DevSet
    from labelers.stages import FitParams
    from labelers.stages_fit import VoteSummary, fit_summary, judge
    from workflows.vote_files import read_votes

    if model_path and calibrate:
        raise ValueError("--calibrate goes with a model that is fitted here, not with --fitted")
    model = _load(model_path) if model_path else None
    file = read_votes(votes, classes.split(",") if classes else model.classes if model else None, key)
    try:
        params = FitParams.model_validate(
            {
                "task": "label",
                "classes": file.classes,
                "model": model_name,
                "options": dict(_option(each) for each in options),
                "class_balance": _balance(balance, file.classes),
                "dev": str(dev) if dev else None,
                "calibrate": calibrate,
            }
        )
    except ValueError as error:
        from pydantic import ValidationError

        from workflows.section import explain as explain_error

        raise ValueError(explain_error(error, FitParams) if isinstance(error, ValidationError) else str(error)) from error
    known = DevSet.read(dev, file.classes) if dev else None
    try:
        summary = VoteSummary.measure(file.table, file.classes, known)
        fitted = judge(model, summary) if model else fit_summary(summary, params)
    except ValueError as error:
        raise ValueError(f"{votes}: {error}") from error
    if file.left_out:
        names = ", ".join(file.table.column_names[1:])
        fitted.metrics["warnings"].append(f"{votes}: taken for votes: {names}; left out: {', '.join(file.left_out)}")
    if known and not len(summary.dev_gold):
        raise ValueError(f"{dev}: none of its {len(known.gold):,} documents is in {votes}; are the ids the same?")
    return fitted, summary


def _load(path: Path):
    from labelers.models import load_model

    if not path.is_file():
        raise ValueError(f"{path}: there is no such file: name what `menagerie label fit -o` wrote")
    return load_model(path.read_bytes(), str(path))


def _same_classes(told: str | None, classes: tuple[str, ...]) -> None:
    if told is not None and tuple(told.split(",")) != classes:
        raise ValueError(f"--classes {told}: the model's classes are {','.join(classes)}")


def _option(told: str) -> tuple[str, Any]:
    name, equals, value = told.partition("=")
    if not equals:
        raise ValueError(f"--option {told}: write it as name=value")
    try:
        return name, int(value) if value.isdecimal() else float(value)  # YAML takes 1e-7 for a string
    except ValueError:
        return name, yaml.safe_load(value)


def _balance(told: str | None, classes: tuple[str, ...]) -> dict[str, float] | None:
    if told is None:
        return None
    try:
        shares = [float(part) for part in told.split(",")]
    except ValueError as error:
        raise ValueError(f"--balance {told}: write it as numbers with commas, one per class") from error
    if len(shares) != len(classes):
        raise ValueError(f"--balance {told} has {len(shares)} shares; there are {len(classes)} classes: {', '.join(classes)}")
    return dict(zip(classes, shares, strict=True))
