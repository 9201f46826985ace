"""The nearest voter of each labelling function in embedding space (faiss), in memory O(n·d), never n²."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Search = Literal["auto", "exact", "approximate"]

_EXACT = 1e9  # products of support points and queries of one function above which search is approximate
_BLOCK = 1 << 16
_CELLS = 1024
_PROBES = 8
_TOGETHER = 4096  # queries of a cell that are compared at once


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
    """An index over the documents on which each labelling function votes.

    support: (s, d) float32 unit rows. votes: (s, m) int8. Cosine similarity is the inner product. The exact search is faiss's
    flat index, one per function. `approximate` looks into the 8 cells of a k-means partition (faiss) that lie nearest to the
    query's own; queries of one cell are compared together, as one matrix product, which is several times as fast as going
    through an inverted file query by query. `auto` is approximate only at sizes at which the exact search takes minutes.
    """

    def __init__(self, support: np.ndarray, votes: np.ndarray, search: Search, seed: int, queries: int) -> None:
        import faiss

        largest = int((votes >= 0).sum(axis=0).max(initial=0))
        self.approximate = search == "approximate" or (search == "auto" and float(largest) * queries > _EXACT)
        self._support, self._votes = support, votes
        self._cells: Any = None
        if self.approximate:
            self._partition(faiss, seed)
            return
        self._indices = []
        for column in votes.T:
            index: Any = faiss.IndexFlatIP(support.shape[1])
            if (column >= 0).any():
                index.add(np.ascontiguousarray(support[column >= 0]))
            self._indices.append(index)

    def _partition(self, faiss: Any, seed: int) -> None:
        """Cells of the support, and the ones nearest to each."""
        support = self._support
        count = int(np.clip(2 * np.sqrt(len(support)), 1, _CELLS))
        sample = support
        if len(support) > 40 * count:
            sample = support[np.random.default_rng(seed).choice(len(support), 40 * count, replace=False)]
        means = faiss.Kmeans(support.shape[1], count, niter=8, spherical=True, seed=seed, min_points_per_centroid=1)
        means.train(np.ascontiguousarray(sample))
        centres = means.centroids
        self._cells = faiss.IndexFlatIP(support.shape[1])
        self._cells.add(centres)
        _, self._near = self._cells.search(centres, min(_PROBES, count))
        cell = self._cells.search(support, 1)[1][:, 0]
        self._members = np.split(np.argsort(cell, kind="stable"), np.cumsum(np.bincount(cell, minlength=count))[:-1])

    def nearest(self, queries: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Similarity (n, m) float32 of each query's (n, d) nearest voter per function, and that one's vote (n, m) int8.

        wanted: (n, m) bool, which are asked for; the others, and those without any voter, are -inf and -1. The vote is also -1
        where two equally near voters disagree (Liger).
        """
        similarity = np.full(wanted.shape, -np.inf, np.float32)
        vote = np.full(wanted.shape, -1, np.int8)
        if self._cells is None:
            for i, index in enumerate(self._indices):
                rows = np.flatnonzero(wanted[:, i])
                if not len(rows) or not index.ntotal:
                    continue
                cast = self._votes[:, i][self._votes[:, i] >= 0]
                found, at = index.search(np.ascontiguousarray(queries[rows]), min(2, index.ntotal))
                tied = (found[:, 0] == found[:, -1]) & (cast[at[:, 0]] != cast[at[:, -1]])
                similarity[rows, i], vote[rows, i] = found[:, 0], np.where(tied, -1, cast[at[:, 0]])
            return similarity, vote
        cell = np.concatenate([self._cells.search(queries[a : a + _BLOCK], 1)[1][:, 0] for a in range(0, len(queries), _BLOCK)])
        order = np.argsort(cell, kind="stable")
        ends = np.cumsum(np.bincount(cell, minlength=len(self._near)))
        for c in np.flatnonzero(np.diff(ends, prepend=0)):
            inside = order[ends[c - 1] if c else 0 : ends[c]]
            near = np.concatenate([self._members[v] for v in self._near[c]])
            points, cast = self._support[near], self._votes[near]
            for first in range(0, len(inside), _TOGETHER):
                rows = inside[first : first + _TOGETHER]
                asked = queries[rows]
                for i in np.flatnonzero(wanted[rows].any(axis=0)):
                    voters = cast[:, i] >= 0
                    if not voters.any():
                        continue
                    own = wanted[rows, i]
                    best, chosen = _best(asked[own] @ points[voters].T, cast[voters, i])
                    similarity[rows[own], i], vote[rows[own], i] = best, chosen
        return similarity, vote


def _best(products: np.ndarray, votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The greatest of each row, and the vote that goes with it; -1 if that is several ones' and they disagree."""
    at = products.argmax(axis=1)
    best = products[np.arange(len(products)), at]
    chosen = votes[at]
    many = np.flatnonzero(np.count_nonzero(products == best[:, None], axis=1) > 1)
    for row in many:
        if len(np.unique(votes[products[row] == best[row]])) > 1:
            chosen[row] = -1
    return best, chosen
