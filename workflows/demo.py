"""The demo: Python's own documentation, from its pages to a language model, with the recipe that ships with the project."""

from __future__ import annotations

import glob
import importlib.resources
import json
import time
from pathlib import Path

import click

from pipeline.receipt import Receipt
from workflows.build import build
from workflows.recipe import Recipe, load_recipe

RECIPE = "demo.yaml"
WARC_FILES = 4
"""As many as the recipe has shards."""


def run(folder: str, pages: int, engine: str) -> None:
    """Crawl, build, and tell what came of it."""
    begun = time.monotonic()
    here = Path(folder)  # as it was given, so that in its default place the shipped recipe goes on with the same corpus
    crawled = _crawl(here / "crawl", pages)
    recipe = demo_recipe(here, engine)
    receipts = build(recipe)
    _tell(recipe, receipts, crawled, time.monotonic() - begun)


def demo_recipe(folder: Path, engine: str = "ray") -> Recipe:
    """The shipped recipe, with its corpus, crawl and report in `folder`."""
    pages = f"{glob.escape(str(folder / 'crawl'))}/*.warc.gz"
    with importlib.resources.as_file(importlib.resources.files("recipes") / RECIPE) as path:
        return load_recipe(
            path,
            [
                # As JSON, which is YAML too: a folder's name may hold what YAML, or a shell pattern, gives a meaning.
                f"corpus={_quoted(folder / 'corpus')}",
                f"ingest.source.paths=[{_quoted(pages)}]",
                f"report.path={_quoted(folder / 'report.html')}",
                f"engine.kind={engine}",
            ],
        )


def _quoted(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def _crawl(folder: Path, pages: int) -> int:
    from workflows.pydoc_site import crawl_documentation

    click.echo("Crawling the documentation server of this Python ...", err=True)
    report = crawl_documentation(folder, pages, files=WARC_FILES)
    links = sum(report.skipped.values())
    told = f"{report.pages} pages, {report.bytes / 1e6:.1f} MB of WARC, {links:,} links not followed, {report.seconds:.0f} s"
    click.echo(f"crawl: {told}", err=True)
    return report.pages


def _tell(recipe: Recipe, receipts: dict[str, list[Receipt]], pages: int, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    evaluation = receipts["evaluate"][0].metrics
    table = Table(title="Perplexity on documents that the model has not seen", box=None, title_justify="left")
    for column in ("component", "documents", "tokens", "perplexity"):
        table.add_column(column, justify="left" if column == "component" else "right")
    for name, told in evaluation["heldout"].items():
        table.add_row(name, f"{told['documents']:,}", f"{told['tokens']:,}", f"{told['perplexity']:.1f}")
    console.print(table)
    for sample in evaluation["samples"]:
        console.rule("a sample", align="left")
        console.print(f"[bold]{sample['prompt']}[/bold]", highlight=False, end="")
        console.print(sample["text"].removeprefix(sample["prompt"]), highlight=False, markup=False)
    console.rule()
    report = recipe.report.path if recipe.report else ""
    click.echo(f"{pages} pages became a model in {seconds:.0f} s.")
    click.echo(f"Report:  {report}")
    click.echo(f"Corpus:  {recipe.corpus}")
