"""Aligned tables side by side as one Polars frame, and plain Parquet or JSONL files as the same."""

from __future__ import annotations

import codecs
import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
from polars.exceptions import PolarsError

TEXT_COLUMNS = ("raw_content", "text", "content")
"""Where plain files keep the text; the first is a corpus's own."""


_SUSPECT = r"\x00|^(?:-?\d[\d.eE+-]*|true|false|\[[\s\S]*\]|\{[\s\S]*\})$"
"""What Polars makes of half a surrogate pair, and of numbers and lists in a column of strings; texts may be like that too."""


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

    Text in another guise than strings (bytes, categories) becomes strings. ValueError, naming the file and for JSONL the line,
    if the file is missing, cannot be read as what its name says, or has an id or a text that is none.
    """
    check_file(path)
    try:
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        elif path.name.removesuffix(".gz").removesuffix(".zst").endswith((".jsonl", ".ndjson", ".json")):
            frame = _read_jsonl(path)
        else:
            raise ValueError(f"{path}: neither .parquet nor .jsonl (.gz, .zst)")
    except (PolarsError, OSError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if "id" not in frame.columns:
        ids = pl.Series("id", [f"{path.name}/{row}" for row in range(frame.height)], dtype=pl.String)
        frame = frame.select(ids, pl.all())
    if frame.schema["id"].is_nested():
        raise ValueError(f"{path}: column id holds {frame.schema['id']}: ids are strings or numbers")
    if missing := frame["id"].null_count():
        raise ValueError(f"{path}: {missing} documents have no id: give them one, or drop the column")
    return _with_text(frame.with_columns(pl.col("id").cast(pl.String)), path)


def check_file(path: Path) -> None:
    """ValueError, in one clear line, if a path is no file that can be read."""
    if path.is_dir():
        raise ValueError(f"{path}: this is a folder; name the files in it")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")


def _with_text(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The frame with its text column, if it has one, as strings."""
    name = next((n for n in TEXT_COLUMNS if n in frame.columns), None)
    if name is None or (kind := frame.schema[name]) == pl.String:
        return frame
    if not isinstance(kind, pl.Categorical | pl.Enum | pl.Binary | pl.Null):
        raise ValueError(f"{path}: column {name} holds {kind}, not text: rename it, or write its text out")
    try:
        return frame.with_columns(pl.col(name).cast(pl.String))
    except PolarsError as error:
        raise ValueError(f"{path}: column {name} holds bytes that are not UTF-8") from error


def _read_jsonl(path: Path) -> pl.DataFrame:
    """All lines; the first one that is no JSON object, or whose text is none, is named."""
    try:
        frame = pl.read_ndjson(path, infer_schema_length=None)
    except (PolarsError, OSError) as error:
        raise ValueError(f"{path}: {_first_bad_line(path) or ' '.join(str(error).split())}") from error
    name = next((n for n in TEXT_COLUMNS if n in frame.columns), None)
    suspect = name is not None and frame.schema[name] == pl.String and frame[name].str.contains(_SUSPECT).any()
    if suspect and (told := _first_bad_line(path, name)):
        raise ValueError(f"{path}: {told}")
    return frame


def _first_bad_line(path: Path, text: str | None = None) -> str | None:
    """What is wrong with a JSONL file that Polars refuses, whose messages count neither lines nor bytes, or of whose column
    `text` it makes strings; None if unclear."""
    if path.suffix == ".zst":
        return None
    number = rows = 0
    kinds: dict[str, tuple[bool, int]] = {}  # whether a field holds objects, and in which line first
    mixed = None
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                rows += 1
                if number == 1 and line.startswith(codecs.BOM_UTF8):
                    return "the file begins with a byte order mark: delete its first three bytes"
                try:
                    row = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
                except UnicodeDecodeError:
                    return f"line {number} is not UTF-8"
                except json.JSONDecodeError as error:
                    return f"line {number} is not JSON: {error.msg} at character {error.colno}"
                except ValueError as error:
                    return f"line {number} is not JSON: {error}"
                if not isinstance(row, dict):
                    return f"line {number} is no JSON object"
                if text is not None and not isinstance(value := row.get(text), str | None):
                    return f"line {number}: field {text} holds {json.dumps(value)[:40]}, not text"
                if b"\\u" in line and not _is_unicode(row):
                    return f"line {number} escapes half of a surrogate pair, which is no character: replace it"
                for name, value in row.items():
                    if value is None or mixed or text is not None:  # what Polars has read, it could reconcile
                        continue
                    is_object = isinstance(value, dict)
                    before, first = kinds.setdefault(name, (is_object, number))
                    if before != is_object:
                        mixed = f"line {number}: field {name} is {'an' if is_object else 'no'} object, unlike in line {first}"
    except (OSError, EOFError) as error:
        return f"the file is damaged after line {number}: {error}"
    return mixed if rows else "the file has no lines"


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number there")


def _is_unicode(row: object) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def characters(frame: pl.DataFrame, what: str) -> pl.Expr:
    """Characters per document: `length`, or counted in the text. ValueError if the frame has neither."""
    if "length" in frame.columns:
        return pl.col("length").fill_null(0).cast(pl.Int64)
    for name in TEXT_COLUMNS:
        if name in frame.columns:
            return pl.col(name).str.len_chars().fill_null(0).cast(pl.Int64)
    raise ValueError(f"{what}: no column length, nor one of {', '.join(TEXT_COLUMNS)}; there are: {', '.join(frame.columns)}")
