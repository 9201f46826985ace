"""The shuffle that is computed: a bijection for every size and key, and no visible pattern."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.permutation import permute


@given(st.integers(1, 5000), st.integers(), st.text(max_size=5))
def test_every_element_is_reached_once(n: int, seed: int, name: str) -> None:
    assert sorted(permute(np.arange(n), n, seed, name).tolist()) == list(range(n))


@given(st.integers(1, 1 << 40), st.integers(0, 1 << 62), st.integers(0, 1000))
def test_one_element_alone_goes_where_it_goes_among_others(n: int, at: int, seed: int) -> None:
    index = at % n
    alone = permute(index, n, seed)
    assert 0 <= alone < n
    assert permute(np.array([0, index, n - 1]), n, seed)[1] == alone


def test_keys_give_unrelated_orders_without_a_pattern() -> None:
    n = 4096
    one, two = permute(np.arange(n), n, 1, "web", 0), permute(np.arange(n), n, 1, "web", 1)
    # Fixed points of a random permutation, and agreements of two: Poisson of mean 1; 9 or more have probability 1e-6.
    assert (one == np.arange(n)).sum() < 9
    assert (one == two).sum() < 9
    for order in (one, two):
        for lag in (1, 2, 3, 64):
            correlation = np.corrcoef(order[:-lag], order[lag:])[0, 1]
            assert abs(correlation) < 5 / np.sqrt(n)


def test_each_element_goes_everywhere_equally_often() -> None:
    n, keys = 7, 7000
    places = np.array([permute(np.arange(n), n, key) for key in range(keys)])
    for element in range(n):
        counts = np.bincount(places[:, element], minlength=n)
        chi_square = ((counts - keys / n) ** 2 / (keys / n)).sum()
        assert chi_square < 33.1  # chi-square with 6 degrees of freedom exceeds it with probability 1e-5
