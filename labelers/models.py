"""Label models by name: what each must do, how it is stored, and how probabilities become labels."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import xxhash

from labelers.statistics import VoteStatistics

MODELS = {"majority": "labelers.majority:MajorityVote"}
"""Label models: name to `module:class`, imported when one is used."""


_SAME = 1e-9
"""Probabilities closer than this are tied: sums in another order must not break a tie."""


class LabelModel(Protocol):
    """A label model: fitted from statistics alone, so that it never needs all votes at once."""

    name: ClassVar[str]
    functions: tuple[str, ...]
    classes: tuple[str, ...]
    class_balance: tuple[float, ...]

    @classmethod
    def fit(cls, statistics: VoteStatistics) -> LabelModel: ...

    def predict_proba(self, votes: np.ndarray) -> np.ndarray:
        """(n, k) probabilities of votes (n, m)."""
        ...

    def to_state(self) -> dict[str, Any]:
        """What `from_state` needs, as JSON values."""
        ...

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> LabelModel: ...


def model_class(name: str) -> type[LabelModel]:
    """A label model's class. ValueError, with the names there are, on an unknown one."""
    if name not in MODELS:
        raise ValueError(f"there is no label model {name}; there are: {', '.join(MODELS)}")
    module, attribute = MODELS[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def save_model(model: LabelModel) -> bytes:
    """A fitted model as JSON."""
    return (json.dumps({"model": model.name, **model.to_state()}, indent=1, ensure_ascii=False) + "\n").encode()


def load_model(content: bytes) -> LabelModel:
    """A fitted model from `save_model`."""
    state = json.loads(content)
    return model_class(state.pop("model")).from_state(state)


def choose(probabilities: np.ndarray, cast: np.ndarray, ids: Sequence[str], tie_break: str) -> np.ndarray:
    """The likeliest class per document, (n,), -1 for none.

    cast: votes that were cast, (n,): a document without any gets no label. tie_break: `abstain` gives tied documents none,
    `random` picks among the tied classes by a hash of the document's id, so the same one every time.
    """
    best = np.isclose(probabilities, probabilities.max(axis=1, keepdims=True), rtol=0, atol=_SAME)
    tied = best.sum(axis=1) > 1
    choice = np.where((cast > 0) & ~tied, probabilities.argmax(axis=1), -1)
    if tie_break == "random":
        for row in np.flatnonzero(tied & (cast > 0)).tolist():
            among = np.flatnonzero(best[row])
            choice[row] = among[xxhash.xxh3_64_intdigest(ids[row].encode()) % len(among)]
    return choice
