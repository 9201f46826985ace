"""What every label model must do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labelers.metrics import measure
from labelers.models import MODELS, LabelModel, labels, load_model, model_class, save_model
from labelers.statistics import VoteStatistics
from labelers.synthetic import generate
from labelers.votes import to_sparse

DATA = generate("symmetric", 1, n=1500)
MULTICLASS = generate("multiclass", 1, n=1500)
every = pytest.mark.parametrize("name", list(MODELS))
learning = pytest.mark.parametrize("name", [n for n in MODELS if n != "majority"])
matrices = hnp.arrays(np.int8, st.tuples(st.integers(1, 25), st.integers(1, 5)), elements=st.integers(-1, 2))


def fitted(name: str, votes: np.ndarray = DATA.votes, k: int = 2, **told) -> LabelModel:
    return model_class(name)(k).fit(votes, **told)


@every
def test_probabilities_are_probabilities_and_all_models_beat_chance(name: str) -> None:
    for data in (DATA, MULTICLASS):
        model = fitted(name, data.votes, data.k)
        probabilities = model.predict_proba(data.votes)
        assert probabilities.shape == (1500, data.k) and np.isfinite(probabilities).all()
        assert np.allclose(probabilities.sum(axis=1), 1) and probabilities.min() >= 0
        assert model.score(data.votes, data.gold)["accuracy"] > (0.7 if data.k == 2 else 0.5)
        assert model.class_balance_.shape == (data.k,) and model.class_balance_.sum() == pytest.approx(1)
        assert model.accuracies_.shape == (data.votes.shape[1],)


@learning
def test_accuracies_are_near_the_truth_and_tables_are_probabilities(name: str) -> None:
    model = fitted(name)
    votes, gold = DATA.votes, DATA.gold
    truth = np.array([(votes[:, i] == gold)[votes[:, i] >= 0].mean() for i in range(votes.shape[1])])
    assert np.abs(model.accuracies_ - truth).mean() < 0.04
    tables = model.conditional_probs()
    assert tables.shape == (votes.shape[1], 3, 2) and np.allclose(tables.sum(axis=1), 1) and tables.min() >= 0
    assert np.abs(1 - tables[:, 0].mean(axis=1) - (votes >= 0).mean(axis=0)).max() < 0.05


@every
@settings(max_examples=15, deadline=None)
@given(votes=matrices)
def test_small_and_odd_votes_have_finite_probabilities(name: str, votes: np.ndarray) -> None:
    model = fitted(name, votes, 3)
    probabilities = model.predict_proba(votes)
    assert np.isfinite(probabilities).all() and np.allclose(probabilities.sum(axis=1), 1)


@every
def test_the_order_of_documents_and_functions_does_not_matter(name: str) -> None:
    votes = MULTICLASS.votes
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(len(votes)), rng.permutation(votes.shape[1])
    one = fitted(name, votes, MULTICLASS.k).predict_proba(votes)
    assert np.allclose(fitted(name, votes[rows], MULTICLASS.k).predict_proba(votes), one, atol=1e-6)
    turned = fitted(name, votes[:, columns], MULTICLASS.k)
    close = np.isclose(turned.predict_proba(votes[:, columns]), one, atol=2e-2).all(axis=1)
    assert close.mean() > 0.99  # where a fit stops depends on rounding


@every
def test_a_stream_gives_exactly_what_the_batch_gives(name: str) -> None:
    batch = fitted(name)
    stream = model_class(name)(2)
    for first in range(0, 1500, 400):
        stream.partial_fit(DATA.votes[first : first + 400])
    assert (stream.predict_proba(DATA.votes) == batch.predict_proba(DATA.votes)).all()


@pytest.mark.parametrize("name", ["majority", "flyingsquid", "matrix-completion"])
def test_models_of_moments_fit_from_statistics_alone(name: str) -> None:
    parts = [VoteStatistics.measure(DATA.votes[a : a + 500]) for a in range(0, 1500, 500)]
    merged = model_class(name)(2).fit(VoteStatistics.merge(parts))
    assert (merged.predict_proba(DATA.votes) == fitted(name).predict_proba(DATA.votes)).all()


@every
def test_sparse_votes_give_what_dense_ones_give(name: str) -> None:
    sparse = fitted(name, to_sparse(DATA.votes))
    assert (sparse.predict_proba(to_sparse(DATA.votes)) == fitted(name).predict_proba(DATA.votes)).all()


@every
def test_a_saved_model_comes_back_whole(name: str, tmp_path: Path) -> None:
    model = fitted(name, functions=[f"rule {i}" for i in range(DATA.votes.shape[1])], classes=["bad", "göod"])
    model.save(tmp_path / "model.json")
    loaded = type(model).load(tmp_path / "model.json")
    assert (loaded.predict_proba(DATA.votes) == model.predict_proba(DATA.votes)).all()
    assert loaded.functions == model.functions and loaded.classes == ("bad", "göod")
    assert loaded.notes_ == model.notes_ and np.array_equal(loaded.accuracies_, model.accuracies_, equal_nan=True)
    assert b"pickle" not in (tmp_path / "model.json").read_bytes()


def test_a_file_of_another_model_is_told(tmp_path: Path) -> None:
    fitted("majority").save(tmp_path / "m")
    with pytest.raises(ValueError, match="holds a majority model, not dawid-skene"):
        model_class("dawid-skene").load(tmp_path / "m")


@pytest.mark.parametrize("content", [b"", b"{}", b'{\n "model": "majority"', b"\x80\x04pickle", b'{\n "model": "majority"}'])
def test_what_is_no_model_is_told(content: bytes) -> None:
    with pytest.raises(ValueError, match="is no file of a label model"):
        load_model(content, "labels.json")


@pytest.mark.parametrize("name", ["weights_", "log_prior_", "class_balance_", "accuracies_"])
def test_a_file_that_lacks_an_array_is_told(name: str) -> None:
    state = json.loads(save_model(fitted("dawid-skene")))
    with pytest.raises(ValueError, match=f"labels.json is no file of a label model: KeyError: '{name}'"):
        load_model(json.dumps({n: v for n, v in state.items() if n != name}, indent=1).encode(), "labels.json")
    other = fitted("dawid-skene", DATA.votes[:, 1:])
    told = {name: getattr(other, name) if name in ("weights_", "accuracies_") else np.ones(3) / 3}
    model = fitted("dawid-skene")
    vars(model).update(told)
    with pytest.raises(ValueError, match=f"{name} has shape .* expected"):
        load_model(save_model(model), "labels.json")


@every
def test_probabilities_can_be_calibrated(name: str) -> None:
    model = fitted(name)
    before = model.predict_proba(DATA.votes)
    after = model.calibrate(before[:300], DATA.gold[:300]).predict_proba(DATA.votes)
    loss = [measure(p, p.argmax(1), DATA.gold, ("log_loss",))["log_loss"] for p in (before, after)]
    assert loss[1] < loss[0] + 0.005 and (after.argmax(1) == before.argmax(1)).mean() > 0.999
    again = load_model(save_model(model))
    assert (again.predict_proba(DATA.votes) == after).all()
    with pytest.raises(ValueError, match="calibrated already"):
        model.calibrate(after, DATA.gold)
    assert model.fit(DATA.votes).calibration_ is None
    with pytest.raises(ValueError, match="no calibration 'platt'; there are: temperature, isotonic"):
        model.calibrate(before, DATA.gold, "platt")  # type: ignore[arg-type]


def test_a_model_without_tables_says_so() -> None:
    with pytest.raises(ValueError, match="plain has no conditional probabilities"):
        type("Plain", (model_class("majority"),), {"name": "plain", "_conditional_probs": LabelModel._conditional_probs})(
            2
        ).fit(DATA.votes).conditional_probs()


@every
def test_bad_input_is_one_line(name: str) -> None:
    model = model_class(name)
    for votes, balance, told in (
        (np.empty((0, 3), np.int8), None, "no documents"),
        (np.empty((5, 0), np.int8), None, "no labelling functions"),
        (np.full((5, 3), 2, np.int8), None, "votes 2 on row 0"),
        (DATA.votes, [0.5, 0.6], "sum to 1"),
        (DATA.votes, [1.0, 0.0], "above 0"),
        (DATA.votes, [0.2, 0.3, 0.5], r"expected \(2,\)"),
        (DATA.votes, [np.nan, 1.0], "class_balance"),
        (VoteStatistics.measure(MULTICLASS.votes, k=MULTICLASS.k), None, "statistics are of"),
        (VoteStatistics.measure(np.empty((0, 3), np.int8)), None, "no documents"),
    ):
        with pytest.raises(ValueError, match=told):
            model(2).fit(votes, balance)
    with pytest.raises(ValueError, match="not fitted yet: call fit first"):
        model(2).predict_proba(DATA.votes)
    with pytest.raises(ValueError, match="not fitted yet"):
        model(2).conditional_probs()
    with pytest.raises(ValueError, match="whole number from 2 to 127"):
        model(1)
    done = fitted(name)
    with pytest.raises(ValueError, match="expected"):
        done.predict_proba(DATA.votes[:, 1:])
    with pytest.raises(ValueError, match="votes 7 on row 0"):
        done.predict_proba(np.full((1, DATA.votes.shape[1]), 7))
    assert done.predict_proba(DATA.votes[:0]).shape == (0, 2)


@every
def test_silent_functions_and_documents_without_votes_do_no_harm(name: str) -> None:
    votes = np.column_stack([DATA.votes, np.full(1500, -1, np.int8)])
    votes[:100] = -1
    model = fitted(name, votes)
    assert any("never vote" in note for note in model.notes_)
    assert np.isfinite(model.predict_proba(votes)).all()
    assert model.score(votes[100:], DATA.gold[100:])["accuracy"] > 0.7
    nothing = fitted(name, np.full((20, 4), -1, np.int8))
    assert np.allclose(nothing.predict_proba(np.full((3, 4), -1, np.int8)), 0.5, atol=0.01)


@learning
def test_a_balance_that_is_given_is_kept(name: str) -> None:
    data = generate("imbalanced", 2, n=2000)
    balance = np.bincount(data.gold) / 2000
    model = fitted(name, data.votes, class_balance=balance)
    assert np.allclose(model.class_balance_, balance)
    assert model.score(data.votes, data.gold)["accuracy"] >= balance.max() - 0.02


@learning
def test_a_flipped_function_is_below_chance(name: str) -> None:
    votes = DATA.votes.copy()
    accuracy = np.array([(c == DATA.gold)[c >= 0].mean() for c in votes.T])
    best = int(accuracy.argmax())
    votes[:, best] = np.where(votes[:, best] < 0, -1, 1 - votes[:, best])
    assert fitted(name, votes).accuracies_[best] < 0.35


def test_ties_are_broken_as_asked() -> None:
    tied = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    assert labels(tied, "abstain").tolist() == [-1, 2, -1]
    assert (labels(tied, "random") == labels(tied, "random")).all() and labels(tied, "random")[0] in (0, 1)
    assert (labels(tied, "true-random", seed=1) == labels(tied, "true-random", seed=1)).all()
    with pytest.raises(ValueError, match="abstain, random or true-random"):
        labels(tied, "first")


def test_scores_are_those_of_the_definitions() -> None:
    model = fitted("majority", np.array([[0], [1], [1], [-1]], np.int8))
    model_votes = np.array([[0], [1], [1], [-1]])
    told = model.score(model_votes, np.array([0, 1, 0, 1]), ("accuracy", "f1", "coverage"), "abstain")
    assert told == {"accuracy": 0.5, "f1": 0.5, "coverage": 0.75}
    with pytest.raises(ValueError, match="no metric recall"):
        model.score(model_votes, np.array([0, 1, 0, 1]), ("recall",))
    for gold in ([0, 1, 0], [0, 1, 0, 2], [0.5, 1, 0, 1]):
        with pytest.raises(ValueError, match="gold classes"):
            model.score(model_votes, np.array(gold))


def test_importing_labelers_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    heavy = ("scipy", "sklearn", "faiss", "torch", "ray", "numba")
    code = f"import labelers, sys; labelers.MajorityVote; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (lambda: fitted("majority", [[0, 1], [1]]), "rows of different lengths"),  # type: ignore[arg-type]
        (lambda: fitted("majority", class_balance="half"), "give 2 numbers, one share per class"),
        (lambda: fitted("majority", DATA.votes[:, :3], functions=["a", "b", "a"]), "share a name: a; each needs"),
        (lambda: model_class("auto")(2, seed=-1), "seed is -1: a whole number from 0"),
        (lambda: model_class("auto")(2, seed="x"), "seed is 'x'"),  # type: ignore[arg-type]
        (lambda: fitted("majority").predict(DATA.votes, ids=["a"]), "1 ids for 1500 documents"),
    ],
)
def test_what_is_wrong_is_one_clear_line(work: Callable, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        work()


def test_one_metric_needs_no_list() -> None:
    model = fitted("majority")
    assert model.score(DATA.votes, DATA.gold, "brier") == model.score(DATA.votes, DATA.gold, ["brier"])
