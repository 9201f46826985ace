"""A corpus: aligned tables in one folder or bucket, and the receipts that say how they came to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.receipt import Receipt
from pipeline.storage import Storage, Written, join_url

if TYPE_CHECKING:
    import polars as pl

_TABLE, _VERSION, _ROWS, _DIGEST = (b"menagerie." + k for k in (b"table", b"schema_version", b"rows", b"id_digest"))

ROW_GROUP = 1 << 14
"""Rows per row group of every table; the same in all, so that aligned tables are read side by side."""


@dataclass(frozen=True)
class Header:
    """What a table file says of itself: schema, rows, schema version, and the digest of its id column (None without ids)."""

    schema: pa.Schema
    rows: int
    version: int
    id_digest: str | None


@dataclass(frozen=True)
class Corpus:
    """The corpus at `url` (local folder, `s3://`, `gs://`, or any URL that fsspec opens)."""

    url: str

    @cached_property
    def storage(self) -> Storage:
        return Storage(self.url)

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    def url_of(self, path: str) -> str:
        """A file of the corpus, for a person."""
        return join_url(self.url, path)

    # --- tables

    @staticmethod
    def path(table: str, partition: str) -> str:
        """Where a table keeps a partition, relative to the corpus."""
        return f"{table}/{partition}.parquet"

    def partitions(self, table: str, pattern: str = "*") -> list[str]:
        """The partitions of a table, sorted, whose names match a shell pattern."""
        names = (p[len(table) + 1 : -len(".parquet")] for p in self.storage.files(table, ".parquet"))
        return [n for n in names if fnmatch(n, pattern)]

    def write(self, table: str, partition: str, content: pa.Table) -> Written:
        """Write one partition of a table, atomically, with its alignment data in the Parquet metadata."""
        return self.storage.write(self.path(table, partition), encode_table(table, content))

    def read(self, table: str, partition: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One partition of a table. ValueError names the file if it is missing or is no table of this version."""
        path = self.path(table, partition)
        try:
            with self.storage.open(path) as source, pq.ParquetFile(source, page_checksum_verification=True) as file:
                _check_version(file, self.url_of(path))
                missing = [c for c in columns or () if c not in file.schema_arrow.names]
                if missing:  # Arrow itself would leave them out without a word
                    raise ValueError(
                        f"{self.url_of(path)} has no column {', '.join(missing)}; it has {', '.join(file.schema_arrow.names)}"
                    )
                return file.read(columns=list(columns) if columns is not None else None).replace_schema_metadata(None)
        except FileNotFoundError as error:
            raise ValueError(f"{self.url_of(path)} is missing: build the stage that writes {table}") from error
        except (pa.ArrowException, OSError) as error:
            raise self.damaged(path, table, error) from error

    def header(self, table: str, partition: str) -> Header:
        """The file's own account of itself, from its footer."""
        path = self.path(table, partition)
        try:
            with self.storage.open(path) as source, pq.ParquetFile(source) as file:
                metadata = _check_version(file, self.url_of(path))
                digest = metadata.get(_DIGEST)
                schema = file.schema_arrow.remove_metadata()
                return Header(schema, file.metadata.num_rows, int(metadata[_VERSION]), digest.decode() if digest else None)
        except FileNotFoundError as error:
            raise ValueError(f"{self.url_of(path)} is missing: build the stage that writes {table}") from error
        except (pa.ArrowException, OSError) as error:
            raise self.damaged(path, table, error) from error

    def damaged(self, path: str, table: str, error: Exception) -> ValueError:
        """The error to raise where a table file cannot be read."""
        told = " ".join(str(error).split())
        return ValueError(f"{self.url_of(path)} cannot be read ({told}): if it is damaged, delete it and build {table} again")

    def check_alignment(self, partition: str, *names: str) -> list[Header]:
        """The headers of aligned tables. ValueError, naming both files, if row counts or ids differ."""
        headers = [self.header(name, partition) for name in names]
        for name, header in zip(names[1:], headers[1:], strict=True):
            if (header.rows, header.id_digest) != (headers[0].rows, headers[0].id_digest):
                raise ValueError(
                    f"{self.url_of(self.path(names[0], partition))} ({headers[0].rows} rows) and "
                    f"{self.url_of(self.path(name, partition))} ({header.rows} rows) hold different documents: "
                    f"build {name} again"
                )
        return headers

    def scan(self, *names: str, partitions: Sequence[str] | None = None) -> pl.LazyFrame:
        """Aligned tables as one LazyFrame: `partition`, `id`, then each table's columns. Reads a partition at a time.

        ValueError on tables that do not align, or that share a column name. Column selection reaches the files.
        """
        from pipeline.scan import scan

        return scan(self, names, self.partitions(names[0]) if partitions is None else partitions)

    # --- receipts

    @staticmethod
    def receipt_path(stage: str, partition: str) -> str:
        return f"receipts/{stage}/{partition}.json"

    def receipt(self, stage: str, partition: str) -> Receipt | None:
        """The receipt, or None if the stage has not done this partition."""
        path = self.receipt_path(stage, partition)
        if not self.storage.exists(path):
            return None
        return self.read_receipt(path)

    def receipts(self, stage: str) -> Iterator[Receipt]:
        """A stage's receipts, in partition order."""
        for path in self.storage.files(f"receipts/{stage}", ".json"):
            yield self.read_receipt(path)

    def read_receipt(self, path: str) -> Receipt:
        """The receipt at a path below the corpus. ValueError names the file if it is damaged."""
        try:
            return Receipt.from_json(self.storage.read(path))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.url_of(path)} is no receipt ({error}): delete it, and the stage runs again") from error

    def write_receipt(self, receipt: Receipt) -> None:
        """The last write of a partition: what it names is all there."""
        self.storage.write(self.receipt_path(receipt.stage, receipt.partition), receipt.to_json())

    def intact(self, receipt: Receipt) -> bool:
        """Whether every output that the receipt names is there with its size (`menagerie verify` compares digests)."""
        from pyarrow.fs import FileType

        infos = self.storage.filesystem.get_file_info([self.storage.absolute(p) for p in receipt.outputs])
        return all(i.type == FileType.File and i.size == o.bytes for i, o in zip(infos, receipt.outputs.values(), strict=True))

    def forget(self, receipt: Receipt, keep: Sequence[str] = ()) -> None:
        """Delete a receipt's outputs (but for `keep`) and then, unless something is kept, the receipt."""
        for path in receipt.outputs:
            if path not in keep:
                self.storage.delete(path)
        if not keep:
            self.storage.delete(self.receipt_path(receipt.stage, receipt.partition))


