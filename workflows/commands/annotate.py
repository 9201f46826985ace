"""`menagerie annotate` and `minhash`: what a document is like, for plain files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from quality.registry import Signal

in_argument = click.argument("source", metavar="IN", type=click.Path(path_type=Path, dir_okay=False))
out_option = click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A .parquet or .jsonl file to write."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")


def _list(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from rich.console import Console
    from rich.table import Table

    from quality.registry import registered

    table = Table(box=None, header_style="bold")
    table.add_column("signal", no_wrap=True)
    table.add_column("definition")
    table.add_column("source")
    for each in registered().values():
        table.add_row(each.name, each.definition, each.source)
    Console().print(table)
    context.exit()


@click.command()
@in_argument
@out_option
@click.option("--signals", "names", multiple=True, metavar="NAME[,NAME]", help="Only these signals; all by default.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="List every signal, and exit.")
@click.option("--all-columns", is_flag=True, help="Write the columns of IN too: what label and mix need to see both.")
@json_option
def annotate(source: Path, out: Path, names: tuple[str, ...], all_columns: bool, as_json: bool) -> None:
    """Measure the quality signals of the documents in IN, a Parquet or JSONL file.

    IN has a column raw_content (or text, or content); id, url, source_domain, language and CCNet's fields are used where they
    are there. OUT has the column id (with --all-columns: those of IN), and one column per signal.
    """
    from quality.annotate import annotate as measure
    from quality.registry import select
    from workflows.plain_files import Sink, as_documents, check_outputs, read_batches

    check_outputs([source], out)
    signals = select([n for name in names for n in name.split(",")] if names else "all")
    documents, columns = 0, set()
    with Sink(out) as sink:
        for batch in read_batches(source):
            documents += batch.num_rows
            columns.update(batch.column_names)
            measured = measure(as_documents(batch), signals)[0]
            sink.write(_beside(batch, measured, source) if all_columns else measured)
    _summarise(out, signals, documents, columns, as_json)


@click.command()
@in_argument
@out_option
@click.option("--shingle", default=13, show_default=True, type=click.IntRange(1), help="Words in a shingle.")
@click.option("--seed", default=42, show_default=True, type=click.IntRange(0, 2**32 - 1), help="Seed of the permutations.")
@click.option("--bands", is_flag=True, help="Add RedPajama-V2's columns signature_sim1.0 to signature_sim0.7.")
@json_option
def minhash(source: Path, out: Path, shingle: int, seed: int, bands: bool, as_json: bool) -> None:
    """Sign the documents in IN, a Parquet or JSONL file, with MinHash: 128 permutations with RedPajama-V2's values.

    OUT has the columns id and signature (null for documents with fewer words than a shingle).
    """
    from pipeline.minhash import BANDS, MinHash, MinHashParams, band_column
    from quality.annotate import annotate as sign
    from workflows.plain_files import Sink, as_documents, check_outputs, read_batches

    check_outputs([source], out)
    if bands and out.suffix != ".parquet":
        raise ValueError(f"{out}: bands are binary columns; write them to a .parquet file")
    signer = MinHash(MinHashParams(shingle=shingle, seed=seed))
    documents = unsigned = 0
    with Sink(out) as sink:
        for batch in read_batches(source):
            signed = sign(as_documents(batch), [], signer)[1]
            documents += signed.num_rows
            unsigned += signed["signature"].null_count
            if bands:
                for level in BANDS:
                    signed = signed.append_column(f"signature_sim{level}", band_column(signed["signature"], level))
            sink.write(signed)
    if as_json:
        click.echo(json.dumps({"out": str(out), "documents": documents, "unsigned_documents": unsigned}))
    else:
        click.echo(f"{out}: {documents:,} documents, {unsigned:,} of them too short for a signature")


def _beside(batch: pa.Table, measured: pa.Table, source: Path) -> pa.Table:
    """A batch's columns, then its signals."""
    for name in measured.column_names[1:]:
        if name in batch.column_names:
            raise ValueError(f"{source} already has a column {name}: leave --all-columns out, or choose with --signals")
        batch = batch.append_column(name, measured[name])
    return batch


def _summarise(out: Path, signals: Sequence[Signal], documents: int, columns: set[str], as_json: bool) -> None:
    """What OUT holds, read back from it."""
    import polars as pl

    names = [s.name for s in signals]
    frame = pl.scan_parquet(out) if out.suffix == ".parquet" else pl.scan_ndjson(out, schema=dict.fromkeys(names, pl.Float64))
    told = {
        "null": pl.col(names).null_count(),
        "5%": pl.col(names).quantile(0.05),
        "median": pl.col(names).median(),
        "95%": pl.col(names).quantile(0.95),
    }
    rows = {label: frame.select(expression).collect().row(0) for label, expression in told.items()}
    values = {name: {label: rows[label][i] for label in told} for i, name in enumerate(names)}
    if as_json:
        click.echo(json.dumps({"out": str(out), "documents": documents, "signals": values}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("signal", title=f"{out}: {documents:,} documents", box=None, header_style="bold", title_justify="left")
    for label in told:
        table.add_column(label, justify="right")
    for name, value in values.items():
        table.add_row(name, f"{value['null']:,}", *("" if value[t] is None else f"{value[t]:.4g}" for t in list(told)[1:]))
    Console().print(table)
    for each in signals:
        if documents and values[each.name]["null"] == documents and (missing := set(each.columns) - columns):
            click.echo(f"{each.name} is null: {', '.join(sorted(missing))} is no column of the input")
