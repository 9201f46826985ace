"""Vote matrices: what they may hold, dense or sparse, and other libraries' conventions.

`L` is (n documents, m labelling functions): -1 abstains, classes count from 0 to k - 1 (Snorkel's convention). A sparse
matrix stores *class + 1* (MeTaL's convention), so that what it leaves out abstains.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Votes = Any
"""A numpy array (n, m), or a scipy sparse matrix of class + 1."""

ABSTAIN = -1
"""The vote that is none."""

MOST_CLASSES = 127
"""Votes are int8."""

_BLOCK = 1 << 16  # rows that are worked on at once
_BLOCK_CELLS = 1 << 24


def is_sparse(votes: Any) -> bool:
    """Whether votes are a scipy sparse matrix; scipy is not imported to find out."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and sparse.issparse(votes)


def check_k(k: Any) -> int:
    """The number of classes as an int. ValueError unless it is a whole number from 2 to 127."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 2 <= k <= MOST_CLASSES:
        raise ValueError(f"k is {k!r}: the number of classes is a whole number from 2 to {MOST_CLASSES}")
    return int(k)


def check_votes(votes: Any, k: int, functions: Sequence[str] | None = None, m: int | None = None) -> Votes:
    """Votes as int8 (n, m), or as CSR of class + 1 if they are sparse.

    k: number of classes. functions: names of the columns, for messages. m: how many columns there must be.
    ValueError names the function and the row of the first vote that is neither -1 nor a class.
    """
    m = len(functions) if functions is not None else m
    if is_sparse(votes):
        return _check_sparse(votes, k, functions, m)
    try:
        votes = np.asarray(votes)
    except ValueError as error:
        raise ValueError("votes have rows of different lengths, expected (documents, functions)") from error
    if votes.ndim != 2 or (m is not None and votes.shape[1] != m):
        raise ValueError(f"votes have shape {votes.shape}, expected (documents, {'functions' if m is None else m})")
    if votes.dtype == bool or not (np.issubdtype(votes.dtype, np.number) and np.isrealobj(votes)):
        raise ValueError(f"votes are {votes.dtype}: expected whole numbers, -1 to abstain and classes from 0 to {k - 1}")
    if np.issubdtype(votes.dtype, np.floating):
        _refuse(~np.isin(votes, np.arange(-1, k)), votes, k, functions)
    elif votes.size and (votes.min() < ABSTAIN or votes.max() >= k):
        _refuse((votes < ABSTAIN) | (votes >= k), votes, k, functions)
    return votes.astype(np.int8, copy=False)


def _check_sparse(votes: Any, k: int, functions: Sequence[str] | None, m: int | None) -> csr_array:
    from scipy.sparse import csr_array

    stored: Any = csr_array(votes)
    if m is not None and stored.shape[1] != m:
        raise ValueError(f"votes have shape {stored.shape}, expected (documents, {m})")
    wrong = np.flatnonzero(~np.isin(stored.data, np.arange(k + 1)))
    if wrong.size:
        row = int(np.searchsorted(stored.indptr, wrong[0], side="right")) - 1
        column = int(stored.indices[wrong[0]])
        raise ValueError(
            f"labelling function {_name(functions, column)} has {stored.data[wrong[0]]} on row {row}: a sparse matrix holds "
            f"class + 1, from 1 to {k}, and nothing where a function abstains"
        )
    return csr_array((stored.data.astype(np.int8), stored.indices, stored.indptr), shape=stored.shape)


def _refuse(wrong: np.ndarray, votes: np.ndarray, k: int, functions: Sequence[str] | None) -> None:
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"labelling function {_name(functions, column)} votes {votes[row, column]} on row {row}: -1 abstains, and classes "
            f"count from 0 to {k - 1}"
        )


def _name(functions: Sequence[str] | None, column: int) -> str:
    return functions[column] if functions is not None else f"in column {column}"


def dense_blocks(votes: Votes) -> Iterator[tuple[int, np.ndarray]]:
    """Checked votes in blocks of rows: the first row's number, and int8 (rows, m). Memory stays flat, also for sparse ones."""
    rows = max(64, min(_BLOCK, _BLOCK_CELLS // max(1, votes.shape[1])))
    for first in range(0, votes.shape[0], rows):
        block = votes[first : first + rows]
        yield first, block if isinstance(block, np.ndarray) else block.toarray() - np.int8(1)


def to_dense(votes: Votes) -> np.ndarray:
    """Checked votes as int8 (n, m)."""
    return votes if isinstance(votes, np.ndarray) else votes.toarray() - np.int8(1)


def to_sparse(votes: np.ndarray) -> csr_array:
    """Votes (n, m) as CSR of class + 1: what abstains takes no room."""
    from scipy.sparse import csr_array

    return csr_array(np.asarray(votes, np.int8) + np.int8(1))


def to_pm1(votes: Votes) -> np.ndarray:
    """Binary votes in FlyingSquid's convention: int8 (n, m), class 1 is +1, class 0 is -1, 0 abstains."""
    dense = to_dense(check_votes(votes, 2))
    return np.where(dense < 0, 0, 2 * dense - 1).astype(np.int8)


def from_pm1(votes: np.ndarray, functions: Sequence[str] | None = None) -> np.ndarray:
    """FlyingSquid's votes, -1, 0 (abstains) and +1, as int8 (n, m). ValueError names function and row of anything else."""
    votes = np.asarray(votes)
    if votes.ndim != 2:
        raise ValueError(f"votes have shape {votes.shape}, expected (documents, functions)")
    wrong = ~np.isin(votes, (-1, 0, 1))
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"labelling function {_name(functions, column)} votes {votes[row, column]} on row {row}: expected -1, +1, or 0 "
            "to abstain"
        )
    return np.where(votes == 0, ABSTAIN, votes > 0).astype(np.int8)
