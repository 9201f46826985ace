"""Rows that do not fit in memory: written in runs, read back one partition at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

_BUFFERED_ROWS = 1 << 21
"""Rows held back before a run is written: row groups of a few hundred rows would cost more to open than to read."""


class Spill:
    """Rows in `partitions` parts, below a folder of its own: Parquet files (runs) with a row group per partition.

    keys: the UInt32 columns that decide a row's partition. The number comes from arithmetic on them, not from Polars' hash,
    which may change between versions: what is written in partition order must be the same bytes everywhere.
    """

    def __init__(self, folder: Path, partitions: int, keys: Sequence[str]) -> None:
        self.folder, self.partitions, self._keys = folder, partitions, tuple(keys)
        self._runs: list[tuple[Path, pq.FileMetaData, dict[int, int]]] = []
        self._buffer: list[pl.DataFrame] = []
        folder.mkdir(parents=True)

    def append(self, rows: pl.DataFrame) -> None:
        """Add rows."""
        if rows.height:
            self._buffer.append(rows)
        if sum(held.height for held in self._buffer) >= _BUFFERED_ROWS:
            self._write()

    def read(self, partition: int, of: int | None = None) -> pl.DataFrame | None:
        """All rows of a partition, in the order of their appends; None if there are none.

        of: read as if there were only so many partitions; a divisor of their number.
        """
        self._write()
        found = []
        for path, metadata, groups in self._runs:
            wanted = [groups[p] for p in range(partition, self.partitions, of or self.partitions) if p in groups]
            if wanted:
                with pq.ParquetFile(path, metadata=metadata) as file:
                    found.append(file.read_row_groups(wanted))
        if not found:
            return None
        frame = pl.from_arrow(pa.concat_tables(found))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def clear(self) -> None:
        """Delete the files."""
        for path, _, _ in self._runs:
            path.unlink()
        self._runs.clear()
        self._buffer.clear()
        self.folder.rmdir()

    def _write(self) -> None:
        """Write what is held back, as a run."""
        if not self._buffer:
            return
        path = self.folder / f"{len(self._runs)}.parquet"
        rows = pl.concat(self._buffer)
        self._buffer.clear()
        rows = rows.with_columns(_partition=_partition(self._keys, self.partitions)).sort("_partition")
        sizes = rows["_partition"].rle().struct.unnest().rows()
        table = rows.drop("_partition").to_arrow().combine_chunks()
        groups, start = {}, 0
        with pq.ParquetWriter(path, table.schema, compression="lz4", use_dictionary=False, write_statistics=False) as writer:
            for group, (size, partition) in enumerate(sizes):
                groups[partition] = group
                writer.write_table(table.slice(start, size), row_group_size=size)
                start += size
        self._runs.append((path, pq.read_metadata(path), groups))


def _partition(keys: Sequence[str], partitions: int) -> pl.Expr:
    """Multiplicative hashing in 64 bits; the high bits of a product are its well mixed ones."""
    mixed = pl.lit(0, pl.UInt64)
    for key in keys:
        # The operands stay below 2^32, so that nothing overflows.
        mixed = ((mixed + pl.col(key).cast(pl.UInt64)) % (1 << 32)) * 2654435761 // (1 << 12) % (1 << 32)
    return (mixed // 7 % partitions).cast(pl.UInt32)
