from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labelers.majority import MajorityVote
from labelers.models import choose, load_model, model_class, save_model
from labelers.statistics import VoteStatistics

matrices = hnp.arrays(np.int8, st.tuples(st.integers(1, 30), st.just(4)), elements=st.integers(-1, 2))


def fitted(votes: np.ndarray, k: int = 3) -> MajorityVote:
    names = [f"f{i}" for i in range(votes.shape[1])]
    return MajorityVote(k).fit(VoteStatistics.measure(votes, names, [f"c{i}" for i in range(k)]))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0, 0, 1, -1], [1, 0, 0]),
        ([0, 1, -1, -1], [0.5, 0.5, 0]),
        ([0, 1, 2, -1], [1 / 3] * 3),
        ([2, 2, 1, 1], [0, 0.5, 0.5]),
        ([-1] * 4, [1 / 3] * 3),
    ],
)
def test_tied_classes_share_and_all_abstaining_is_uniform(row: list[int], expected: list[float]) -> None:
    votes = np.array([row], np.int8)
    assert fitted(votes).predict_proba(votes)[0].tolist() == expected


@given(matrices, st.permutations(range(4)))
def test_the_order_of_functions_does_not_matter(votes: np.ndarray, order: list[int]) -> None:
    probabilities = fitted(votes).predict_proba(votes)
    assert (fitted(votes[:, order]).predict_proba(votes[:, order]) == probabilities).all()
    assert np.allclose(probabilities.sum(axis=1), 1)


@given(matrices)
def test_a_fitted_model_survives_its_file(votes: np.ndarray) -> None:
    model = fitted(votes)
    loaded = load_model(save_model(model))
    assert (loaded.functions, loaded.classes) == (model.functions, model.classes)
    assert (loaded.predict_proba(votes) == model.predict_proba(votes)).all()
    assert loaded.class_balance_.sum() == pytest.approx(1)


@given(matrices)
def test_only_clear_majorities_are_labelled_unless_ties_are_broken(votes: np.ndarray) -> None:
    probabilities, cast = fitted(votes).predict_proba(votes), (votes >= 0).sum(axis=1)
    ids = [f"d/{i}" for i in range(len(votes))]
    kept, broken = (choose(probabilities, cast, ids, how) for how in ("abstain", "random"))
    assert (choose(probabilities, cast, ids, "random") == broken).all()
    for p, n, k, b in zip(probabilities, cast, kept, broken, strict=True):
        clear = n > 0 and (p == p.max()).sum() == 1
        assert (k >= 0) == clear
        assert (b >= 0) == (n > 0)
        assert not clear or k == b == p.argmax()
        assert b < 0 or p[b] == p.max()


def test_broken_ties_fall_evenly() -> None:
    n = 4000
    probabilities = np.tile([0.5, 0.5, 0.0], (n, 1))
    chosen = choose(probabilities, np.full(n, 2), [f"d/{i}" for i in range(n)], "random")
    assert abs((chosen == 0).sum() - n / 2) < 4 * (n / 4) ** 0.5 and set(chosen.tolist()) == {0, 1}


@pytest.mark.parametrize("name", ["fs_basics", "syn_binary_sym", "tennis", "trec"])
def test_accuracy_is_that_of_snorkels_majority_vote(shared: Path, name: str) -> None:
    data = np.load(shared / "labelers" / f"{name}.npz")
    votes, gold = data["L_test"], data["Y_test"]
    expected = json.loads((shared / "labelers" / "reference.json").read_text())[name]["majority_snorkel"]
    probabilities = fitted(votes, int(data["k"])).predict_proba(votes)
    assert (probabilities.argmax(axis=1) == gold).mean() == pytest.approx(expected["acc"], abs=5e-5)
    assert probabilities[np.arange(len(gold)), gold].mean() == pytest.approx(expected["acc_tie"], abs=5e-5)


def test_an_unknown_model_is_told_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no label model best; there are: .*majority"):
        model_class("best")
