"""Which implementation a tensor takes: Triton on CUDA, the reference on the CPU, the interpreter under `TRITON_INTERPRET=1`."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor


def interpreted() -> bool:
    """Whether Triton kernels run in its interpreter, on the CPU: set `TRITON_INTERPRET=1` before the first kernel runs."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def implementation(operator: str, tensor: Tensor) -> ModuleType:
    """The module `kernels.<operator>.triton` or `kernels.<operator>.reference`, by where the tensor is.

    float64 always takes the reference: kernels keep float32 inside. RuntimeError for a CUDA tensor on a machine without Triton.
    """
    if tensor.dtype == torch.float64 or not (tensor.is_cuda or interpreted()):
        return import_module(f"kernels.{operator}.reference")
    try:
        return import_module(f"kernels.{operator}.triton")
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise RuntimeError(f"{operator}: CUDA tensors need triton, which is not installed: pip install triton") from error
