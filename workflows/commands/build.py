"""`menagerie build`, `status` and `verify`."""

from __future__ import annotations

import json
import sys
from collections import Counter

import click

recipe_argument = click.argument("recipe", type=click.Path(dir_okay=False))
set_option = click.option("--set", "assignments", multiple=True, metavar="A.B=VALUE", help="Override a field of the recipe.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")


@click.command()
@recipe_argument
@click.option("--until", metavar="STAGE", help="Stop after this stage.")
@click.option("--address", help="A Ray cluster's address, or `auto`; none starts Ray on this machine.")
@click.option("--engine", type=click.Choice(["ray", "inline"]), help="Instead of what the recipe says.")
@click.option("--cpus", type=click.IntRange(1), help="Cores that a local Ray uses.")
@set_option
@json_option
def build(
    recipe: str,
    until: str | None,
    address: str | None,
    engine: str | None,
    cpus: int | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run RECIPE: every stage whose receipt does not say that it is done already.

    Interrupt it at any moment, and run it again to go on. Relative paths in a recipe are relative to the folder that the
    command runs in.
    """
    from workflows.build import build as run
    from workflows.recipe import load_recipe

    named = {"address": address, "kind": engine, "cpus": cpus}
    overrides = [f"engine.{key}={value}" for key, value in named.items() if value is not None]
    loaded = load_recipe(recipe, [*assignments, *overrides])
    receipts = run(loaded, until)
    if as_json:
        click.echo(json.dumps({name: _totals(done) for name, done in receipts.items()}))
    else:
        click.echo(f"{loaded.name}: {len(receipts)} stages up to date in {loaded.corpus}")


@click.command()
@recipe_argument
@set_option
@json_option
def status(recipe: str, assignments: tuple[str, ...], as_json: bool) -> None:
    """Where each stage of RECIPE stands, without running anything."""
    from workflows.build import survey
    from workflows.recipe import load_recipe

    stages = survey(load_recipe(recipe, assignments))
    if as_json:
        click.echo(
            json.dumps(
                [
                    {"stage": s.name, "done": s.done, "total": s.total, "problem": s.problem} | _totals(s.receipts)
                    for s in stages
                ]
            )
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    table.add_column("stage", no_wrap=True)
    for column in ("done", "in", "out", "MB", "s"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("dropped")
    for s in stages:
        totals = _totals(s.receipts)
        drops = ", ".join(f"{reason} {count:,}" for reason, count in totals["drops"].items())
        of = "?" if s.total is None else str(s.total)
        mark = "[green]" if s.done == s.total else "[yellow]" if s.done else "[dim]"
        table.add_row(
            f"{mark}{s.name}", f"{s.done}/{of}", f"{totals['rows_in']:,}", f"{totals['rows_out']:,}",
            f"{totals['bytes'] / 1e6:.1f}", f"{totals['seconds']:.1f}", drops,
        )  # fmt: skip
    Console().print(table)
    for problem in dict.fromkeys(s.problem for s in stages if s.problem):
        click.echo(f"problem: {problem}", err=True)


@click.command()
@click.argument("recipe_or_corpus")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
@set_option
def verify(recipe_or_corpus: str, as_json: bool, assignments: tuple[str, ...]) -> None:
    """Check every digest, the alignment of tables and the conservation of rows of a corpus. Exit code 1 on any fault."""
    from pipeline.corpus import Corpus
    from workflows.verify import verify as check

    url = recipe_or_corpus
    if url.endswith((".yaml", ".yml")):
        from workflows.recipe import load_recipe

        url = load_recipe(recipe_or_corpus, assignments).corpus
    corpus = Corpus(url)
    faults = list(check(corpus))
    files = len(corpus.storage.files(""))
    if as_json:
        click.echo(json.dumps({"corpus": url, "files": files, "faults": [str(fault) for fault in faults]}))
        sys.exit(1 if faults else 0)
    for fault in faults:
        click.echo(fault)
    if faults:
        click.echo(f"{len(faults)} faults in {url}", err=True)
        sys.exit(1)
    click.echo(f"{url}: {files:,} files, every digest, alignment and row count is as the receipts say")


def _totals(receipts: list) -> dict:
    drops: Counter[str] = Counter()
    for receipt in receipts:
        drops.update(receipt.drops)
    return {
        "rows_in": sum(r.rows_in for r in receipts),
        "rows_out": sum(r.rows_out for r in receipts),
        "drops": dict(drops.most_common()),
        "bytes": sum(o.bytes for r in receipts for o in r.outputs.values()),
        "seconds": round(sum(r.seconds for r in receipts), 3),
    }
