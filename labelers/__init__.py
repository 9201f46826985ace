"""What a document is worth: labelling functions and label models."""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "ABSTAIN": "labelers.functions",
    "labeling_function": "labelers.functions",
    "MajorityVote": "labelers.majority",
    "VoteStatistics": "labelers.statistics",
    "analyse": "labelers.analysis",
}
__all__ = ["ABSTAIN", "MajorityVote", "VoteStatistics", "analyse", "labeling_function"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module labelers has no attribute {name}")
    return getattr(importlib.import_module(_WHERE[name]), name)  # loaded when it is first used
