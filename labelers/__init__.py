"""What a document is worth: labelling functions and label models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelers.analysis import analyse
    from labelers.dawid_skene import DawidSkene
    from labelers.functions import labeling_function
    from labelers.majority import MajorityVote
    from labelers.models import LabelModel, load_model, save_model
    from labelers.statistics import VoteStatistics
    from labelers.votes import ABSTAIN, check_votes, from_pm1, to_dense, to_pm1, to_sparse

__all__ = [
    "ABSTAIN",
    "DawidSkene",
    "LabelModel",
    "MajorityVote",
    "VoteStatistics",
    "analyse",
    "check_votes",
    "from_pm1",
    "labeling_function",
    "load_model",
    "save_model",
    "to_dense",
    "to_pm1",
    "to_sparse",
]

_WHERE = {
    "ABSTAIN": "votes",
    "DawidSkene": "dawid_skene",
    "LabelModel": "models",
    "MajorityVote": "majority",
    "VoteStatistics": "statistics",
    "analyse": "analysis",
    "check_votes": "votes",
    "from_pm1": "votes",
    "labeling_function": "functions",
    "load_model": "models",
    "save_model": "models",
    "to_dense": "votes",
    "to_pm1": "votes",
    "to_sparse": "votes",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module labelers has no attribute {name}")
    return getattr(importlib.import_module(f"labelers.{_WHERE[name]}"), name)  # loaded when it is first used
