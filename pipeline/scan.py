"""Aligned tables as one Polars LazyFrame: a join that is a zip, one row group at a time, on any filesystem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.io.plugins import register_io_source

if TYPE_CHECKING:
    from pipeline.corpus import Corpus


def scan(corpus: Corpus, names: Sequence[str], partitions: Sequence[str]) -> pl.LazyFrame:
    """See `Corpus.scan`."""
    if not partitions:
        raise ValueError(f"{corpus.url} has no partitions in {names[0]}: build the stage that writes it")
    owner: dict[str, str] = {}  # column -> the table that it comes from
    fields: list[pa.Field] = [pa.field("partition", pa.string())]
    for partition in partitions:
        headers = corpus.check_alignment(partition, *names)
        if owner:
            continue
        for name, header in zip(names, headers, strict=True):
            for field in header.schema:
                if field.name in owner and field.name != "id":
                    raise ValueError(f"both {owner[field.name]} and {name} have a column {field.name}: scan one of them")
                if field.name not in owner:
                    owner[field.name] = name
                    fields.append(field)
    frame = pl.from_arrow(pa.schema(fields).empty_table())
    assert isinstance(frame, pl.DataFrame)

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = with_columns if with_columns is not None else frame.columns
        left = n_rows
        for partition in partitions:
            for batch in _zip(corpus, partition, names, owner, wanted):
                if left is not None:
                    batch = batch.head(left)
                    left -= batch.height
                yield batch.filter(predicate) if predicate is not None else batch
                if left == 0:
                    return

    return register_io_source(source, schema=frame.schema, validate_schema=False, is_pure=True)


def _zip(
    corpus: Corpus, partition: str, names: Sequence[str], owner: dict[str, str], wanted: Sequence[str]
) -> Iterator[pl.DataFrame]:
    columns = {name: [c for c in wanted if owner.get(c) == name] for name in names}
    needed = [name for name in names if columns[name]] or [names[0]]
    columns[needed[0]] = columns[needed[0]] or ["id"]  # the row count must come from somewhere
    paths = [corpus.path(name, partition) for name in needed]
    files: list[pq.ParquetFile] = []
    try:
        for name, path in zip(needed, paths, strict=True):
            try:
                files.append(pq.ParquetFile(corpus.storage.open(path), page_checksum_verification=True))
            except (pa.ArrowException, OSError) as error:
                raise corpus.damaged(path, name, error) from error
        groups = {file.num_row_groups for file in files}
        assert len(groups) == 1, "aligned tables are written with one row group size"
        for group in range(groups.pop()):
            parts = []
            for file, name, path in zip(files, needed, paths, strict=True):
                try:
                    parts.append(file.read_row_group(group, columns=columns[name]).replace_schema_metadata(None))
                except (pa.ArrowException, OSError) as error:
                    raise corpus.damaged(path, name, error) from error
            merged = {c: part[c] for part in parts for c in part.column_names}
            batch = pl.from_arrow(pa.table(merged))
            assert isinstance(batch, pl.DataFrame)
            yield batch.with_columns(pl.lit(partition).alias("partition")).select(wanted)
    finally:
        for file in files:
            file.close(force=True)
