from __future__ import annotations

import json

import numpy as np
import pytest

from labelers.balance import balance_from_accuracies, estimate_balance
from labelers.calibration import (
    Calibrated,
    Isotonic,
    Temperature,
    cross_calibrated,
    judged,
    reliability_curve,
    tell_reliability,
)
from labelers.metrics import measure
from labelers.statistics import VoteStatistics
from labelers.synthetic import coin_tables, votes_of


def overconfident(n: int, seed: int, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities three times as sure, in logarithms, as they should be."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet(np.ones(k), n)
    gold = (rng.random(n)[:, None] > true.cumsum(axis=1)).sum(axis=1)
    sharp = true**3
    return sharp / sharp.sum(axis=1, keepdims=True), gold


def test_the_reliability_curve_is_counted_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.95, 0.05], [0.4, 0.6], [0.45, 0.55]])
    curve = reliability_curve(probabilities, np.array([0, 1, 1, 0]), bins=2)
    assert curve.documents.tolist() == [2, 2] and curve.accuracy.tolist() == [0.5, 0.5]
    assert curve.confidence == pytest.approx([0.575, 0.925]) and curve.error == pytest.approx((0.075 + 0.425) / 2)


def test_the_effect_of_calibration_is_told_on_documents_that_it_did_not_see() -> None:
    rng = np.random.default_rng(0)
    noise = rng.dirichlet(np.ones(2), 60)  # says nothing: isotonic regression fits it all the same
    gold = rng.integers(0, 2, 60)
    seen = Isotonic().fit(noise, gold).apply(noise)
    unseen = cross_calibrated(noise, gold, "isotonic")
    assert (seen.argmax(1) == gold).mean() > (unseen.argmax(1) == gold).mean() + 0.05
    assert np.allclose(unseen.sum(axis=1), 1) and (cross_calibrated(noise[:1], gold[:1], "isotonic") == noise[:1]).all()


def test_reliability_is_told_in_a_line() -> None:
    probabilities, gold = overconfident(400, 0)
    model = Calibrated()
    found, told, warnings = judged(model, probabilities, gold, "temperature")
    assert told["error"] < told["error_before"] and told["log_loss"] < told["log_loss_before"] and not warnings
    assert sum(told["documents"]) == 400 and model.calibration_ is not None and found.shape == probabilities.shape
    line = tell_reliability(json.loads(json.dumps(told)))
    assert line.startswith("reliability, sure / right: ") and "by temperature, on documents not calibrated on" in line
    found, told, _ = judged(Calibrated(), probabilities, gold, None)
    assert found is probabilities and tell_reliability(told).endswith(f"calibration error {told['error']:.3f}")
    assert "few for isotonic" in judged(Calibrated(), probabilities[:50], gold[:50], "isotonic")[2][0]


def test_a_temperature_mends_overconfidence() -> None:
    probabilities, gold = overconfident(1000, 0)
    held_out, truth = overconfident(4000, 1)
    model = Temperature().fit(probabilities, gold)
    assert model.temperature == pytest.approx(3, rel=0.15)
    mended = model.apply(held_out)
    assert (mended.argmax(axis=1) == held_out.argmax(axis=1)).all() and np.allclose(mended.sum(axis=1), 1)
    assert reliability_curve(mended, truth).error < 0.03 < reliability_curve(held_out, truth).error
    again = Temperature.from_state(json.loads(json.dumps(model.to_state())))
    assert (again.apply(held_out) == mended).all()


def test_a_bias_mends_a_wrong_balance() -> None:
    rng = np.random.default_rng(2)
    gold = (rng.random(3000) < 0.1).astype(int)
    odds = np.where(gold == 1, 1.0, -1.0) + rng.standard_normal(3000)  # of an even balance
    positive = 1 / (1 + np.exp(-2 * odds))
    probabilities = np.stack([1 - positive, positive], axis=1)
    model = Temperature(bias=True).fit(probabilities[:500], gold[:500])
    before, after = ((p[500:].argmax(axis=1) == gold[500:]).mean() for p in (probabilities, model.apply(probabilities)))
    assert after > before + 0.05


def test_isotonic_regression_mends_any_monotone_distortion() -> None:
    probabilities, gold = overconfident(2000, 3)
    held_out, truth = overconfident(4000, 4)
    model = Isotonic().fit(probabilities, gold)
    mended = model.apply(held_out)
    losses = [measure(p, p.argmax(axis=1), truth, ("log_loss",))["log_loss"] for p in (np.clip(mended, 1e-3, 1), held_out)]
    assert losses[0] < losses[1] and reliability_curve(mended, truth).error < 0.04
    again = Isotonic.from_state(json.loads(json.dumps(model.to_state())))
    assert np.allclose(again.apply(held_out), mended)


def test_a_handful_of_labels_does_no_harm() -> None:
    probabilities, gold = overconfident(3, 5)
    assert 0.3 < Temperature().fit(probabilities, gold).temperature < 6


@pytest.mark.parametrize("kind", [Temperature, Isotonic])
def test_bad_input_is_one_line(kind: type) -> None:
    for probabilities, gold, told in (
        (np.empty((0, 2)), np.empty(0, int), "needs labelled documents"),
        (np.array([[np.nan, 1.0]]), np.array([0]), "finite"),
        (np.array([[0.5, 0.5]]), np.array([2]), "gold classes"),
        (np.array([[0.5, 0.5]]), np.array([0, 1]), "gold classes have shape"),
    ):
        with pytest.raises(ValueError, match=told):
            kind().fit(probabilities, gold)
    with pytest.raises(ValueError, match="call fit first"):
        Isotonic().apply(np.array([[0.5, 0.5]]))


@pytest.mark.parametrize("balance", [[0.5, 0.5], [0.85, 0.15], [0.6, 0.3, 0.1]])
def test_the_class_balance_is_estimated_from_statistics(balance: list[float]) -> None:
    rng, k = np.random.default_rng(6), len(balance)
    gold = rng.choice(k, 20_000, p=balance)
    accuracy = np.array([0.8, 0.7, 0.75, 0.65, 0.6])
    votes = votes_of(coin_tables(accuracy, np.array([0.9, 0.6, 0.5, 0.8, 0.7]), k), gold, rng)
    statistics = VoteStatistics.measure(votes, k=k)
    assert balance_from_accuracies(statistics, accuracy) == pytest.approx(balance, abs=0.02)
    assert estimate_balance(statistics) == pytest.approx(balance, abs=0.05)


def test_nothing_known_is_an_even_balance() -> None:
    statistics = VoteStatistics.measure(np.full((5, 3), -1), k=2)
    assert balance_from_accuracies(statistics, np.full(3, np.nan)).tolist() == [0.5, 0.5]
