"""`menagerie models`: published models and word lists, and models of one's own."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import click

_ELSEWHERE = {
    "train-lm": ("workflows.commands.train_lm:train_lm", "Train a SentencePiece and a 5-gram model on text."),
    "train-classifier": (
        "workflows.commands.train_classifier:train_classifier",
        "Train a fastText classifier that tells two kinds of documents apart.",
    ),
    "train-importance": (
        "workflows.commands.train_importance:train_importance",
        "Count the n-grams of a target and a source, for importance signals.",
    ),
}


class _Models(click.Group):
    """Loads the verbs of other modules when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, attribute = _ELSEWHERE[cmd_name][0].split(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        lines = {name: command.get_short_help_str(limit=100) for name, command in self.commands.items()}
        lines |= {name: line for name, (_, line) in _ELSEWHERE.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(lines.items()))


@click.group(cls=_Models)
def models() -> None:
    """Language models, word lists, classifiers and importance tables: list, fetch and train them.

    Fetched models lie in $MENAGERIE_CACHE, else in ~/.cache/menagerie.
    """


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """Models and word lists that can be fetched, and whether they are here."""
    from pipeline.models import cache_folder, registry

    folder = cache_folder()
    rows = [
        {
            "name": model.name,
            "here": all((folder / file.used).is_file() for file in model.files),
            "bytes": model.size,
            "licence": model.licence,
            "about": model.about,
            "files": [{"url": f.url, "path": str(folder / f.used), "sha256": f.sha256, "bytes": f.size} for f in model.files],
        }
        for model in registry().values()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for heading, justify in (("model", "left"), ("here", "left"), ("MB", "right"), ("checksum", "left"), ("licence", "left")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("about")
    for row in rows:
        size = f"{row['bytes'] / 1e6:.0f}" if row["bytes"] else "?"
        known = "published" if all(f["sha256"] for f in row["files"]) else "on first fetch"
        table.add_row(row["name"], "yes" if row["here"] else "no", size, known, row["licence"], row["about"])
    console = Console()
    console.print(table)
    console.print(f"folder: {folder}", highlight=False, soft_wrap=True)


@models.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--to", "folder", type=click.Path(path_type=Path, file_okay=False), help="Folder, instead of the cache.")
@click.option("--mirror", metavar="URL", help="A server with the publisher's paths, instead of the publisher.")
@click.option(
    "--retries", default=4, show_default=True, type=click.IntRange(0), help="Attempts without progress before giving up."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def fetch(names: tuple[str, ...], folder: Path | None, mirror: str | None, retries: int, as_json: bool) -> None:
    """Download models and word lists, and check them. An interrupted download goes on where it ended.

    NAMES are those of `menagerie models list`: lid176, ccnet-en, or stop-words.
    """
    from pipeline.models import fetch as fetch_models
    from pipeline.models import find

    chosen = [find(name) for name in names]
    results = []
    for model in chosen:
        if not as_json:
            size = f", {model.size / 1e6:.0f} MB" if model.size else ""
            click.echo(f"{model.name}: {model.about} (licence: {model.licence}{size})")
        for file in fetch_models([model], folder, mirror, retries):
            results.append(
                {
                    "name": model.name,
                    "path": str(file.path),
                    "sha256": file.sha256,
                    "checked": file.checked,
                    "downloaded": file.downloaded,
                }
            )
            if not as_json:
                click.echo(f"  {file.path}: {_told(file.checked, file.sha256)}{'' if file.downloaded else ', was here'}")
    if as_json:
        click.echo(json.dumps(results, indent=1))


def _told(checked: str, sha256: str) -> str:
    if checked == "first":
        return f"no checksum is published; recorded sha256 {sha256} for the next time"
    return f"sha256 is the {checked} one"