def encode_table(table: str, content: pa.Table) -> pa.Buffer:
    """A table as the bytes of a Parquet file (zstd), the same bytes for the same rows."""
    metadata = {_TABLE: table.encode(), _VERSION: str(tables.SCHEMA_VERSION).encode(), _ROWS: str(content.num_rows).encode()}
    if "id" in content.column_names:
        metadata[_DIGEST] = tables.id_digest(content["id"]).encode()
    sink = pa.BufferOutputStream()
    # One chunk per column: the file's bytes must not depend on how the table was put together.
    table_of_one_chunk = content.combine_chunks().replace_schema_metadata(metadata)
    # Checksums, because zstd passes damaged bytes on where the data did not compress.
    pq.write_table(table_of_one_chunk, sink, compression="zstd", row_group_size=ROW_GROUP, write_page_checksum=True)
    return sink.getvalue()


def _check_version(file: pq.ParquetFile, path: str) -> dict[bytes, bytes]:
    metadata = file.schema_arrow.metadata or {}
    version = metadata.get(_VERSION)
    if version is None:
        raise ValueError(f"{path} is not a table of a corpus: it has no menagerie.schema_version in its metadata")
    if int(version) != tables.SCHEMA_VERSION:
        raise ValueError(f"{path} has schema version {int(version)}, this is {tables.SCHEMA_VERSION}: build the corpus again")
    return metadata
