"""`menagerie models train-importance`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workflows.commands.training_documents import corpus_option, language_option, selections, told

if TYPE_CHECKING:
    from pipeline.text import TextBatch


@click.command("train-importance")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder; others' tables stay."
)
@click.option("--target", "targets", multiple=True, required=True, metavar="FILE|SQL", help="Documents to be like.")
@click.option("--source", "sources", multiple=True, required=True, metavar="FILE|SQL", help="Documents of the crawl at large.")
@corpus_option
@language_option
@click.option(
    "--domain",
    type=click.Choice(["wikipedia", "openwebtext", "books"]),
    default="wikipedia",
    show_default=True,
    help="The target's name: the signal rps_doc_<domain>_importance reads its table.",
)
@click.option("--buckets", default=10_000, show_default=True, type=click.IntRange(2, 1 << 24), help="Buckets of n-grams.")
@click.option("--samples", default=500_000, show_default=True, type=click.IntRange(1), help="Documents of each, at most.")
@click.option("--seed", default=0, show_default=True, help="Decides the sample.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def train_importance(
    output: Path,
    targets: tuple[str, ...],
    sources: tuple[str, ...],
    corpus: str | None,
    language: str | None,
    domain: str,
    buckets: int,
    samples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Count the hashed words and pairs of words of a target and of a source, for importance signals (DSIR).

    FILE is a Parquet, JSONL or text file (one document a line); SQL a condition over the columns of --corpus. Use:
    menagerie annotate IN -o OUT --importance OUTPUT, or `annotate.importance` of a recipe.
    """
    from itertools import chain

    from quality.importance import SOURCE, load_tables, make_table, save_tables
    from quality.training_documents import sample

    if language is None:
        raise ValueError("--language is missing: tables are of one language, such as --language en")
    tables, counts, others = {}, {}, []
    for name, given, option in ((SOURCE, sources, "--source"), (domain, targets, "--target")):
        chosen = selections(given, corpus, language, option)
        documents = sample(chain.from_iterable(each.batches() for each in chosen), samples, seed)
        if not documents:
            raise ValueError(f"{told(chosen)}: no document with text in {language}; widen the condition")
        tables[name, language] = make_table(_batches([text for _, text in documents]), buckets)
        counts[name] = len(documents)
    if output.is_dir() and (there := {f.name: f for f in output.iterdir() if f.suffix in (".npy", ".json")}):
        kept = load_tables(there)
        odd = next((key for key, table in kept.items() if len(table.counts) != buckets and key not in tables), None)
        if odd is not None:
            raise ValueError(f"{output} has a table {'.'.join(odd)} of another size than {buckets}: name another folder")
        if (SOURCE, language) in kept and not (kept[SOURCE, language].counts == tables[SOURCE, language].counts).all():
            others = sorted(name for name, of in kept if of == language and name not in (SOURCE, domain))
    save_tables(output, tables)
    lengths = {name: table.mean_length for (name, _), table in tables.items()}
    if as_json:
        told_all = {"output": str(output), "documents": counts, "mean_length": lengths, "buckets": buckets, "reweighed": others}
        click.echo(json.dumps(told_all))
        return
    for name, count in counts.items():
        click.echo(f"{name}.{language}: {count:,} documents, {lengths[name]:,.0f} raw words each on average")
    if others:
        click.echo(f"{SOURCE}.{language} is another than before: {', '.join(others)} of {language} are weighed against it too")
    click.echo(f"{output}: tables of {buckets:,} buckets; use them with `menagerie annotate --importance {output}`")


def _batches(texts: list[str], size: int = 1 << 10) -> Iterator[TextBatch]:
    import pyarrow as pa

    from pipeline.text import TextBatch

    for first in range(0, len(texts), size):
        yield TextBatch(pa.array(texts[first : first + size], pa.large_string()))
