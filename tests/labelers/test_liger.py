from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelers.auto import AutoLabelModel
from labelers.liger import Liger
from labelers.neighbours import NearestVoters, unit_rows
from labelers.statistics import VoteStatistics


def smooth(seed: int, n: int = 2000, d: int = 16) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """k, votes, embeddings and classes of documents in clumps: near ones have one class and the same errors."""
    rng = np.random.default_rng(seed)
    clumps, k, m = 20, 2 + seed % 3, 8
    centres = 1.2 * rng.standard_normal((clumps, d))
    clump = rng.integers(clumps, size=n)
    classes = rng.integers(k, size=clumps)
    gold = np.where(rng.random(n) < 0.95, classes[clump], rng.integers(k, size=n))
    embeddings = centres[clump] + rng.standard_normal((n, d))
    votes = np.full((n, m), -1, np.int8)
    for i in range(m):
        accuracy, coverage = rng.uniform(0.5, 0.95, clumps), np.clip(0.12 * rng.gamma(1, 1, clumps), 0, 1)
        fires = rng.random(n) < coverage[clump]
        vote = np.where(rng.random(n) < accuracy[clump], gold, rng.integers(k, size=n))
        votes[fires, i] = vote[fires]
    return k, votes, embeddings, gold


def by_loop(votes: np.ndarray, points: np.ndarray, support: np.ndarray, cast: np.ndarray, radius: float) -> np.ndarray:
    """Liger's first step by its definition, on unit rows."""
    out = votes.copy()
    for n, i in np.argwhere(votes < 0):
        voters = np.flatnonzero(cast[:, i] >= 0)
        if not len(voters):
            continue
        near = support[voters] @ points[n]
        best = near.max()
        at_best = set(cast[voters[near == best], i].tolist())
        if best > radius and len(at_best) == 1:
            out[n, i] = at_best.pop()
    return out


def test_votes_are_extended_as_defined() -> None:
    k, votes, embeddings, _ = smooth(1, n=300)
    model = Liger(k, radius=0.6).fit(votes, embeddings=embeddings)
    support = unit_rows(model.support_, len(model.support_), "support")
    points = unit_rows(embeddings, 300, "embeddings")
    expected = by_loop(votes, points, support, model.support_votes_, 0.6)
    extended = model.extend(votes, embeddings)
    assert (extended == expected).all() and ((extended >= 0).sum() > 1.3 * (votes >= 0).sum())
    assert (extended[votes >= 0] == votes[votes >= 0]).all()


def test_two_voters_equally_near_that_disagree_abstain() -> None:
    embeddings = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    votes = np.array([[0, 1, 1], [1, 1, -1], [-1, -1, 0], [0, -1, 1]], np.int8)
    extended = Liger(radius=0.5).fit(votes, embeddings=embeddings).extend(votes, embeddings)
    assert extended[2].tolist() == [-1, 1, 0] and extended[3].tolist() == [0, -1, 1]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_better_than_the_votes_alone_without_labels(seed: int) -> None:
    k, votes, embeddings, gold = smooth(seed)
    train, test = slice(0, 1500), slice(1500, None)
    model = Liger(k).fit(votes[train], embeddings=embeddings[train])
    ours = model.score(votes[test], gold[test], embeddings[test])["accuracy"]
    alone = AutoLabelModel(k).fit(votes[train]).score(votes[test], gold[test])["accuracy"]
    assert ours > alone + 0.03
    assert np.isfinite(model.radius_).any() and model.centres_.shape == (4, 16)


def test_a_dev_set_may_choose_the_radius() -> None:
    k, votes, embeddings, gold = smooth(4)
    dev = (votes[1500:1700], embeddings[1500:1700], gold[1500:1700])
    model = Liger(k).fit(votes[:1500], embeddings=embeddings[:1500], dev=dev)
    alone = AutoLabelModel(k).fit(votes[:1500]).score(votes[1700:], gold[1700:])["accuracy"]
    assert model.score(votes[1700:], gold[1700:], embeddings[1700:])["accuracy"] > alone
    with pytest.raises(ValueError, match="gold classes"):
        Liger(k).fit(votes, embeddings=embeddings, dev=(votes[:2], embeddings[:2], np.array([0, 9])))


def test_embeddings_that_say_nothing_extend_nothing_or_do_little_harm() -> None:
    k, votes, embeddings, gold = smooth(5)
    noise = np.random.default_rng(0).standard_normal(embeddings.shape)
    model = Liger(k).fit(votes, embeddings=noise)
    alone = AutoLabelModel(k).fit(votes).score(votes, gold)["accuracy"]
    assert model.score(votes, gold, noise)["accuracy"] > alone - 0.03


