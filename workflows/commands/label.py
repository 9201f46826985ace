"""`menagerie label`: labelling functions over documents; its other verbs are in `label_votes` and `label_distill`."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

    from labelers.dev import DevSet
    from labelers.functions import Faults
    from labelers.stages import LabelParams

_VERBS = {
    "run": ("workflows.commands.label:run", "Functions vote on documents, a label model labels them (the default)."),
    "vote": ("workflows.commands.label:vote", "The votes alone."),
    "fit": ("workflows.commands.label_votes:fit", "Fit a label model on a file of votes."),
    "apply": ("workflows.commands.label_votes:apply", "Labels of a file of votes by a fitted model."),
    "analyze": ("workflows.commands.label_votes:analyze", "What each labelling function does, and how good it seems."),
    "explain": ("workflows.commands.label_votes:explain", "Why a document has its label: each function's share."),
    "distill": ("workflows.commands.label_distill:distill", "Train a classifier of the text on labels."),
    "classify": ("workflows.commands.label_distill:classify", "Labels of documents by a distilled classifier."),
}


class _Label(click.Group):
    """Verbs that load when they are called. Without a verb, `run` is meant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, attribute = _VERBS[cmd_name][0].split(":")
        return getattr(importlib.import_module(module), attribute)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in _VERBS and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line) in _VERBS.items()])


@click.group(cls=_Label, subcommand_metavar="[VERB] IN ...")
def label() -> None:
    """Labelling functions and label models over documents.

    menagerie label IN --functions YAML -o OUT does it all at once; the verbs do a part each.
    """


def functions_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """IN, --functions and --task."""
    for decorate in (
        click.option("--task", help="Which task, if the file has several."),
        click.option(
            "--functions", "-f", "config", required=True, type=click.Path(path_type=Path), metavar="YAML",
            help="Classes and labelling functions: a file of their own, or a recipe.",
        ),
        click.argument("documents", metavar="IN", type=click.Path(path_type=Path)),
    ):  # fmt: skip
        command = decorate(command)
    return command


@click.command()
@functions_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .parquet or .jsonl file of labels, probabilities and votes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def run(documents: Path, config: Path, task: str | None, output: Path | None, as_json: bool) -> None:
    """Let labelling functions vote on the documents of IN (Parquet or JSONL), and show what each of them does.

    Functions see the columns that the file has. With -o, also write per document, in the order of IN: `id`, `label`, a
    probability per class, the number of votes, and each function's vote (-1 abstains).
    """
    from labelers.analysis import label_shares, render_analysis
    from labelers.dev import DevSet
    from labelers.stages import count_labels, label_table, tell_faults
    from labelers.stages_fit import VoteSummary, fit_summary
    from workflows.plain_files import check_outputs

    check_outputs([documents, config], output)
    task_params = read_task(config, task)
    if task_params.scores:
        _run_weaver(documents, task_params, output, as_json)
        return
    params, votes, faults = votes_on(documents, config, task)
    dev = DevSet.read(Path(params.dev), params.classes) if params.dev else None
    summary = VoteSummary.measure(votes, params.classes, dev)
    fitted = fit_summary(summary, params)
    labels = label_table(fitted.model, votes, params.tie_break)
    told: list[str] = [*tell_faults(faults), *fitted.metrics["warnings"]]
    by, card = str(fitted.metrics["model"]), None
    if params.distill is not None:
        labels, card = _distilled(documents, labels, params, dev)
        by = f"the {params.distill.kind} classifier distilled from {by}"
    counts = count_labels(labels, params.classes)
    shares = label_shares(summary.statistics)
    if output is not None:
        _write(output, labels, votes)
    if as_json:
        about = {"documents": summary.statistics.documents, "model": fitted.metrics["model"], "labels": counts} | shares
        kept = ("reason", "class_balance", "effective_functions", "dev", "reliability")
        about |= {name: fitted.metrics[name] for name in kept if fitted.metrics.get(name) is not None}
        about |= {"warnings": told, "distilled": card} if card else {"warnings": told}
        click.echo(json.dumps(about | {"functions": fitted.analysis.to_pylist()}))
        return
    from rich.console import Console

    console = Console()
    console.print(render_analysis(fitted.analysis, shares, summary.statistics.documents))
    tell_fitted(console, fitted.metrics, told)
    if card:
        from labelers.stages_distill import tell

        console.print(tell(card), highlight=False)
    console.print(f"labels by {by}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))


@click.command()
@functions_options
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A .parquet or .jsonl file."
)
def vote(documents: Path, config: Path, task: str | None, output: Path) -> None:
    """Write the votes of labelling functions on the documents of IN: `id`, and a column per function (-1 abstains)."""
    from labelers.stages import count_votes, tell_faults
    from workflows.plain_files import Sink, check_outputs
    from workflows.vote_files import with_classes

    check_outputs([documents, config], output)
    params, votes, faults = votes_on(documents, config, task)
    with Sink(output) as sink:
        sink.write(with_classes(votes, params.classes))
    for told in tell_faults(faults):
        click.echo(f"warning: {told}", err=True)
    cast = sum(count_votes(votes).values())
    click.echo(f"{output}: {cast:,} votes of {votes.num_columns - 1} functions on {len(votes):,} documents")


