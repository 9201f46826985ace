from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from labelers.matrix_completion import MatrixCompletion
from labelers.synthetic import generate


def test_accuracies_are_snorkels(shared: Path) -> None:
    data = np.load(shared / "labelers" / "syn_binary_sym.npz")
    expected = json.loads((shared / "labelers" / "reference.json").read_text())["syn_binary_sym"]["snorkel_e500_uniform"]
    model = MatrixCompletion(2).fit(data["L_train"])
    assert np.abs(model.accuracies_ - expected["weights"]).max() < 0.002
    assert model.score(data["L_test"], data["Y_test"])["accuracy"] == pytest.approx(expected["acc"], abs=0.002)


def test_many_classes_with_the_balance_given() -> None:
    data = generate("multiclass", 3, n=6000)
    balance = np.bincount(data.gold, minlength=data.k) / 6000
    truth = np.array([(c == data.gold)[c >= 0].mean() for c in data.votes.T])
    model = MatrixCompletion(data.k).fit(data.votes, balance)
    assert np.abs(model.accuracies_ - truth).mean() < 0.06


def test_abstaining_says_nothing_when_labels_are_predicted() -> None:
    data = generate("keywords", 1, n=1000)
    model = MatrixCompletion(data.k).fit(data.votes)
    assert np.allclose(model.predict_proba(np.full((1, data.votes.shape[1]), -1)), 1 / data.k)


def test_two_functions_do_not_determine_anything_and_it_says_so() -> None:
    model = MatrixCompletion().fit(np.array([[0, 0], [1, 1], [0, 1]]))
    assert any("2 functions do not determine" in n for n in model.notes_)
