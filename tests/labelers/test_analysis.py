from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rich.console import Console

from labelers.analysis import ANALYSIS, DevCounts, advice, analyse, explain, label_shares, render_analysis, render_explanation
from labelers.dawid_skene import DawidSkene
from labelers.majority import MajorityVote
from labelers.statistics import VoteStatistics

VOTES = np.array([[0, -1, -1], [0, 1, -1], [0, 0, -1], [-1, -1, -1]], np.int8)
STATISTICS = VoteStatistics.measure(VOTES, ["f", "g", "silent"], ["x", "y"])


def noisy(n: int = 4000, accuracies: tuple[float, ...] = (0.9, 0.8, 0.7, 0.75), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Votes of independent functions of given accuracies, a third of them abstentions, and the truth."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 2, n)
    right = rng.random((n, len(accuracies))) < accuracies
    votes = np.where(right, gold[:, None], 1 - gold[:, None])
    return np.where(rng.random(votes.shape) < 1 / 3, -1, votes).astype(np.int8), gold


def shown(table: object, width: int = 140) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(table)
    return out.getvalue()


def test_coverage_overlaps_and_conflicts_are_shares_of_documents() -> None:
    analysis = analyse(STATISTICS)
    assert analysis.schema.equals(ANALYSIS)
    names = ("function", "polarity", "votes", "coverage", "overlaps", "conflicts")
    assert [tuple(row[n] for n in names) for row in analysis.to_pylist()] == [
        ("f", ["x"], 3, 0.75, 0.5, 0.25),
        ("g", ["x", "y"], 2, 0.5, 0.5, 0.25),
        ("silent", [], 0, 0.0, 0.0, 0.0),
    ]
    assert analysis["accuracy"].null_count == analysis["dev_precision"].null_count == 3
    assert label_shares(STATISTICS) == {"label_coverage": 0.75, "label_overlap": 0.5, "label_conflict": 0.25}


def test_no_documents_are_no_division_by_zero() -> None:
    empty = VoteStatistics.measure(np.empty((0, 1), np.int8), ["f"], ["x", "y"])
    assert analyse(empty)["coverage"].to_pylist() == [0.0] and advice(empty) == []


def test_the_table_shows_every_function_and_only_what_is_known() -> None:
    told = shown(render_analysis(analyse(STATISTICS), label_shares(STATISTICS), 4))
    assert all(part in told for part in ("f ", "x, y", "silent", "75.0%", "4 documents", "label conflict 25.0%")), told
    assert "accuracy" not in told and "precision" not in told
    votes, gold = noisy()
    statistics = VoteStatistics.measure(votes, list("abcd"), ["x", "y"])
    model = DawidSkene().fit(votes, functions=list("abcd"), classes=["x", "y"])
    analysis = analyse(statistics, model, DevCounts.measure(votes[:500], gold[:500], 2))
    told = shown(render_analysis(analysis, label_shares(statistics), 4000))
    assert "accuracy" in told and "precision on dev" in told
    accuracies = analysis["accuracy"].to_pylist()
    assert accuracies == pytest.approx([0.9, 0.8, 0.7, 0.75], abs=0.04)
    for i, row in enumerate(analysis.to_pylist()):
        cast = votes[:500, i] >= 0
        assert row["dev_votes"] == cast.sum() and row["dev_precision"] == pytest.approx(
            (votes[:500, i] == gold[:500])[cast].mean()
        )
        assert row["error"] is None or 0 < row["error"] < 0.1


def test_redundancy_names_the_function_that_is_copied() -> None:
    votes, _ = noisy()
    votes = np.column_stack([votes, votes[:, 0]])
    statistics = VoteStatistics.measure(votes, list("abcde"), ["x", "y"])
    rows = analyse(statistics).to_pylist()
    assert (rows[0]["redundant_with"], rows[4]["redundant_with"]) == ("e", "a")
    assert rows[0]["redundancy"] == pytest.approx(1) and rows[1]["redundancy"] < 0.5
    assert any("e nearly copies a" in told for told in advice(statistics))


def test_advice_names_functions_below_chance_and_low_coverage() -> None:
    votes, _ = noisy(accuracies=(0.9, 0.8, 0.8, 0.2))
    model = DawidSkene().fit(votes, functions=list("abcd"), classes=["x", "y"])
    statistics = VoteStatistics.measure(votes, list("abcd"), ["x", "y"])
    assert any("right less often than chance: d (" in told for told in advice(statistics, model))
    votes[1500:] = -1
    sparse = VoteStatistics.measure(votes, list("abcd"), ["x", "y"])
    assert any("of the documents have a vote" in told for told in advice(sparse))


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.int8, (4,), elements=st.integers(-1, 1)), st.sampled_from(["dawid-skene", "majority"]))
def test_the_shares_of_an_explanation_are_the_models_log_odds(row: np.ndarray, name: str) -> None:
    votes, _ = noisy(500)
    model = (DawidSkene if name == "dawid-skene" else MajorityVote)().fit(
        votes, functions=list("abcd"), classes=["bad", "good"]
    )
    told = explain(model, row)
    assert told.prior + sum(share for *_, share in told.shares) == pytest.approx(told.log_odds)
    assert {f: v for f, v, _ in told.shares} == {
        f: None if v < 0 else ("bad", "good")[v] for f, v in zip("abcd", row.tolist(), strict=True)
    }
    probabilities = dict(zip(model.classes, model.predict_proba(row[None, :])[0], strict=True))
    assert told.probability == probabilities[told.label] >= probabilities[told.other]
    if name == "dawid-skene":
        assert np.log(probabilities[told.label] / probabilities[told.other]) == pytest.approx(told.log_odds)
    assert [abs(s) for *_, s in told.shares] == sorted((abs(s) for *_, s in told.shares), reverse=True)
    text = shown(render_explanation(told, "d/1"))
    assert f"d/1: {told.label}" in text and "class balance" in text


def test_votes_of_another_model_are_not_explained() -> None:
    votes, _ = noisy(200)
    with pytest.raises(ValueError, match="votes"):
        explain(DawidSkene().fit(votes), [0, 1])
