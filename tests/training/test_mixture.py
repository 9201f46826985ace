"""The order of components: exact weights at every prefix, whatever the weights do, from the position alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from training import mixture
from training.mixture import Mixture

WEIGHT = st.one_of(st.just(0.0), st.floats(1e-7, 1e7), st.sampled_from([1.0, 2.0, 1 / 3, 1e-4]))


@st.composite
def phases(draw: Any) -> list[tuple[int, dict[str, float]]]:
    names = [f"c{i}" for i in range(draw(st.integers(1, 9)))]
    weights = st.fixed_dictionaries(dict.fromkeys(names, WEIGHT)).filter(lambda w: any(v > 0 for v in w.values()))
    starts = sorted(draw(st.sets(st.integers(1, 1500), max_size=4)))
    return [(start, draw(weights)) for start in [0, *starts]]


@settings(deadline=None)
@given(phases())
@example([(0, {"c0": 393217.0, "c1": 1.2e-7, "c2": 1.2e-7, "c3": 1.2e-7})])  # three weights of less than the smallest share
def test_every_prefix_is_within_one_sequence_of_its_target(given_phases: list[tuple[int, dict[str, float]]]) -> None:
    order, n = Mixture(given_phases), 2000
    components, ranks = order.components(0, n)
    counts = (components[:, None] == np.arange(len(order.names))).cumsum(axis=0)
    targets = np.zeros(len(order.names))
    starts = [start for start, _ in given_phases]
    shares = [np.array([w[name] for name in order.names]) / sum(w.values()) for _, w in given_phases]
    phase = np.searchsorted(starts, np.arange(n), side="right") - 1
    targets = np.cumsum(np.array(shares)[phase], axis=0)  # worked out afresh from the weights
    assert np.abs(counts - targets).max() < 1 + 1e-6
    for k in range(len(order.names)):  # no sequence of a component is repeated or left out when weights change
        assert ranks[components == k].tolist() == list(range(counts[-1, k]))


@settings(deadline=None)
@given(phases(), st.integers(0, 1999), st.integers(0, 300), st.sampled_from([1, 7, 64, 1 << 14]))
def test_any_position_is_answered_alone_as_in_order(
    given_phases: list[tuple[int, dict[str, float]]], start: int, length: int, block: int
) -> None:
    components, ranks = Mixture(given_phases).components(0, 2300)
    original, mixture._BLOCK = mixture._BLOCK, block
    try:
        other = Mixture(given_phases)
        there, ranks_there = other.components(start, start + length)
        counts = other.counts(start)
        resumed = Mixture(given_phases)
        resumed.remember(start, dict(zip(other.names, counts, strict=True)))
        after, ranks_after = resumed.components(start, start + length)
    finally:
        mixture._BLOCK = original
    assert there.tolist() == after.tolist() == components[start : start + length].tolist()
    assert ranks_there.tolist() == ranks_after.tolist() == ranks[start : start + length].tolist()
    assert list(counts) == np.bincount(components[:start], minlength=len(counts)).tolist()


def test_a_rare_component_comes_when_it_is_due() -> None:
    order = Mixture([(0, {"web": 999_999.0, "rare": 1.0})])
    assert order.counts(2_000_000) == (1_999_998, 2)


def test_counts_of_other_weights_are_refused() -> None:
    order = Mixture([(0, {"web": 3.0, "code": 1.0})])
    order.remember(400, {"web": 300, "code": 100})
    for wrong in ({"web": 200, "code": 200}, {"web": 301, "code": 100}, {"web": 300, "code": 100, "books": 0}):
        with pytest.raises(ValueError, match="cannot be this mixture's counts"):
            order.remember(400, wrong)
