"""The nearest voter of each labelling function in embedding space (faiss), in memory O(n·d), never n²."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

Search = Literal["auto", "exact", "approximate"]

_EXACT = 2e10  # products of support points and queries of one function above which search is approximate
_BLOCK = 1 << 16
_PROBES = 8


def unit_rows(embeddings: Any, n: int, what: str, d: int | None = None) -> np.ndarray:
    """Embeddings (n, d) as float32 rows of length one. ValueError: not (n, d), a row of zeros, or one that is not finite."""
    rows = np.asarray(embeddings)
    if rows.ndim != 2 or len(rows) != n:
        raise ValueError(f"{what} have shape {rows.shape}, expected ({n}, dimensions): one embedding per document")
    if d is not None and rows.shape[1] != d:
        raise ValueError(f"{what} have {rows.shape[1]} dimensions, and those that the model was fitted on have {d}")
    if not np.issubdtype(rows.dtype, np.floating):
        raise ValueError(f"{what} are {rows.dtype}: expected floats")
    out = np.empty(rows.shape, np.float32)
    for first in range(0, n, _BLOCK):
        block = rows[first : first + _BLOCK].astype(np.float32)
        length = np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64))
        wrong = np.flatnonzero(~(np.isfinite(length) & (length > 0)))
        if wrong.size:
            row = first + int(wrong[0])
            bad = "zeros, which lie nowhere" if length[wrong[0]] == 0 else "not finite"
            raise ValueError(f"{what}: row {row} is {bad}: drop the document, or give it an embedding")
        out[first : first + len(block)] = block / length[:, None].astype(np.float32)
    return out


class NearestVoters:
    """An index per labelling function over the documents on which it votes.

    support: (s, d) float32 unit rows. votes: (s, m) int8. Cosine similarity is the inner product. `approximate` looks into the
    nearest 8 of the cells of an inverted file (faiss IndexIVFFlat) that all functions share; `auto` does so only for sizes at
    which the exact search would take minutes.
    """

    def __init__(self, support: np.ndarray, votes: np.ndarray, search: Search, seed: int, queries: int) -> None:
        import faiss

        d = support.shape[1]
        largest = int((votes >= 0).sum(axis=0).max(initial=0))
        self.approximate = search == "approximate" or (search == "auto" and float(largest) * queries > _EXACT)
        self.votes = [column[column >= 0] for column in votes.T]
        self._quantizer = None
        if self.approximate:
            cells = int(np.clip(2 * np.sqrt(len(support)), 1, 1024))
            sample = support
            if len(support) > 40 * cells:
                sample = support[np.random.default_rng(seed).choice(len(support), 40 * cells, replace=False)]
            means = faiss.Kmeans(d, cells, niter=8, spherical=True, seed=seed, min_points_per_centroid=1)
            means.train(np.ascontiguousarray(sample))
            self._quantizer = faiss.IndexFlatIP(d)
            centres = means.centroids
            assert centres is not None
            self._quantizer.add(centres)
            self.probes = min(_PROBES, cells)
        self._indices = [self._index(faiss, np.ascontiguousarray(support[column >= 0])) for column in votes.T]

    def _index(self, faiss: Any, own: np.ndarray) -> Any:
        d = own.shape[1]
        if self._quantizer is None:
            index = faiss.IndexFlatIP(d)
        else:
            index = faiss.IndexIVFFlat(self._quantizer, d, self._quantizer.ntotal, faiss.METRIC_INNER_PRODUCT)
            index.own_fields = False  # the quantizer is shared
            index.nprobe = self.probes
        if len(own):
            index.add(own)
        return index

    def nearest(self, queries: np.ndarray, wanted: np.ndarray, skip_self: bool = False) -> Iterator[tuple[int, Any, Any, Any]]:
        """For each function: its number, the rows (int) of queries (n, d) that it is asked about (`wanted` (n, m) bool), the
        similarity (r,) of its nearest voter, and that one's vote (r,) int8, -1 where two equally near ones disagree (Liger) or
        there is none. skip_self: the queries are support points, which do not count as their own neighbours."""
        cells = None
        if self._quantizer is not None:
            cells = self._quantizer.search(queries, self.probes)
        for i, (index, votes) in enumerate(zip(self._indices, self.votes, strict=True)):
            rows = np.flatnonzero(wanted[:, i])
            depth = 3 if skip_self else 2
            if not len(rows) or not len(votes):
                yield i, rows, np.full(len(rows), -np.inf, np.float32), np.full(len(rows), -1, np.int8)
                continue
            asked = np.ascontiguousarray(queries[rows])
            if cells is None:
                similarity, at = index.search(asked, depth)
            else:
                # The wrapper of older faiss releases takes cells before distances by position.
                similarity, at = index.search_preassigned(asked, depth, cells[1][rows], cells[0][rows])
            if skip_self:
                similarity, at = similarity[:, 1:], at[:, 1:]
            found = np.where(at >= 0, votes[np.maximum(at, 0)], -1)
            similarity = np.where(at >= 0, similarity, -np.inf)
            tied = (similarity[:, 0] == similarity[:, 1]) & (found[:, 0] != found[:, 1])
            yield i, rows, similarity[:, 0], np.where(tied, -1, found[:, 0]).astype(np.int8)
