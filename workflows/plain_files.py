"""Plain Parquet and JSONL files, for the verbs that work without a corpus: read in batches, written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.frames import TEXT_COLUMNS, check_file, read_plain

BATCH_BYTES = 1 << 26
"""About how much uncompressed Parquet is in memory at a time."""


def read_batches(path: Path) -> Iterator[pa.Table]:
    """The documents of a file, in order: its own columns, and `id` (the file's own as strings, else `<file name>/<row>`).

    A Parquet file is read in pieces, a JSONL file whole. At least one table comes, if without rows. ValueError, naming the
    file, if it cannot be read, an id is null, or there is no text: one of the columns `raw_content`, `text`, `content`.
    """
    check_file(path)
    batches = _parquet(path) if path.suffix == ".parquet" else iter([_arrow(read_plain(path))])
    row = 0
    for batch in batches:
        if not set(TEXT_COLUMNS) & set(batch.column_names):
            raise ValueError(f"{path}: no column {' or '.join(TEXT_COLUMNS)}; there is {', '.join(batch.column_names)}")
        if batch["id"].null_count:
            raise ValueError(f"{path}: {batch['id'].null_count} documents have no id: give them one, or drop the column")
        yield _with_text(batch, path, row)
        row += batch.num_rows


def as_documents(batch: pa.Table, path: Path) -> pa.Table:
    """A batch of a file with its text under the name `raw_content`, for signals and signatures; null text becomes empty.

    ValueError, naming the file, if its language or site is a list or another value of several parts.
    """
    name = next(n for n in TEXT_COLUMNS if n in batch.column_names)
    for column in ("language", "source_domain"):
        if column in batch.column_names and pa.types.is_nested(kind := batch.schema.field(column).type):
            raise ValueError(f"{path}: column {column} holds {kind}, not text: rename it, or write its text out")
    others = [n for n in batch.column_names if n not in TEXT_COLUMNS]
    return batch.select(others).append_column("raw_content", batch[name].cast(pa.large_string()).fill_null(""))


def check_outputs(inputs: Iterable[str | Path], *outputs: Path | None) -> None:
    """ValueError if an output would replace an input or another output, or has a name that no Sink writes to."""
    taken = {Path(each).resolve(): "an input" for each in inputs}
    for output in outputs:
        if output is None:
            continue
        if output.suffix not in (".parquet", ".jsonl"):
            raise ValueError(f"{output}: write to a name that ends in .parquet or .jsonl")
        if output.is_dir():
            raise ValueError(f"{output}: this is a folder; name a file")
        if output.resolve() in taken:
            raise ValueError(f"{output} is {taken[output.resolve()]} too, which would be lost: write to another file")
        taken[output.resolve()] = "another output"


class Sink:
    """A Parquet or JSONL file (by its suffix) that appears when the `with` block ends without an error."""

    def __init__(self, path: Path) -> None:
        if path.suffix not in (".parquet", ".jsonl"):
            raise ValueError(f"{path}: write to a name that ends in .parquet or .jsonl")
        self.path = path
        self._beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        self._parquet: pq.ParquetWriter | None = None

    def __enter__(self) -> Sink:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._beside.open("wb")
        return self

    def write(self, table: pa.Table) -> None:
        """Append rows. All tables have the columns of the first."""
        if self.path.suffix == ".jsonl":
            frame = pl.from_arrow(table)
            assert isinstance(frame, pl.DataFrame)
            frame.write_ndjson(self._file)
            return
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._file, table.schema, compression="zstd")
        self._parquet.write_table(table.cast(self._parquet.schema))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._parquet is not None:
                self._parquet.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                self._beside.replace(self.path)
        finally:
            self._file.close()
            self._beside.unlink(missing_ok=True)


def _parquet(path: Path) -> Iterator[pa.Table]:
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{path}: more than one column is called {twice[0]}")
            if "id" in names and pa.types.is_nested(kind := file.schema_arrow.field("id").type):
                raise ValueError(f"{path}: column id holds {kind}: ids are strings or numbers")
            for group in range(file.num_row_groups):
                told = file.metadata.row_group(group)
                rows = max(1, told.num_rows * BATCH_BYTES // max(told.total_byte_size, 1))
                for batch in file.iter_batches(min(rows, 1 << 20), [group]):
                    yield _identified(pa.Table.from_batches([batch]), path.name, row)
                    row += batch.num_rows
            if row == 0:
                yield _identified(file.schema_arrow.empty_table(), path.name, 0)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def _identified(table: pa.Table, name: str, first: int) -> pa.Table:
    table = table.replace_schema_metadata(None)
    if "id" not in table.column_names:
        ids = pa.array([f"{name}/{row}" for row in range(first, first + table.num_rows)], pa.string())
        return table.add_column(0, "id", ids)
    position = table.column_names.index("id")
    return table.set_column(position, "id", table["id"].cast(pa.string()))


def _with_text(batch: pa.Table, path: Path, first: int) -> pa.Table:
    """The batch with its text as strings. first: the row of the file that it begins with."""
    name = next(n for n in TEXT_COLUMNS if n in batch.column_names)
    kind = batch.schema.field(name).type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        try:
            batch[name].validate(full=True)
        except pa.ArrowInvalid as error:
            raise _not_utf8(batch[name], path, name, first) from error
        return batch
    whole = kind.value_type if pa.types.is_dictionary(kind) else kind
    likes = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if not any(like(whole) for like in (*likes, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)):
        raise ValueError(f"{path}: column {name} holds {kind}, not text: rename it, or write its text out")
    try:
        return batch.set_column(batch.column_names.index(name), name, batch[name].cast(pa.large_string()))
    except pa.ArrowInvalid as error:
        raise _not_utf8(batch[name], path, name, first) from error


def _not_utf8(column: pa.ChunkedArray, path: Path, name: str, first: int) -> ValueError:
    rows = column.cast(pa.large_binary()).to_pylist()
    bad = next(row for row, value in enumerate(rows, first) if value is not None and not _is_utf8(value))
    return ValueError(f"{path}: row {bad} of column {name} is not UTF-8: decode it before, with its own charset")


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _arrow(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())