def test_approximate_search_finds_nearly_all_neighbours() -> None:
    _, votes, embeddings, _ = smooth(6, n=4000)
    points = unit_rows(embeddings, 4000, "embeddings")
    wanted = votes[:1000] < 0
    found = []
    for search in ("exact", "approximate"):
        voters = NearestVoters(points, votes, search, 0, 1000)  # type: ignore[arg-type]
        assert voters.approximate == (search == "approximate")
        similarity, vote = voters.nearest(points[:1000], wanted)
        assert np.isinf(similarity[~wanted]).all() and (vote[~wanted] == -1).all()
        found.append(similarity[wanted])
    assert (found[1] <= found[0] + 1e-5).all() and (found[1] > found[0] - 0.02).mean() > 0.8


def test_support_is_bounded_and_kept(tmp_path: Path) -> None:
    k, votes, embeddings, _ = smooth(7)
    model = Liger(k, support=50, parts=2).fit(votes, embeddings=embeddings)
    assert ((model.support_votes_ >= 0).sum(axis=0) <= 50).all() and model.support_.dtype == np.float16
    model.save(tmp_path / "liger")
    loaded = Liger.load(tmp_path / "liger")
    assert (loaded.predict_proba(votes, embeddings) == model.predict_proba(votes, embeddings)).all()


def test_large_models_are_safetensors(tmp_path: Path) -> None:
    k, votes, _, _ = smooth(8)
    embeddings = np.random.default_rng(0).standard_normal((2000, 900)).astype(np.float32)
    model = Liger(k, radius=0.9).fit(votes, embeddings=embeddings)
    model.save(tmp_path / "liger")
    from safetensors import safe_open

    with safe_open(tmp_path / "liger", "numpy") as file:
        assert list(file.keys()) == ["support_"]
    assert (Liger.load(tmp_path / "liger").predict_proba(votes, embeddings) == model.predict_proba(votes, embeddings)).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda e: e[:-1], r"expected \(300, dimensions\): one embedding per document"),
        (lambda e: e[:, 0], "expected"),
        (lambda e: np.where(np.arange(300)[:, None] == 7, 0, e), "row 7 is zeros, which lie nowhere"),
        (lambda e: np.where(np.arange(300)[:, None] == 9, np.nan, e), "row 9 is not finite"),
        (lambda e: e.astype(int), "expected floats"),
    ],
)
def test_bad_embeddings_are_one_line(change, told: str) -> None:
    k, votes, embeddings, _ = smooth(9, n=300)
    with pytest.raises(ValueError, match=told):
        Liger(k).fit(votes, embeddings=change(embeddings))


def test_other_bad_input_is_one_line() -> None:
    k, votes, embeddings, _ = smooth(10, n=300)
    model = Liger(k).fit(votes, embeddings=embeddings)
    for work, told in (
        (lambda: Liger(k).fit(VoteStatistics.measure(votes, k=k), embeddings=embeddings), "not on their statistics"),
        (lambda: Liger(k).fit(votes), r"needs the documents' embeddings: fit\(votes, embeddings"),
        (lambda: Liger(k).fit(votes[:0], embeddings=embeddings[:0]), "cannot be fitted on 0 documents"),
        (lambda: Liger(k, radius=np.nan).fit(votes, embeddings=embeddings), "finite cosine similarity"),
        (lambda: Liger(k, radius=[0.5]).fit(votes, embeddings=embeddings), r"one per labelling function \(8\)"),
        (lambda: Liger(k).fit(votes, embeddings=embeddings, dev=(votes, embeddings)), "give all three"),  # type: ignore[arg-type]
        (lambda: Liger(k).partial_fit(votes), "cannot be fitted on a stream"),
        (lambda: Liger(k, search="fast"), "auto, exact or approximate"),  # type: ignore[arg-type]
        (lambda: Liger(k, base="liger"), "no label model liger"),
        (lambda: Liger(k, parts=0), "from 1"),
        (lambda: model.predict_proba(votes), "needs the documents' embeddings"),
        (lambda: model.predict_proba(votes, embeddings[:, 1:]), "have 15 dimensions, and those that the model was fitted on"),
        (lambda: Liger(k).predict_proba(votes, embeddings), "not fitted yet"),
    ):
        with pytest.raises(ValueError, match=told):
            work()


def test_a_function_without_votes_is_told() -> None:
    k, votes, embeddings, _ = smooth(11, n=300)
    votes[:, 3] = -1
    model = Liger(k, radius=0.5).fit(votes, embeddings=embeddings, functions=[f"rule{i}" for i in range(8)])
    assert any("rule3 cannot be extended" in note for note in model.notes_)
    silent = Liger(k).fit(np.full((50, 3), -1), embeddings=embeddings[:50])
    assert np.allclose(silent.predict_proba(np.full((2, 3), -1), embeddings[:2]), 1 / k, atol=0.01)
