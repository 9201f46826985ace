"""A uniform sample of documents that merges exactly: those whose ids hash lowest, however the corpus is cut into partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import xxhash

KEY = "key"


def lowest(ids: Sequence[str], size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the `size` ids that hash lowest, and their hashes, both in the order of the hashes."""
    keys = np.fromiter((xxhash.xxh3_64_intdigest(i.encode(), seed) for i in ids), np.uint64, len(ids))
    rows = np.argsort(keys, kind="stable")[:size]
    return rows, keys[rows]


def sample(ids: Sequence[str], columns: Mapping[str, pa.Array | pa.ChunkedArray], size: int, seed: int = 0) -> pa.Table:
    """The sampled rows of columns that belong to ids: `key`, `id`, then the columns."""
    rows, keys = lowest(ids, size, seed)
    taken = pa.array(rows)
    chosen = {name: column.take(taken) for name, column in columns.items()}
    return pa.table({KEY: pa.array(keys, pa.uint64()), "id": pa.array([ids[i] for i in rows.tolist()], pa.string()), **chosen})


def merge(samples: Sequence[pa.Table], size: int) -> pa.Table:
    """The sample of all their documents together. Associative: what one leaves out, none that holds it can keep."""
    rows = pa.concat_tables(samples)
    order = np.argsort(rows[KEY].to_numpy(), kind="stable")[:size]
    return rows.take(pa.array(order))


def texts_of(column: pa.Array | pa.ChunkedArray, characters: int) -> pa.Array:
    """Texts cut to a number of characters; null becomes empty."""
    import pyarrow.compute as pc

    cut = pc.call_function("utf8_slice_codeunits", [column], pc.SliceOptions(0, characters))
    filled = pc.call_function("coalesce", [cut, pa.scalar("", cut.type)])
    return filled.combine_chunks() if isinstance(filled, pa.ChunkedArray) else filled
