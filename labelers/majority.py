"""Majority vote: every labelling function counts the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from labelers.statistics import VoteStatistics, check_votes, tallies


@dataclass
class MajorityVote:
    """Equal mass on the classes with the most votes; uniform where every function abstains (Snorkel's MajorityLabelVoter)."""

    name: ClassVar[str] = "majority"
    functions: tuple[str, ...]
    classes: tuple[str, ...]
    class_balance: tuple[float, ...]

    @classmethod
    def fit(cls, statistics: VoteStatistics) -> MajorityVote:
        """Nothing but the class balance is learned: shares of the documents that have a majority, uniform without any."""
        total = int(statistics.outcomes.sum())
        k = len(statistics.classes)
        balance = [int(n) / total for n in statistics.outcomes] if total else [1 / k] * k
        return cls(statistics.functions, statistics.classes, tuple(balance))

    def predict_proba(self, votes: np.ndarray) -> np.ndarray:
        """(n, k) float64, rows sum to 1, of votes (n, m): int8, -1 abstains. ValueError on votes that are no class."""
        check_votes(votes, len(self.functions), len(self.classes))
        tally = tallies(votes, len(self.classes))
        top = tally == tally.max(axis=1, keepdims=True)
        return top / top.sum(axis=1, keepdims=True)

    def to_state(self) -> dict[str, Any]:
        return {"functions": self.functions, "classes": self.classes, "class_balance": self.class_balance}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MajorityVote:
        return cls(tuple(state["functions"]), tuple(state["classes"]), tuple(state["class_balance"]))
