"""`menagerie dedup`: exact and fuzzy deduplication of plain files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pyarrow as pa

_LEVELS = ("1.0", "0.9", "0.8", "0.7")


@click.command()
@click.argument("sources", metavar="IN...", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The documents kept.")
@click.option("--level", default="0.8", show_default=True, type=click.Choice([*_LEVELS, "none"]), help="Similarity level.")
@click.option(
    "--exact", default="raw", show_default=True, type=click.Choice(["raw", "normalized", "none"]), help="What equal text is."
)
@click.option(
    "--keep", default="lowest_id", show_default=True, type=click.Choice(["lowest_id", "longest", "best"]),
    help="Which duplicate is kept.",
)  # fmt: skip
@click.option("--signal", metavar="NAME", help="With --keep best: a numeric column of IN, else a quality signal to measure.")
@click.option("--prefer", default="highest", show_default=True, type=click.Choice(["highest", "lowest"]))
@click.option("--duplicates", type=click.Path(path_type=Path, dir_okay=False), help="Also write what became of each document.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def dedup(
    sources: tuple[Path, ...],
    out: Path,
    level: str,
    exact: str,
    keep: str,
    signal: str | None,
    prefer: str,
    duplicates: Path | None,
    as_json: bool,
) -> None:
    """Keep one of each group of duplicate documents in IN, Parquet or JSONL files, all compared with each other.

    Two documents are duplicates if their text is equal, or if they share a band of their MinHash signatures at the similarity
    level (RedPajama-V2's bands; documents below 13 words have no signature). OUT has all columns of the input, with its rows
    in its order. Its name, and that of the table of duplicates, ends in .parquet or .jsonl.
    """
    from pipeline.deduplicate import DeduplicateParams
    from workflows.plain_files import check_outputs

    check_outputs([], out, duplicates)  # the documents kept may take the place of those given
    check_outputs(sources, duplicates)
    levels = () if level == "none" else (level,)
    asked = {"exact": exact, "similarities": levels, "keep": keep, "signal": signal, "prefer": prefer}
    if (keep == "best") != (signal is not None):
        raise click.UsageError("--keep best and --signal NAME go together")
    told = _deduplicate(sources, out, duplicates, DeduplicateParams.model_validate(asked))
    if as_json:
        click.echo(json.dumps(told))
    else:
        _print(told)


def _deduplicate(sources: tuple[Path, ...], out: Path, duplicates: Path | None, params: Any) -> dict[str, Any]:
    """Two passes over the files: one finds the clusters, one writes what is kept. A batch of a file is a partition."""
    import tempfile
    from contextlib import ExitStack

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from pipeline.deduplicate import Cluster, Deduplicate
    from pipeline.storage import Storage
    from workflows.inline import InlineExecutor
    from workflows.plain_files import Sink, read_batches

    cluster, mark = Cluster(params), Deduplicate(params)
    with tempfile.TemporaryDirectory(prefix="menagerie-dedup-") as folder, ExitStack() as stack:
        sink = stack.enter_context(Sink(out))
        table_sink = stack.enter_context(Sink(duplicates)) if duplicates else None
        summaries, schemas, pieces = [], [], {}
        for number, source in enumerate(sources):
            for piece, batch in enumerate(read_batches(source)):
                partition = f"{number:06d}/{piece:06d}"
                pieces[partition] = f"{source}" if not piece else f"{source}, piece {piece}"
                summaries.append(str(Path(folder) / f"{number:06d}-{piece:06d}.parquet"))
                pq.write_table(cluster.summarise(partition, _tables(batch, source, params)), summaries[-1])
                if not piece:
                    schemas.append(batch.schema)
        try:
            schema = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise ValueError(f"the files cannot be one: {error}; deduplicate files of the same columns") from error
        shuffled = InlineExecutor(Storage(folder)).map_groups(summaries, cluster.shuffle_key or "", cluster.reduce)
        result = cluster.finish("all", pa.concat_tables(shuffled))
        files = []
        for number, source in enumerate(sources):
            documents = kept = 0
            for piece, batch in enumerate(read_batches(source)):
                partition = f"{number:06d}/{piece:06d}"
                given = {"documents": _identify(batch, source), "clustered": result.files[f"{partition}.parquet"]}
                table = mark.run(partition, given).tables["duplicates"]
                keeps = pc.call_function("is_null", [table["exact_of"]])
                for level in params.similarities:
                    keeps = pc.call_function("and", [keeps, table[f"keep_sim{level}"]])
                chosen = pa.concat_tables([schema.empty_table(), batch.filter(keeps)], promote_options="permissive")
                sink.write(chosen.select(schema.names))
                if table_sink:
                    table_sink.write(table)
                documents, kept = documents + batch.num_rows, kept + chosen.num_rows
            files.append({"file": str(source), "documents": documents, "kept": kept})
    kept = sum(f["kept"] for f in files)
    told = {"out": str(out), "documents": result.metrics["documents"], "kept": kept, "files": files} | dict(result.metrics)
    return told | {"warnings": [_in_words(warning, pieces) for warning in told["warnings"]]}


def _in_words(warning: str, pieces: Mapping[str, str]) -> str:
    """A warning about a partition, with the file that it is a piece of."""
    partition = next(p for p in pieces if p in warning)
    return warning.replace(partition, pieces[partition])


def _identify(batch: pa.Table, source: Path) -> pa.Table:
    import pyarrow as pa

    from pipeline.tables import id_int
    from workflows.plain_files import as_documents

    documents = as_documents(batch, source)
    if "id_int" in documents.column_names:
        documents = documents.drop_columns("id_int")
    return documents.append_column("id_int", pa.array([id_int(i) for i in documents["id"].to_pylist()], pa.uint64()))


def _tables(batch: pa.Table, source: Path, params: Any) -> Mapping[str, pa.Table]:
    """What `cluster` reads of a batch: documents, signatures, and the signal that the keep rule compares."""
    from pipeline.minhash import MinHash
    from quality.annotate import annotate
    from quality.registry import select, unavailable
    from quality.resources import SignalResources

    documents = _identify(batch, source)
    own = params.signal is not None and params.signal in batch.column_names
    if own and not _holds_numbers(batch.schema.field(params.signal).type):
        kind = batch.schema.field(params.signal).type
        raise ValueError(f"{source}: --signal {params.signal}: the column holds {kind}, not numbers")
    signals = select([params.signal]) if params.signal and not own else []
    if missing := unavailable(signals, SignalResources().held()):
        (told,) = missing.values()
        raise ValueError(f"--signal {told}: measure it before, with `menagerie annotate --all-columns`, and give that file")
    told = annotate(documents, signals, MinHash() if params.similarities else None)
    measured = told.signals
    if own:
        measured = measured.append_column(params.signal, batch[params.signal])
    return {"documents": documents, "minhash": told.minhash, "signals": measured}


def _holds_numbers(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return any(
        holds(kind)
        for holds in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)
    )


def _print(told: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("duplicates", box=None, header_style="bold")
    for column in ("clusters", "documents", "removed", "largest"):
        table.add_column(column, justify="right")
    for name in ("exact", *(f"sim{level}" for level in _LEVELS)):
        if name in told:
            table.add_row(name, *(f"{told[name][c.header]:,}" for c in table.columns[1:]))  # type: ignore[index]
    console.print(table)
    files = Table("file", box=None, header_style="bold")
    for column in ("documents", "kept", "removed"):
        files.add_column(column, justify="right")
    total = {"file": f"together: {told['out']}", "documents": told["documents"], "kept": told["kept"]}
    for row in [*told["files"], total]:
        files.add_row(row["file"], *(f"{n:,}" for n in (row["documents"], row["kept"], row["documents"] - row["kept"])))
    console.print(files)
    for warning in told["warnings"]:
        click.echo(f"warning: {warning}", err=True)
