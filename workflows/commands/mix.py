"""`menagerie mix`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.corpus import Corpus
    from pipeline.mix import MixParams
    from pipeline.plan import MixturePlan


@click.command()
@click.argument("inputs", metavar="CORPUS|IN...", nargs=-1, required=True)
@click.option(
    "--config", "-c", required=True, type=click.Path(path_type=Path), metavar="YAML",
    help="Filters, components and budget: a file of their own, or a recipe.",
)  # fmt: skip
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="For plain files: a .parquet or .jsonl file of marked documents.",
)
@click.option("--selected", is_flag=True, help="With -o: write only the documents that the mixture selects.")
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def mix(inputs: tuple[str, ...], config: Path, output: Path | None, selected: bool, dry_run: bool, as_json: bool) -> None:
    """Plan a mixture in tokens, show it as a tree, then mark each document with its component or the reason it stays out.

    CORPUS is the folder or URL of a corpus: the mixture becomes its table `mixture/<name>`. Plain Parquet or JSONL files work
    too: conditions see the columns that the files have, and -o gets all rows with the columns component, split, repeats and
    reason beside them.
    """
    from pipeline.mix import MixParams
    from workflows.plain_files import check_outputs
    from workflows.rule_filters import expand_rules
    from workflows.section import load_section

    params = load_section(config, "mix", MixParams, {}, prepare=expand_rules)
    plain = all(name.endswith((".parquet", ".jsonl", ".ndjson", ".json", ".gz", ".zst")) for name in inputs)
    first, *others = inputs
    if not plain and others:
        raise click.UsageError(f"name one corpus, or only files ending in .parquet or .jsonl (.gz, .zst): {' '.join(inputs)}")
    if plain:
        if selected and output is None:
            raise click.UsageError("--selected says what -o writes: give -o too")
        paths = [Path(name) for name in inputs]
        check_outputs([*paths, config], output)
        plan = _plan_files(params, paths)
        _show(plan, as_json)
        if output is not None and not dry_run:
            _mark_files(params, plan, paths, output, selected)
    elif output is not None or selected:
        raise click.UsageError("-o and --selected are for plain files: the mixture of a corpus is a table in it")
    elif dry_run:
        _show(_plan_corpus(params, first), as_json)
    else:
        _mix_corpus(params, first, as_json)


def _show(plan: MixturePlan, as_json: bool) -> None:
    if as_json:
        click.echo(plan.to_json().decode(), nl=False)
        return
    from rich.console import Console

    from pipeline.plan import render_plan

    Console(highlight=False).print(render_plan(plan))


def _plan_files(params: MixParams, paths: list[Path]) -> MixturePlan:
    from pipeline.frames import read_plain
    from pipeline.mix import load_tokenizer, summarise
    from pipeline.plan import add_up, make_plan

    tokenizer = load_tokenizer(Path(params.tokenizer)) if params.tokenizer is not None else None
    summary = add_up([summarise(params, read_plain(path), tokenizer) for path in paths])
    return make_plan(params.name, params.components, params.tokens, params.characters_per_token, summary)


def _mark_files(params: MixParams, plan: MixturePlan, paths: list[Path], output: Path, selected: bool) -> None:
    """Files marked, one after the other, into one file. ValueError if their columns differ, or collide."""
    import polars as pl
    import pyarrow as pa

    from pipeline.frames import read_plain, to_polars
    from pipeline.mix import mixture_table
    from workflows.plain_files import Sink

    schemas: list[pa.Schema] = []
    with Sink(output) as sink:
        for path in paths:
            frame = read_plain(path)
            marks = to_polars(mixture_table(params, frame, plan)).drop("id")
            taken = [c for c in marks.columns if c in frame.columns]
            if taken:
                raise ValueError(f"{path} already has a column {taken[0]}, which {output} would need")
            marked = pl.concat([frame, marks], how="horizontal")
            table = (marked.filter(pl.col("component").is_not_null()) if selected else marked).to_arrow()
            schemas.append(table.schema)
            schema = schemas[0]
            if differing := sorted(set(table.column_names) ^ set(schema.names)):
                raise ValueError(f"{path} and {paths[0]} differ in the columns {', '.join(differing)}: mix them apart")
            try:
                sink.write(table.select(schema.names).cast(schema))
            except pa.ArrowException as error:
                raise ValueError(
                    f"{path} and {paths[0]} differ in the types of their columns: {error}; mix them apart"
                ) from error


def _plan_corpus(params: MixParams, url: str) -> MixturePlan:
    """The plan of a corpus's mixture, from its tables as they are; nothing is written."""
    from pipeline.corpus import Corpus
    from pipeline.mix import Plan
    from pipeline.plan import make_plan

    corpus, stage = Corpus(url), Plan(params)
    partitions = _partitions(params, corpus, url)
    stage.setup({key: Path(path) for key, path in stage.files().items()})
    summaries = [stage.summarise(p, {t: corpus.read(t, p) for t in params.tables}) for p in partitions]
    summary = stage.merge(summaries)
    return make_plan(params.name, params.components, params.tokens, params.characters_per_token, summary)


def _partitions(params: MixParams, corpus: Corpus, url: str) -> list[str]:
    partitions = corpus.partitions(params.tables[0])
    if not partitions:
        raise ValueError(f"{url} has no {params.tables[0]}: name the folder or URL of a corpus, or files to mix")
    return partitions


def _mix_corpus(params: MixParams, url: str, as_json: bool) -> None:
    """The stages plan and mix on a corpus: with receipts, so that a build with the same parameters finds them done."""
    from pipeline.corpus import Corpus
    from pipeline.mix import Mix, Plan, plan_path
    from pipeline.plan import MixturePlan
    from workflows.engine import Engine
    from workflows.inline import InlineExecutor
    from workflows.progress import Progress

    corpus = Corpus(url)
    _partitions(params, corpus, url)
    engine = Engine(corpus, InlineExecutor(corpus.storage), Progress())
    engine.adopt()
    engine.run(Plan(params))
    _show(MixturePlan.from_json(corpus.storage.read(plan_path(params.name))), as_json)
    engine.run(Mix(params))
