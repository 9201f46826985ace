"""Spans as Arrow columns: lists of `[start, end, score]` per document, or line signals in three list columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]
"""Document, start, end and score of each span, (n,), and the number of documents."""


def read_lists(column: pa.Array | pa.ChunkedArray | Sequence[Any]) -> Columns:
    """Of one list per document of `[start, end, score]`, lists or structs. ValueError on a column of another kind."""
    given: Any = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
    array: pa.Array = given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given
    told = f"spans are {array.type}: give a list of [start, end, score] per document"
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        raise ValueError(told)
    counts = _lengths(array)
    inner = array.flatten()
    document = np.repeat(np.arange(len(array)), counts)
    if pa.types.is_struct(inner.type):
        names = [inner.type.field(i).name for i in range(inner.type.num_fields)]
        if not {"start", "end"} <= set(names):
            raise ValueError(f"{told}; the structs have {', '.join(names)}")
        parts = [inner.field(n) if n in names else pa.nulls(len(inner)) for n in ("start", "end", "score")]
    elif pa.types.is_nested(inner.type):
        triples = inner.flatten()
        if inner.null_count or len(triples) != 3 * len(inner) or (_lengths(inner) != 3).any():
            raise ValueError(f"{told}; some have not three entries")
        parts = [triples.take(pa.array(np.arange(k, len(triples), 3))) for k in range(3)]
    else:
        raise ValueError(told)
    start, end, score = (np.asarray(p.cast(pa.float64()).to_numpy(zero_copy_only=False)) for p in parts)
    return document, start, end, score, len(array)


def read_lines(start: pa.Array | pa.ChunkedArray, end: pa.Array | pa.ChunkedArray, score: Any) -> Columns:
    """Of three list columns with an entry per line of each document. ValueError where they are not of the same lines."""
    arrays = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in (start, end, score)]
    counts = [_lengths(a) for a in arrays]
    scored = counts[2]
    # A document without lines may still have one document-level value (RedPajama's null): it is no span.
    wrong = (counts[0] != counts[1]) | ((scored != counts[0]) & (counts[0] > 0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"document {row} has {counts[0][row]} line starts, {counts[1][row]} ends and {scored[row]} scores: "
            "the columns are not of the same lines"
        )
    kept = np.repeat(counts[0] > 0, scored)
    values = [a.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False) for a in arrays]
    document = np.repeat(np.arange(len(arrays[0])), counts[0])
    return document, values[0], values[1], values[2][kept], len(arrays[0])


def write_lists(start: np.ndarray, end: np.ndarray, score: np.ndarray, counts: np.ndarray) -> pa.Array:
    """A list of `{start, end, score}` per document, of spans (n,) in the order of the documents, which have `counts` each."""
    offsets = pa.array(np.concatenate(([0], np.cumsum(counts))), pa.int32())
    scores = pa.array(score, pa.float64(), mask=np.isnan(score))
    inner = pa.StructArray.from_arrays([pa.array(start), pa.array(end), scores], ["start", "end", "score"])
    return pa.ListArray.from_arrays(offsets, inner)


def _lengths(array: pa.Array) -> np.ndarray:
    """Entries of each list; 0 for null."""
    import pyarrow.compute as pc

    lengths = pc.call_function("list_value_length", [array])
    return np.nan_to_num(lengths.cast(pa.float64()).to_numpy(zero_copy_only=False)).astype(np.int64)
