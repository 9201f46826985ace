"""Aligned tables side by side as one Polars frame, and plain Parquet or JSONL files as the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
from polars.exceptions import PolarsError

TEXT_COLUMNS = ("raw_content", "text", "content")
"""Where plain files keep the text; the first is a corpus's own."""


def column_names(columns: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], str]:
    """What each (table, column) is called in a joined frame.

    A column keeps its name. One that two tables have goes by `<last part of the table's name>_<column>` in both of them:
    `labels/quality` and `labels/topic` together give `quality_label` and `topic_label`. ValueError if that is not unique.
    """
    times = Counter(c for names in columns.values() for c in names if c != "id")
    called = {
        (table, c): c if times[c] == 1 else f"{table.rsplit('/', 1)[-1]}_{c}"
        for table, names in columns.items()
        for c in names
        if c != "id"
    }
    twice = [name for name, count in Counter(called.values()).items() if count > 1]
    if twice:
        raise ValueError(f"tables {', '.join(columns)}: more than one column would be called {twice[0]}; leave a table out")
    return called


def join_aligned(tables: Mapping[str, pa.Table], where: str = "") -> pl.DataFrame:
    """Aligned tables as one frame: `id`, then each table's columns (see `column_names`). No rows move: the join is a zip.

    ValueError, naming both tables, if they do not hold the same ids in the same order.
    """
    at = f"{where}: " if where else ""
    called = column_names({name: table.column_names for name, table in tables.items()})
    first, *others = tables
    for name in tables:
        if "id" not in tables[name].column_names:
            raise ValueError(f"{at}{name} has no column id")
    for name in others:
        if not _ids(tables[name]).equals(_ids(tables[first])):
            raise ValueError(
                f"{at}{first} ({tables[first].num_rows} rows) and {name} ({tables[name].num_rows} rows) hold different "
                f"documents: build {name} again"
            )
    columns = {"id": tables[first]["id"]}
    columns |= {called[name, c]: table[c] for name, table in tables.items() for c in table.column_names if c != "id"}
    return to_polars(pa.table(columns))


def _ids(table: pa.Table) -> pa.ChunkedArray:
    return table["id"].cast(pa.string())  # a table that Polars made has large_string


def to_polars(table: pa.Table) -> pl.DataFrame:
    """An Arrow table as a frame, without copying what need not be."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def read_plain(path: Path) -> pl.DataFrame:
    """A Parquet or JSONL file (also .gz, .zst) with its own columns, and `id`: the file's own, else `<file name>/<row>`.

    ValueError if the file is missing, or cannot be read as what its name says.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        elif path.name.removesuffix(".gz").removesuffix(".zst").endswith((".jsonl", ".ndjson", ".json")):
            frame = pl.read_ndjson(path, infer_schema_length=None)
        else:
            raise ValueError(f"{path}: neither .parquet nor .jsonl (.gz, .zst)")
    except (PolarsError, OSError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if "id" not in frame.columns:
        ids = pl.Series("id", [f"{path.name}/{row}" for row in range(frame.height)], dtype=pl.String)
        frame = frame.select(ids, pl.all())
    return frame.with_columns(pl.col("id").cast(pl.String))


def characters(frame: pl.DataFrame, what: str) -> pl.Expr:
    """Characters per document: `length`, or counted in the text. ValueError if the frame has neither."""
    if "length" in frame.columns:
        return pl.col("length").fill_null(0).cast(pl.Int64)
    for name in TEXT_COLUMNS:
        if name in frame.columns:
            return pl.col(name).str.len_chars().fill_null(0).cast(pl.Int64)
    raise ValueError(f"{what}: no column length, nor one of {', '.join(TEXT_COLUMNS)}; there are: {', '.join(frame.columns)}")
