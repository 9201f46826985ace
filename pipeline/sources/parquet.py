"""Parquet files with one document per row, read batch by batch, with only the columns that a field mapping names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipeline.sources.fields import DEFAULT_FIELDS, Fields, to_document
from pipeline.sources.jsonl import name_and_stem
from pipeline.sources.parameters import Limits, SourceParams, expand
from pipeline.sources.record import Document, Reject
from pipeline.storage import open_filesystem


class ParquetParams(SourceParams):
    """Parquet files with one document per row."""

    kind: Literal["parquet"] = Field(default="parquet", description="Parquet.")
    paths: tuple[str, ...] = Field(description="Files, URLs or shell patterns, in the order of the shards.", min_length=1)
    fields: Fields = Field(default=Fields(), description="Which column holds what; `a.b` is the field `b` of the struct `a`.")
    batch_rows: int = Field(default=256, ge=1, description="Rows that are in memory as Python objects at a time.")

    def files(self) -> list[str]:
        return expand(self.paths)

    def open(self, limits: Limits) -> ParquetSource:
        return ParquetSource(self.fields, self.batch_rows, limits.max_record_bytes)


@dataclass(frozen=True)
class ParquetSource:
    """Reads Parquet files, of which each row is a document."""

    fields: Fields = DEFAULT_FIELDS
    batch_rows: int = 256
    max_bytes: int = 64 << 20

    def read(self, url: str) -> Iterator[Document | Reject]:
        """One document or reject per row.

        Reasons: those of `fields.to_document`; `corrupt_parquet`, once for a file that cannot be opened, and once per row
        that the footer promises and that cannot be decoded. ValueError if no column of `fields.text` is there.
        """
        file_name, stem = name_and_stem(url)
        filesystem, path = open_filesystem(url)
        with filesystem.open_input_file(path) as stream:
            try:
                file = pq.ParquetFile(stream)
            except (pa.ArrowInvalid, OSError) as error:
                yield Reject(stem, None, "corrupt_parquet", _one_line(error))
                return
            columns = self._columns(file.schema_arrow, url)
            number = 0
            for group in range(file.num_row_groups):
                end = number + file.metadata.row_group(group).num_rows
                try:
                    for batch in file.iter_batches(self.batch_rows, [group], columns, use_threads=False):
                        for row in _rows(batch):
                            yield to_document(row, self.fields, file_name, f"{stem}/{number}", self.max_bytes)
                            number += 1
                except (pa.ArrowException, OSError) as error:
                    detail = f"row group {group}: {_one_line(error)}"
                    for lost in range(number, end):
                        yield Reject(f"{stem}/{lost}", None, "corrupt_parquet", detail)
                number = end

    def _columns(self, schema: pa.Schema, url: str) -> list[str]:
        """The columns to read, with their whole dotted names. ValueError if none of them holds text."""
        there = [name for name in dict.fromkeys(self.fields.names()) if _has(schema, name)]
        if not set(there) & set(self.fields.text):
            raise ValueError(
                f"{url} has no column {' or '.join(self.fields.text)}; it has {', '.join(schema.names)}: "
                f"name the one with the text in fields.text"
            )
        return there


def _has(schema: pa.Schema, name: str) -> bool:
    if name in schema.names:
        return True
    head, *rest = name.split(".")
    if head not in schema.names:
        return False
    kind = schema.field(head).type
    for part in rest:
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            return False
        kind = kind.field(part).type
    return bool(rest)


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries. Strings come as bytes, since nothing in a Parquet file vouches that they are UTF-8."""
    columns = {name: _values(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    for row in range(batch.num_rows):
        yield {name: values[row] for name, values in columns.items()}


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_struct(column.type):
        children = {f.name: _values(c) for f, c in zip(column.type.fields, column.flatten(), strict=True)}
        return [{name: values[row] for name, values in children.items()} for row in range(len(column))]
    if pa.types.is_large_string(column.type) or pa.types.is_string(column.type) or pa.types.is_string_view(column.type):
        return [_text(value) for value in column.cast(pa.large_binary()).to_pylist()]
    return column.to_pylist()


def _text(value: bytes | None) -> str | bytes | None:
    """The string, or the bytes themselves where they are not UTF-8 (`to_document` says so)."""
    try:
        return value.decode() if value is not None else None
    except UnicodeDecodeError:
        return value


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
