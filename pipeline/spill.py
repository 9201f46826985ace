"""Rows that do not fit in memory: written in runs, read back one partition at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq


class Spill:
    """Rows in `partitions` parts, below a folder of its own. Each append becomes one Parquet file, a row group per partition.

    Partition numbers come from arithmetic on the key columns, not from Polars' hash, which may change between versions:
    what is written in partition order must be the same bytes everywhere.
    """

    def __init__(self, folder: Path, partitions: int) -> None:
        self.folder, self.partitions = folder, partitions
        self._runs: list[tuple[Path, pq.FileMetaData, dict[int, int]]] = []
        folder.mkdir(parents=True)

    def append(self, rows: pl.DataFrame, keys: Sequence[str]) -> None:
        """Add rows, each to the partition of its key columns (UInt32)."""
        if rows.is_empty():
            return
        path = self.folder / f"{len(self._runs)}.parquet"
        parted = (
            rows.with_columns(_partition=_partition(keys, self.partitions)).sort("_partition") if self.partitions > 1 else rows
        )
        sizes = parted["_partition"].rle().struct.unnest().rows() if self.partitions > 1 else [(rows.height, 0)]
        table = parted.drop("_partition", strict=False).to_arrow().combine_chunks()
        groups, start = {}, 0
        with pq.ParquetWriter(path, table.schema, compression="lz4", use_dictionary=False, write_statistics=False) as writer:
            for group, (size, partition) in enumerate(sizes):
                groups[partition] = group
                writer.write_table(table.slice(start, size), row_group_size=size)
                start += size
        self._runs.append((path, pq.read_metadata(path), groups))

    def read(self, partition: int) -> pl.DataFrame | None:
        """All rows of a partition, in the order of their appends; None if there are none."""
        found = []
        for path, metadata, groups in self._runs:
            if partition in groups:
                with pq.ParquetFile(path, metadata=metadata) as file:
                    found.append(file.read_row_group(groups[partition]))
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
        self.folder.rmdir()


def _partition(keys: Sequence[str], partitions: int) -> pl.Expr:
    """Multiplicative hashing in 64 bits; the high bits of a product are its well mixed ones."""
    mixed = pl.lit(0, pl.UInt64)
    for key in keys:
        # The operands stay below 2^32, so that nothing overflows.
        mixed = ((mixed + pl.col(key).cast(pl.UInt64)) % (1 << 32)) * 2654435761 // (1 << 12) % (1 << 32)
    return (mixed // 7 % partitions).cast(pl.UInt32)