def votes_on(documents: Path, config: Path, task: str | None) -> tuple[LabelParams, pa.Table, Faults]:
    """The task of a YAML file, and its functions' votes on a file of documents."""
    from labelers.functions import apply
    from labelers.functions_yaml import function_files, load_functions
    from pipeline.frames import read_plain

    params = read_task(config, task)
    if params.scores or params.embeddings:
        raise ValueError(f"{config}: the task {params.task} has scores or embeddings, and no votes of functions alone")
    files = {key: Path(path) for key, path in function_files(params.functions).items()}
    functions = load_functions(params.functions, files)
    faults: Faults = {}
    return params, apply(functions, params.classes, read_plain(documents), faults), faults


def read_task(config: Path, task: str | None) -> LabelParams:
    """The task of a YAML file."""
    from labelers.stages import LabelParams
    from workflows.section import load_section

    return load_section(config, "label", LabelParams, {"task": "label"}, task)


def _run_weaver(documents: Path, params: LabelParams, output: Path | None, as_json: bool) -> None:
    """The same for a task of continuous scores."""
    from labelers.dev import DevSet
    from labelers.stages import count_labels
    from labelers.stages_weaver import fit_weaver, score_labels, summarise
    from pipeline.frames import read_plain
    from workflows.plain_files import Sink

    frame = read_plain(documents)
    dev = DevSet.read(Path(params.dev), params.classes) if params.dev else None
    model, metrics = fit_weaver(summarise(frame, params, dev), params)
    labels = score_labels(model, frame, params)
    counts = count_labels(labels, params.classes)
    if output is not None:
        with Sink(output) as sink:
            sink.write(labels)
    if as_json:
        click.echo(json.dumps({**metrics, "labels": counts}))
        return
    from rich.console import Console

    console = Console()
    for name, correlation in metrics["correlations"].items():
        console.print(f" {name:40} correlated with {params.classes[1]} by {correlation:+.2f}", highlight=False)
    tell_fitted(console, metrics, metrics["warnings"])
    console.print("labels by weaver: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))


def tell_fitted(console: Console, metrics: Mapping[str, Any], warnings: Sequence[str]) -> None:
    """What a fit found, in lines for the terminal."""
    if metrics.get("reason"):
        console.print(metrics["reason"], highlight=False, soft_wrap=True)
    balance = ", ".join(f"{name} {share:.1%}" for name, share in metrics["class_balance"].items())
    effective = f"; effective functions: {metrics['effective_functions']:.1f}" if "effective_functions" in metrics else ""
    console.print(f"class balance: {balance}{effective}", highlight=False, soft_wrap=True)
    if dev := metrics.get("dev"):
        scores = ", ".join(f"{name.replace('_', ' ')} {dev[name]:.3f}" for name in dev if name != "documents")
        console.print(f"on the dev set ({dev['documents']:,} documents): {scores}", highlight=False)
    if reliability := metrics.get("reliability"):
        from labelers.calibration import tell_reliability

        console.print(tell_reliability(reliability), highlight=False, soft_wrap=True)
    for told in warnings:
        console.print(f"[yellow]warning:[/yellow] {told}", highlight=False, soft_wrap=True)


def _distilled(documents: Path, weak: pa.Table, params: LabelParams, dev: DevSet | None) -> tuple[pa.Table, dict]:
    from labelers.stages_distill import classify, summarise, train
    from workflows.commands.label_distill import read_documents

    texts = read_documents(documents)
    model, card = train(summarise(weak, texts, params, dev), params)
    return classify(model, weak, texts, params), card


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
