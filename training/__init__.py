"""Models, the mixture loader, the training loop.

`train(config)`, `evaluate(folder, manifests)` and `generate(folder, prompt)` are the way in; `RunConfig` describes a run.
Importing this package loads nothing: each name loads its module when it is first used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.config import RunConfig, load_config
    from training.evaluation import evaluate
    from training.generation import generate
    from training.loader import MixtureLoader
    from training.loop import TrainResult, train
    from training.model import Transformer
    from training.ray import train_on_ray

__all__ = [
    "MixtureLoader",
    "RunConfig",
    "TrainResult",
    "Transformer",
    "evaluate",
    "generate",
    "load_config",
    "train",
    "train_on_ray",
]

# OpenMP's threads would wait for one another in busy loops, which on shared cores (Ray's workers, tests) makes training five
# times slower. It reads this when torch is loaded; who set it otherwise meant it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_MODULES = {
    "MixtureLoader": "training.loader",
    "RunConfig": "training.config",
    "TrainResult": "training.loop",
    "Transformer": "training.model",
    "evaluate": "training.evaluation",
    "generate": "training.generation",
    "load_config": "training.config",
    "train": "training.loop",
    "train_on_ray": "training.ray",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
