"""What a document is worth: labelling functions and label models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelers.analysis import analyse, explain
    from labelers.auto import AutoLabelModel
    from labelers.balance import estimate_balance
    from labelers.calibration import Isotonic, Temperature, reliability_curve
    from labelers.contrastive import ContrastiveEmbedder
    from labelers.dawid_skene import DawidSkene
    from labelers.dependencies import Dependency, effective_functions, find_dependencies
    from labelers.distill import fit_distilled, load_distilled
    from labelers.embeddings import FastTextEmbedder, TfidfEmbedder, load_embedder
    from labelers.embeddings_transformer import TransformerEmbedder
    from labelers.flyingsquid import FlyingSquid
    from labelers.functions import labeling_function
    from labelers.liger import Liger
    from labelers.majority import MajorityVote
    from labelers.matrix_completion import MatrixCompletion, Snorkel
    from labelers.models import LabelModel, load_model, save_model
    from labelers.sample import VoteSample
    from labelers.spans import Spans
    from labelers.statistics import VoteStatistics
    from labelers.synthetic import SyntheticVotes, generate
    from labelers.votes import ABSTAIN, check_votes, from_pm1, to_dense, to_pm1, to_sparse
    from labelers.weaver import Weaver

__all__ = [
    "ABSTAIN",
    "AutoLabelModel",
    "ContrastiveEmbedder",
    "DawidSkene",
    "Dependency",
    "FastTextEmbedder",
    "FlyingSquid",
    "Isotonic",
    "LabelModel",
    "Liger",
    "MajorityVote",
    "MatrixCompletion",
    "Snorkel",
    "Spans",
    "SyntheticVotes",
    "Temperature",
    "TfidfEmbedder",
    "TransformerEmbedder",
    "VoteSample",
    "VoteStatistics",
    "Weaver",
    "analyse",
    "check_votes",
    "effective_functions",
    "estimate_balance",
    "explain",
    "find_dependencies",
    "fit_distilled",
    "from_pm1",
    "generate",
    "labeling_function",
    "load_distilled",
    "load_embedder",
    "load_model",
    "reliability_curve",
    "save_model",
    "to_dense",
    "to_pm1",
    "to_sparse",
]

_WHERE = {
    "ABSTAIN": "votes",
    "AutoLabelModel": "auto",
    "ContrastiveEmbedder": "contrastive",
    "DawidSkene": "dawid_skene",
    "Dependency": "dependencies",
    "FastTextEmbedder": "embeddings",
    "FlyingSquid": "flyingsquid",
    "Isotonic": "calibration",
    "LabelModel": "models",
    "Liger": "liger",
    "MajorityVote": "majority",
    "MatrixCompletion": "matrix_completion",
    "Snorkel": "matrix_completion",
    "Spans": "spans",
    "SyntheticVotes": "synthetic",
    "Temperature": "calibration",
    "TfidfEmbedder": "embeddings",
    "TransformerEmbedder": "embeddings_transformer",
    "VoteSample": "sample",
    "VoteStatistics": "statistics",
    "Weaver": "weaver",
    "analyse": "analysis",
    "check_votes": "votes",
    "effective_functions": "dependencies",
    "estimate_balance": "balance",
    "explain": "analysis",
    "find_dependencies": "dependencies",
    "fit_distilled": "distill",
    "from_pm1": "votes",
    "generate": "synthetic",
    "labeling_function": "functions",
    "load_distilled": "distill",
    "load_embedder": "embeddings",
    "load_model": "models",
    "reliability_curve": "calibration",
    "save_model": "models",
    "to_dense": "votes",
    "to_pm1": "votes",
    "to_sparse": "votes",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module labelers has no attribute {name}")
    return getattr(importlib.import_module(f"labelers.{_WHERE[name]}"), name)  # loaded when it is first used
