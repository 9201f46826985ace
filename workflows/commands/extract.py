"""`menagerie extract`: crawl files, or files of documents, to one Parquet or JSONL file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.sources.parameters import SourceParams

_KINDS = ("auto", "warc", "wet", "arc", "jsonl", "parquet")


@click.command()
@click.argument("inputs", metavar="IN...", nargs=-1, required=True)
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A .parquet or .jsonl file to write."
)
@click.option("--kind", default="auto", show_default=True, type=click.Choice(_KINDS), help="What IN is; auto goes by its name.")
@click.option(
    "--method",
    default="resiliparse",
    show_default=True,
    type=click.Choice(("resiliparse", "trafilatura")),
    help="Library that takes text from HTML.",
)
@click.option(
    "--main-content/--plain", default=True, show_default=True, help="The main text of a page, or all its visible text."
)
@click.option("--min-length", default=300, show_default=True, type=click.IntRange(0), help="Fewest characters of a document.")
@click.option(
    "--time-limit", default=10.0, show_default=True, type=click.FloatRange(0), help="Seconds of CPU time per page; 0: no limit."
)
@click.option(
    "--rejects",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .parquet or .jsonl file for what was dropped, with reasons.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def extract(
    inputs: tuple[str, ...],
    out: Path,
    kind: str,
    method: str,
    main_content: bool,
    min_length: int,
    time_limit: float,
    rejects: Path | None,
    as_json: bool,
) -> None:
    """Write the documents in IN, one per row: WARC, WET and ARC files (damaged ones too), JSON lines, or Parquet.

    IN are files, URLs or quoted patterns. OUT has the columns of a corpus's raw documents, and id, which is the record_id.
    Every record of IN is a row of OUT, or is counted with the reason why it is not.
    """
    from pipeline.ingest import ExtractParams, RawRows, RejectRows, documents, new_guard
    from pipeline.sources.record import Reject
    from pipeline.sources.registry import open_source
    from workflows.plain_files import Sink, check_outputs

    check_outputs(inputs, out, rejects)
    params = ExtractParams.model_validate({"method": method, "main_content": main_content, "time_limit": time_limit})
    files, source = open_source(_source(inputs, kind))
    rows, dropped = RawRows(), RejectRows()
    guard = new_guard(params)
    try:
        with Sink(out) as sink:
            for number, item in enumerate(documents(source, files, params, min_length, guard), 1):
                if isinstance(item, Reject):
                    dropped.add(item)
                else:
                    rows.add(item)
                if number % 4096 == 0:
                    sink.write(_with_id(rows.take()))
            sink.write(_with_id(rows.take()))
    finally:
        guard.close()
    if rejects is not None:
        with Sink(rejects) as sink:
            sink.write(dropped.table())
    counts = {
        "files": len(files),
        "records": rows.count + sum(dropped.counts.values()),
        "documents": rows.count,
        "characters": rows.characters,
        "drops": dict(sorted(dropped.counts.items(), key=lambda entry: (-entry[1], entry[0]))),
        "out": str(out),
    }
    _show(counts, as_json)


def _source(inputs: tuple[str, ...], kind: str) -> SourceParams:
    from pipeline.sources.archive import ArchiveParams
    from pipeline.sources.jsonl import JsonlParams
    from pipeline.sources.parquet import ParquetParams
    from pipeline.sources.registry import guess

    match kind:
        case "auto":
            return guess(inputs)
        case "jsonl":
            return JsonlParams(paths=inputs)
        case "parquet":
            return ParquetParams(paths=inputs)
        case _:
            return ArchiveParams.model_validate({"kind": kind, "paths": inputs})


def _with_id(table: pa.Table) -> pa.Table:
    return table.add_column(0, "id", table["record_id"])


def _show(counts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        import json

        click.echo(json.dumps(counts, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name in ("files", "records", "documents", "characters"):
        table.add_row(name, f"{counts[name]:,}")
    for reason, count in counts["drops"].items():
        table.add_row(f"[dim]dropped:[/] {reason}", f"{count:,}")
    console = Console()
    console.print(table)
    console.print(f"wrote {counts['out']}", markup=False, highlight=False)
