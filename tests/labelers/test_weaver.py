from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelers.calibration import reliability_curve
from labelers.weaver import Weaver


def scored(seed: int, balance: float = 0.4, n: int = 4000, m: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Scores of very different scales: log-normal, 0/1 judges, percentages."""
    rng = np.random.default_rng(seed)
    gold = (rng.random(n) < balance).astype(int)
    scores = gold[:, None] * rng.uniform(0.3, 1.5, m) + rng.standard_normal((n, m))
    scores[:, ::3] = np.exp(2 * scores[:, ::3])
    scores[:, 1::3] = scores[:, 1::3] > 1
    scores[:, 2::3] = 100 / (1 + np.exp(-scores[:, 2::3]))
    return scores, gold


@pytest.mark.parametrize("seed", range(3))
def test_mixed_scales_come_near_a_supervised_model_and_beat_the_mean(seed: int) -> None:
    from sklearn.linear_model import LogisticRegression

    scores, gold = scored(seed)
    model = Weaver().fit(scores, 0.4)
    ours = (model.predict(scores) == gold).mean()
    scaled = model._scaled(scores)
    ceiling = LogisticRegression(max_iter=300).fit(scaled, gold).score(scaled, gold)
    mean = ((scores - scores.min(0)) / np.ptp(scores, axis=0)).mean(axis=1)
    naive = ((mean > np.quantile(mean, 0.6)) == gold).mean()
    assert ours > ceiling - 0.01 and ours > naive + 0.02
    assert np.allclose(model.predict_proba(scores).sum(axis=1), 1)


@pytest.mark.parametrize("balance", [0.2, 0.5, 0.75])
def test_the_balance_is_estimated_without_labels(balance: float) -> None:
    scores, _ = scored(5, balance, n=10_000)
    assert Weaver().fit(scores).class_balance_[1] == pytest.approx(balance, abs=0.12)


def test_a_few_labels_give_the_balance() -> None:
    scores, gold = scored(6, 0.2)
    model = Weaver().fit(scores, dev=(scores[:100], gold[:100]))
    assert model.class_balance_[1] == pytest.approx((gold[:100].sum() + 1) / 102)
    with pytest.raises(ValueError, match="gold classes"):
        Weaver().fit(scores, dev=(scores[:3], np.array([0, 1, 2])))


def test_useless_and_reversed_scores() -> None:
    scores, gold = scored(7)
    rng = np.random.default_rng(0)
    reverse = rng.standard_normal(len(gold)) - gold
    more = np.column_stack([scores, rng.random((len(gold), 2)), np.full(len(gold), 3.0), reverse, np.full(len(gold), np.nan)])
    names = [f"s{i}" for i in range(8)] + ["noise", "more noise", "constant", "reversed", "empty"]
    model = Weaver().fit(more, 0.4, functions=names)
    told = " ".join(model.notes_)
    assert all(name in told for name in ("noise", "more noise", "constant", "empty")) and "reversed" not in told
    assert model.weights_[11] < 0 and not model.kept_[[8, 9, 10, 12]].any()
    assert (model.predict(more) == gold).mean() > (Weaver().fit(scores, 0.4).predict(scores) == gold).mean() - 0.03


def test_the_same_score_twice_counts_once_and_is_told() -> None:
    scores, _ = scored(3)
    alone = Weaver().fit(scores, 0.4)
    twice = np.column_stack([scores, scores[:, 0], -2 * scores[:, 2] + 1, np.log(scores[:, 3])])
    model = Weaver().fit(twice, 0.4)
    assert model.kept_.tolist() == [True] * 8 + [False] * 3
    told = [f"{copy} is the same as {one}: they count once" for copy, one in (("s8", "s0"), ("s9", "s2"), ("s10", "s3"))]
    assert [n for n in model.notes_ if "the same as" in n] == told
    assert np.abs(model.predict_proba(twice) - alone.predict_proba(scores)).max() < 1e-9
    assert not any("the same as" in n for n in alone.notes_)


def test_missing_scores_count_as_the_middle_one() -> None:
    scores, gold = scored(8)
    scores[np.random.default_rng(1).random(scores.shape) < 0.2] = np.nan
    model = Weaver().fit(scores, 0.4)
    assert np.isfinite(model.predict_proba(scores)).all() and (model.predict(scores) == gold).mean() > 0.75


def test_the_best_candidate_of_each_query() -> None:
    scores, gold = scored(9, 0.3)
    queries = np.arange(len(gold)) // 10
    model = Weaver().fit(scores, 0.3)
    chosen = model.select(scores, queries)
    hit = np.mean([gold[row] for row in chosen.values()])
    assert len(chosen) == 400 and hit > 0.85 and all(queries[row] == q for q, row in chosen.items())
    with pytest.raises(ValueError, match="queries have shape"):
        model.select(scores, queries[1:])


def test_two_scores_cannot_be_weighed_and_it_says_so() -> None:
    scores, gold = scored(10)
    model = Weaver().fit(scores[:, [0, 2]], 0.4)
    assert any("fewer than three cannot be weighed" in n for n in model.notes_)
    assert (model.predict(scores[:, [0, 2]]) == gold).mean() > 0.6


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    scores, _ = scored(11)
    model = Weaver().fit(scores)
    model.save(tmp_path / "weaver.json")
    assert (Weaver.load(tmp_path / "weaver.json").predict_proba(scores) == model.predict_proba(scores)).all()
    (tmp_path / "other.json").write_text('{"model": "majority"}')
    with pytest.raises(ValueError, match="holds no weaver model"):
        Weaver.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        (np.array([[1.0, np.inf]]), "column 1 is infinite on row 0"),
        (np.array([1.0]), "expected numbers"),
        (np.array([["a"]]), "expected numbers"),
        (np.empty((0, 3)), "cannot be fitted on 0 documents"),
        (np.empty((3, 0)), "and 0 scores"),
    ],
)
def test_bad_scores_are_one_line(scores: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Weaver().fit(scores)


def test_bad_parameters_are_one_line() -> None:
    scores, _ = scored(12, n=100)
    for work, told in (
        (lambda: Weaver(scaling="log"), "rank, standard or none"),  # type: ignore[arg-type]
        (lambda: Weaver(least=1.0), "least is a correlation"),
        (lambda: Weaver(k=3), "weaver knows two classes"),
        (lambda: Weaver(seed=-1), "whole number from 0"),
        (lambda: Weaver().fit(scores, 1.0), "between 0 and 1"),
        (lambda: Weaver().fit(scores, "half"), "between 0 and 1"),  # type: ignore[arg-type]
        (lambda: Weaver().fit(scores, [0.5, 0.6]), "sum to 1"),
        (lambda: Weaver().fit([[1.0, 2.0], [1.0]]), "rows of different lengths"),  # type: ignore[arg-type]
        (lambda: Weaver().fit(scores, dev=scores), "dev is scores"),  # type: ignore[arg-type]
        (lambda: Weaver().fit(scores, dev=(scores[:, 1:], np.zeros(100))), r"expected \(documents, 8\)"),
        (lambda: Weaver().fit(scores).conditional_probs(), "continuous"),
        (lambda: Weaver().fit(scores, functions=["a"]), "1 names are given for 8 scores"),
        (lambda: Weaver().predict_proba(scores), "call fit first"),
        (lambda: Weaver().fit(scores).predict_proba(scores[:, 1:]), "expected"),
    ):
        with pytest.raises(ValueError, match=told):
            work()


def test_probabilities_can_be_calibrated(tmp_path: Path) -> None:
    scores, gold = scored(4)
    model = Weaver().fit(scores, 0.1)  # the wrong balance
    before = model.predict_proba(scores)
    model.calibrate(before[:500], gold[:500], "isotonic").save(tmp_path / "m")
    after = model.predict_proba(scores)
    assert reliability_curve(after, gold).error < reliability_curve(before, gold).error
    assert (Weaver.load(tmp_path / "m").predict_proba(scores) == after).all()


def test_it_has_the_interface_of_label_models() -> None:
    scores, gold = scored(13)
    model = Weaver(k=2, seed=0).fit(scores, class_balance=[0.6, 0.4])
    assert (model.predict_proba(scores) == Weaver().fit(scores, 0.4).predict_proba(scores)).all()
    told = model.score(scores, gold, ("accuracy", "coverage"))
    assert told == {"accuracy": pytest.approx((model.predict(scores) == gold).mean()), "coverage": 1.0}
    halves = [(scaled[gold == 1].mean() + scaled[gold == 0].mean()) / 2 for scaled in model._scaled(scores).T]
    alone = ((model._scaled(scores) > halves) == gold[:, None]).mean(axis=0)
    normal = [2, 5]  # judges of 0 and 1 are not
    assert model.accuracies_[normal] == pytest.approx(alone[normal], abs=0.04)
    nothing = Weaver().fit(np.ones((10, 3)), 0.5)
    assert np.isnan(nothing.accuracies_).all()
    assert (nothing.predict(np.ones((4, 3))) == -1).all() and (nothing.predict(np.ones((4, 3)), "random") >= 0).all()
