"""`menagerie report`."""

from __future__ import annotations

import click


@click.command()
@click.argument("corpus")
@click.option("-o", "--output", default="report.html", show_default=True, type=click.Path(dir_okay=False), help="The page.")
@click.option("--title", help="Its title; the corpus' name by default.")
@click.option("--samples", default=12, show_default=True, type=click.IntRange(0), help="Documents shown, kept and dropped.")
def report(corpus: str, output: str, title: str | None, samples: int) -> None:
    """One HTML page about CORPUS (a folder or URL): it needs no network, and nothing beside it."""
    from pathlib import Path

    from pipeline.corpus import Corpus
    from workflows.report.page import write_report

    written, problems = write_report(Corpus(corpus), Path(output), title, samples)
    for problem in problems:
        click.echo(f"left out: {problem}", err=True)
    click.echo(f"{output}: {written / 1e6:.1f} MB")
