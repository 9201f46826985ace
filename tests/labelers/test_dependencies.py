from __future__ import annotations

import numpy as np
import pytest

from labelers.dependencies import dependence, effective_functions, find_dependencies, vote_shares
from labelers.statistics import VoteStatistics
from labelers.synthetic import generate


def measure(votes: np.ndarray, k: int = 2) -> VoteStatistics:
    return VoteStatistics.measure(votes, k=k)


@pytest.mark.parametrize("family", ["symmetric", "asymmetric", "imbalanced", "adversarial", "multiclass"])
@pytest.mark.parametrize("seed", [20, 21])
def test_independent_functions_are_not_called_dependent(family: str, seed: int) -> None:
    data = generate(family, seed, n=4000)
    assert find_dependencies(measure(data.votes, data.k)) == []
    assert effective_functions(measure(data.votes, data.k)) == data.votes.shape[1]


@pytest.mark.parametrize("seed", range(4))
def test_near_copies_are_found_with_a_remedy(seed: int) -> None:
    data = generate("symmetric", seed + 30, n=4000)
    rng, m = np.random.default_rng(seed), data.votes.shape[1]
    other = data.votes[rng.permutation(4000), 2]
    votes = np.column_stack([data.votes, data.votes[:, 2], np.where(rng.random(4000) < 0.08, other, data.votes[:, 2])])
    found = find_dependencies(measure(votes))
    assert {(d.first, d.second) for d in found} == {("f2", f"f{m}"), ("f2", f"f{m + 1}"), (f"f{m}", f"f{m + 1}")}
    assert found[0].kind == "copy" and found[0].strength == pytest.approx(1)
    assert "drop" in found[0].remedy and f"f{m} nearly copies f2 (strength 1.00)" in str(found[0])
    assert effective_functions(measure(votes)) == pytest.approx(m, abs=0.3)
    assert vote_shares(dependence(measure(votes)))[[2, m, m + 1]] == pytest.approx([1 / 3] * 3, abs=0.03)


def test_accurate_functions_that_agree_are_no_copies() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 5000)
    votes = np.stack([np.where(rng.random(5000) < 0.97, gold, 1 - gold) for _ in range(5)], axis=1)
    assert find_dependencies(measure(votes)) == []


def test_three_functions_show_only_identical_votes() -> None:
    votes = generate("symmetric", 1, n=500).votes[:, :2]
    strength = dependence(measure(np.column_stack([votes, votes[:, 0]])))
    assert strength[0, 2] == 1 and strength.sum() == 2


def test_all_functions_the_same_amount_to_one() -> None:
    votes = np.repeat(generate("symmetric", 1, n=500).votes[:, :1], 5, axis=1)
    assert effective_functions(measure(votes)) == pytest.approx(1)
