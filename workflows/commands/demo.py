"""`menagerie demo`."""

from __future__ import annotations

import click


@click.command()
@click.option("--folder", default="demo", show_default=True, type=click.Path(file_okay=False), help="Where it all goes.")
@click.option("--pages", default=400, show_default=True, type=click.IntRange(20), help="Pages to crawl.")
@click.option("--engine", type=click.Choice(["ray", "inline"]), default="ray", show_default=True)
def demo(folder: str, pages: int, engine: str) -> None:
    """From a crawl to a small language model, offline, in a few minutes.

    Starts the documentation server that comes with Python, crawls it politely into WARC files, builds a corpus from them,
    trains a model on it, and writes a report. Interrupted, it goes on where it stopped.
    """
    from workflows.demo import run

    run(folder, pages, engine)
