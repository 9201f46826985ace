"""FlyingSquid: the published figures, and that the defects of the published code are not ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelers.chain import Chain, lagged_pairs
from labelers.flyingsquid import FlyingSquid
from labelers.statistics import VoteStatistics
from labelers.synthetic import coin_tables, generate, votes_of

PUBLISHED = {
    "balance": "uniform", "signs": False, "clip": False, "one_sided": False, "strength": 0, "dependencies": (),
}  # fmt: skip
"""Everything that the published code lacks, switched off."""


def coins(n: int, accuracy: list[float], coverage: list[float], seed: int, balance=(0.5, 0.5)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gold = rng.choice(len(balance), n, p=balance)
    return votes_of(coin_tables(np.array(accuracy), np.array(coverage), len(balance)), gold, rng), gold


@pytest.mark.parametrize("method", ["mean", "median"])
@pytest.mark.parametrize("name", ["fs_basics", "syn_binary_sym", "tennis"])
def test_accuracies_are_the_published_ones_digit_for_digit(shared: Path, name: str, method: str) -> None:
    data = np.load(shared / "labelers" / f"{name}.npz")
    expected = json.loads((shared / "labelers" / "reference.json").read_text())[name][f"fs_triplet_{method}_uniform"]
    model = FlyingSquid(2, method=method, **PUBLISHED).fit(data["L_train"])  # type: ignore[arg-type]
    assert model.joint_accuracies_.round(5).tolist() == expected["est_acc_joint"]
    assert np.allclose(model.joint_accuracies_ / (data["L_train"] >= 0).mean(axis=0), expected["est_acc_cond"], atol=6e-6)
    probabilities, gold = model.predict_proba(data["L_test"]), data["Y_test"]
    assert (probabilities.argmax(axis=1) == gold).mean() == pytest.approx(expected["acc"], abs=5e-5)
    assert model.score(data["L_test"], gold, ("log_loss",))["log_loss"] == pytest.approx(expected["logloss"], abs=2e-4)


@pytest.mark.parametrize("m", [3, 5, 10])
def test_1_the_class_prior_counts_once(m: int) -> None:
    votes, _ = coins(4000, [0.8] * m, [0.6] * m, 0, (0.8, 0.2))
    silent = np.full((1, m), -1)
    for told in ({}, PUBLISHED):
        model = FlyingSquid(2, **told).fit(votes, [0.8, 0.2])  # type: ignore[arg-type]
        assert model.predict_proba(silent)[0] == pytest.approx([0.8, 0.2], abs=1e-9)


def test_2_a_function_worse_than_chance_is_found() -> None:
    votes, _ = coins(8000, [0.8, 0.75, 0.85, 0.166, 0.7], [0.7] * 5, 1)
    assert FlyingSquid().fit(votes).accuracies_[3] == pytest.approx(0.166, abs=0.03)
    assert FlyingSquid(2, **PUBLISHED).fit(votes).accuracies_[3] > 0.7  # type: ignore[arg-type]


def test_3_one_sided_functions_have_tables_that_can_be(shared: Path) -> None:
    data = np.load(shared / "labelers" / "tennis.npz")
    model = FlyingSquid().fit(data["L_train"])
    coverage = (data["L_train"] >= 0).mean(axis=0)
    assert (model.joint_accuracies_ <= coverage + 1e-9).all()
    assert (model.accuracies_ <= 1).all() and (model.tables_ >= 0).all() and np.allclose(model.tables_.sum(axis=1), 1)
    keywords = generate("keywords", 9, n=8000)
    model = FlyingSquid(keywords.k).fit(keywords.votes, np.bincount(keywords.gold) / 8000)
    truth = np.array([(c == keywords.gold)[c >= 0].mean() if (c >= 0).any() else np.nan for c in keywords.votes.T])
    often = (keywords.votes >= 0).sum(axis=0) > 200
    assert (model.accuracies_ <= 1).all() and np.median(np.abs(model.accuracies_ - truth)[often]) < 0.1


def test_4_functions_that_never_meet_do_not_make_ties(shared: Path) -> None:
    data = np.load(shared / "labelers" / "trec.npz")
    probabilities = FlyingSquid(6).fit(data["L_train"]).predict_proba(data["L_test"])
    covered = (data["L_test"] >= 0).any(axis=1)
    top = probabilities >= probabilities.max(axis=1, keepdims=True) - 1e-9
    assert (top.sum(axis=1) > 1)[covered].mean() < 0.05
    assert (probabilities.argmax(axis=1) == data["Y_test"]).mean() > 0.58  # the published code: .58 (mean), .17 to .53 (median)
    lonely = np.full((3000, 4), -1, np.int8)
    lonely[:, :3] = coins(3000, [0.9, 0.8, 0.7], [0.5] * 3, 2)[0]
    lonely[(lonely < 0).all(axis=1), 3] = 1  # meets nobody
    model = FlyingSquid().fit(lonely)
    assert model.accuracies_[3] == pytest.approx(0.7, abs=0.05) and any("no triplet holds f3" in n for n in model.notes_)


def test_5_a_function_has_one_accuracy_at_every_position_of_a_sequence() -> None:
    data = generate("sequence", 2, n=6000)
    chain = FlyingSquid(data.k).fit(data.votes, lengths=data.lengths)
    alone = FlyingSquid(data.k).fit(data.votes)
    assert chain.accuracies_.shape == (data.votes.shape[1],) and (chain.accuracies_ == alone.accuracies_).all()
    near = chain.predict_proba(data.votes, lengths=data.lengths).argmax(axis=1)
    assert (near == data.gold).mean() > (alone.predict_proba(data.votes).argmax(axis=1) == data.gold).mean() + 0.03


@pytest.mark.parametrize("pairs", [[("f0", "f9")], [(0, 9)], [("f0", -1)]])
def test_6_dependencies_that_cannot_be_are_refused(pairs: list) -> None:
    votes, _ = coins(100, [0.8] * 4, [1.0] * 4, 0)
    with pytest.raises(ValueError, match="which is no labelling function; there are: f0, f1, f2, f3"):
        FlyingSquid(dependencies=pairs).fit(votes)


def test_6_dependencies_that_leave_no_triplet_are_told() -> None:
    votes, _ = coins(500, [0.8] * 3, [1.0] * 3, 0)
    model = FlyingSquid(dependencies=[("f0", "f1")]).fit(votes)
    assert any("no triplet holds f0, f1, f2" in note for note in model.notes_)
    assert np.isfinite(model.predict_proba(votes)).all()


def test_7_online_updates_are_exactly_the_batch() -> None:
    data = generate("sequence", 4, n=3000)
    ends = np.cumsum(data.lengths)
    half = int(np.searchsorted(ends, 1500))
    cut = int(ends[half - 1])
    stream = FlyingSquid(data.k)
    stream.partial_fit(data.votes[:cut], lengths=data.lengths[:half]).partial_fit(data.votes[cut:], lengths=data.lengths[half:])
    batch = FlyingSquid(data.k).fit(data.votes, lengths=data.lengths)
    assert np.allclose(stream.transition_, batch.transition_)
    one, two = (m.predict_proba(data.votes, lengths=data.lengths) for m in (stream, batch))
    assert np.allclose(one, two, atol=1e-12)


def test_8_accuracies_are_there_when_nothing_abstains() -> None:
    votes, _ = coins(8000, [0.9, 0.8, 0.7, 0.6], [1.0] * 4, 3)
    model = FlyingSquid().fit(votes)
    assert model.joint_accuracies_ == pytest.approx([0.9, 0.8, 0.7, 0.6], abs=0.03)


def test_9_any_order_of_calls_works_or_says_why() -> None:
    votes, _ = coins(500, [0.8] * 4, [0.8] * 4, 4)
    with pytest.raises(ValueError, match="flyingsquid is not fitted yet: call fit first"):
        FlyingSquid().predict_proba(votes)
    for method in ("mean", "median", "weighted"):
        model = FlyingSquid(method=method)  # type: ignore[arg-type]
        first = model.fit(votes).predict_proba(votes)
        assert (model.fit(votes).predict_proba(votes) == first).all()
    with pytest.raises(ValueError, match="votes 2 on row 0"):
        FlyingSquid().fit(np.full((3, 3), 2))
    with pytest.raises(ValueError, match="mean, median or weighted"):
        FlyingSquid(method="triplet")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fitted without lengths"):
        model.predict_proba(votes, lengths=[500])


def test_10_nothing_depends_on_the_seed() -> None:
    data = generate("topics", 1, n=1500)
    one, two = (FlyingSquid(data.k, seed=s).fit(data.votes).predict_proba(data.votes) for s in (0, 7))
    assert (one == two).all()


def test_11_prediction_is_no_loop_over_documents() -> None:
    votes, _ = coins(100_000, [0.8] * 10, [0.6] * 10, 5)
    model = FlyingSquid().fit(votes[:5000])
    import cProfile
    import pstats

    profile = cProfile.Profile()
    profile.runcall(model.predict_proba, votes)
    assert pstats.Stats(profile).total_calls < 2000  # type: ignore[attr-defined]


def test_12_only_numpy_is_needed() -> None:
    import subprocess
    import sys

    code = (
        "import sys, numpy as np; from labelers import FlyingSquid\n"
        "v = np.array([[0, 0, 1], [1, 1, 1], [0, -1, 0]]); FlyingSquid().fit(v).predict_proba(v)\n"
        "print([m for m in ('pgmpy', 'networkx', 'torch', 'sklearn', 'scipy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_two_classes_are_the_binary_closed_form(seed: int) -> None:
    votes, _ = coins(800, [0.8, 0.7, 0.75, 0.9], [0.9, 0.5, 0.7, 0.6], seed)
    pm = np.where(votes < 0, 0, 2 * votes.astype(int) - 1)
    moments = pm.T @ pm / len(pm)
    strength = []
    for i in range(4):
        pairs = [(j, h) for j in range(4) for h in range(j) if i not in (j, h)]
        strength.append(np.mean([np.sqrt(abs(moments[i, j] * moments[i, h] / moments[j, h])) for j, h in pairs]))
    rho = 0.5 * (1 + np.array(strength) - (votes < 0).mean(axis=0))
    model = FlyingSquid(2, method="mean", **PUBLISHED).fit(votes)  # type: ignore[arg-type]
    assert np.allclose(model.joint_accuracies_, rho, atol=1e-12)


@pytest.mark.parametrize("declared", [[("f1", "copy")], "auto"])
def test_a_duplicate_does_not_sharpen_the_posterior_once_declared(declared: object) -> None:
    votes, _ = coins(4000, [0.8, 0.75, 0.85, 0.7, 0.65], [0.7] * 5, 6)
    doubled = np.column_stack([votes, votes[:, 1]])
    names = ["f0", "f1", "f2", "f3", "f4", "copy"]
    alone = FlyingSquid(dependencies=()).fit(votes).predict_proba(votes)
    told = FlyingSquid(dependencies=declared).fit(doubled, functions=names).predict_proba(doubled)  # type: ignore[arg-type]
    naive = FlyingSquid(dependencies=()).fit(doubled, functions=names).predict_proba(doubled)
    assert np.abs(told - alone).max() < 0.02 < np.abs(naive - alone).max()


def test_standard_errors_are_the_spread_over_data_sets() -> None:
    accuracy, coverage = [0.85, 0.75, 0.65, 0.8, 0.7], [0.9, 0.6, 0.8, 0.5, 0.7]
    models = [FlyingSquid(strength=0).fit(coins(2000, accuracy, coverage, s)[0]) for s in range(60)]
    spread = np.std([m.joint_accuracies_ / np.array(coverage) for m in models], axis=0)
    told = np.mean([m.standard_errors_ for m in models], axis=0)
    assert (told / spread > 0.6).all() and (told / spread < 1.8).all()


@pytest.mark.parametrize("k", [3, 5])
def test_many_classes_are_native(k: int) -> None:
    balance = np.random.default_rng(k).dirichlet(np.full(k, 8.0))
    accuracy, coverage = [0.8, 0.6, 0.7, 0.5, 0.75, 0.65], [0.9, 0.8, 0.6, 0.7, 0.8, 0.9]
    votes, gold = coins(20_000, accuracy, coverage, 8, tuple(balance))
    model = FlyingSquid(k).fit(votes)
    assert np.abs(model.accuracies_ - accuracy).max() < 0.06
    assert np.abs(model.class_balance_ - np.bincount(gold) / 20_000).max() < 0.05
    truth = coin_tables(np.array(accuracy), np.array(coverage), k)
    best = (np.log(balance) + sum(np.log(truth[i][votes[:, i] + 1]) for i in range(6))).argmax(axis=1)
    assert model.score(votes, gold)["accuracy"] > (best == gold).mean() - 0.01


def test_a_chain_is_what_enumerating_all_label_vectors_gives() -> None:
    rng = np.random.default_rng(0)
    chain = Chain(np.array([0.5, 0.3, 0.2]), rng.dirichlet(np.ones(3), 3))
    scores, lengths = rng.standard_normal((8, 3)), [5, 1, 2]
    told, at = chain.marginals(scores, lengths), 0
    for length in lengths:
        grids = np.stack(np.meshgrid(*[range(3)] * length, indexing="ij"), axis=-1).reshape(-1, length)
        log = np.log(chain.start[grids[:, 0]]) + sum(scores[at + t, grids[:, t]] for t in range(length))
        log = log + sum(np.log(chain.transition[grids[:, t], grids[:, t + 1]]) for t in range(length - 1))
        mass = np.exp(log - log.max())
        for t in range(length):
            by_class = np.bincount(grids[:, t], mass, 3)
            assert np.allclose(told[at + t], by_class / by_class.sum())
        at += length


def test_the_transition_is_learned_from_votes() -> None:
    data = generate("sequence", 6, n=20_000)
    model = FlyingSquid(data.k).fit(data.votes, lengths=data.lengths)
    starts = np.cumsum(data.lengths) - data.lengths
    first = np.zeros(len(data.gold), bool)
    first[starts] = True
    inner = np.flatnonzero(~first)
    truth = np.zeros((data.k, data.k))
    np.add.at(truth, (data.gold[inner - 1], data.gold[inner]), 1)
    truth /= truth.sum(axis=1, keepdims=True)
    assert np.abs(model.transition_ - truth).max() < 0.06


@pytest.mark.parametrize("lengths", [[3, 3], [0, 5], [5, 1], [2.5, 2.5]])
def test_lengths_must_fit_the_rows(lengths: list) -> None:
    with pytest.raises(ValueError, match="lengths are whole numbers from 1 that sum to the number of rows, 5"):
        lagged_pairs(np.zeros((5, 2), np.int8), 2, lengths)


def test_statistics_know_no_sequences() -> None:
    votes, _ = coins(50, [0.8] * 3, [1.0] * 3, 0)
    with pytest.raises(ValueError, match="statistics do not hold which rows are adjacent"):
        FlyingSquid().fit(VoteStatistics.measure(votes), lengths=[50])


@pytest.mark.parametrize("dependencies", [[0, 1], [(0, 1, 2)], [(1, 1)], ["ab"], "some"])
def test_dependencies_that_are_no_pairs_are_told(dependencies: Any) -> None:
    with pytest.raises(ValueError, match="give pairs of two different labelling functions"):
        FlyingSquid(dependencies=dependencies)
