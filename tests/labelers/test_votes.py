from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labelers.votes import check_k, check_votes, dense_blocks, from_pm1, to_dense, to_pm1, to_sparse

matrices = hnp.arrays(np.int8, st.tuples(st.integers(0, 30), st.integers(0, 5)), elements=st.integers(-1, 3))


@settings(deadline=None, max_examples=60)
@given(matrices)
def test_sparse_votes_hold_class_plus_one_and_come_back(votes: np.ndarray) -> None:
    sparse = to_sparse(votes)
    assert sparse.nnz == (votes >= 0).sum()
    checked = check_votes(sparse, 4)
    assert (to_dense(checked) == votes).all()
    blocks = [block for _, block in dense_blocks(checked)]
    assert (np.concatenate(blocks) == votes).all() if len(votes) else not blocks


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.int8, (7, 3), elements=st.integers(-1, 1)))
def test_flyingsquids_convention_comes_and_goes(votes: np.ndarray) -> None:
    pm1 = to_pm1(votes)
    assert set(np.unique(pm1)) <= {-1, 0, 1}
    assert ((pm1 == 0) == (votes == -1)).all() and ((pm1 == 1) == (votes == 1)).all()
    assert (from_pm1(pm1) == votes).all()


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float64])
def test_whole_numbers_of_any_type_are_votes(dtype: type) -> None:
    votes = np.array([[-1, 0], [1, 2]], dtype)
    checked = check_votes(votes, 3)
    assert checked.dtype == np.int8 and (checked == votes).all()


@pytest.mark.parametrize(
    ("votes", "told"),
    [
        ([[0, 1], [0, 2]], "labelling function long votes 2 on row 1: -1 abstains, and classes count from 0 to 1"),
        ([[0, -2]], "labelling function long votes -2 on row 0"),
        ([[0.0, 0.5]], "labelling function long votes 0.5 on row 0"),
        ([[0.0, np.nan]], "labelling function long votes nan on row 0"),
        ([[True, False]], "votes are bool"),
        ([["a", "b"]], "votes are <U1"),
        ([[0]], r"votes have shape \(1, 1\), expected \(documents, 2\)"),
        ([0, 1], "votes have shape"),
    ],
)
def test_anything_else_is_refused_by_function_and_row(votes: list, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_votes(np.array(votes), 2, ["short", "long"])


def test_sparse_votes_are_checked_too() -> None:
    sparse = to_sparse(np.array([[0, -1], [-1, 1]]))
    with pytest.raises(ValueError, match="labelling function long has 2 on row 1: a sparse matrix holds class \\+ 1"):
        check_votes(sparse * 1, 1 + 0, ["short", "long"])
    with pytest.raises(ValueError, match=r"expected \(documents, 3\)"):
        check_votes(sparse, 2, m=3)


def test_pm1_votes_name_function_and_row() -> None:
    with pytest.raises(ValueError, match="labelling function b votes 2 on row 1: expected -1, \\+1, or 0 to abstain"):
        from_pm1(np.array([[0, 1], [1, 2]]), ["a", "b"])


@pytest.mark.parametrize("k", [1, 0, -3, 128, 2.0, True, "2", None])
def test_the_number_of_classes_is_checked(k: object) -> None:
    with pytest.raises(ValueError, match="whole number from 2 to 127"):
        check_k(k)
