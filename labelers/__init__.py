"""What a document is worth: labelling functions and label models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelers.analysis import analyse
    from labelers.functions import ABSTAIN, labeling_function
    from labelers.majority import MajorityVote
    from labelers.statistics import VoteStatistics

__all__ = ["ABSTAIN", "MajorityVote", "VoteStatistics", "analyse", "labeling_function"]

_WHERE = {
    "ABSTAIN": "labelers.functions",
    "MajorityVote": "labelers.majority",
    "VoteStatistics": "labelers.statistics",
    "analyse": "labelers.analysis",
    "labeling_function": "labelers.functions",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module labelers has no attribute {name}")
    return getattr(importlib.import_module(_WHERE[name]), name)  # loaded when it is first used
