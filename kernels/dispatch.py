"""Which implementation a tensor takes: Triton on CUDA, the reference on the CPU, the interpreter under `TRITON_INTERPRET=1`."""

from __future__ import annotations

import functools
import os
from importlib import import_module
from typing import Any

import torch
from torch import Tensor


def interpreted() -> bool:
    """Whether Triton kernels run in its interpreter, on the CPU: set `TRITON_INTERPRET=1` before the first kernel runs."""
    return os.environ.get("TRITON_INTERPRET") == "1"


class _OutsideAutocast:
    """A module's functions, called outside autocast, which would narrow what they compute in float32 on purpose."""

    def __init__(self, module: Any, device: str) -> None:
        self._module, self._device = module, device

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._module, name)
        if not callable(function):
            return function

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            with torch.autocast(self._device, enabled=False):
                return function(*arguments, **options)

        return call


def implementation(operator: str, tensor: Tensor) -> Any:
    """The module `kernels.<operator>.triton` or `kernels.<operator>.reference`, by where the tensor is.

    float64 always takes the reference: kernels keep float32 inside. Under autocast, whose dtype the operators' inputs have by
    then, the module's functions run outside it. RuntimeError for a CUDA tensor on a machine without Triton.
    """
    module = _module(operator, tensor)
    device = tensor.device.type
    autocast = device in ("cuda", "cpu") and torch.is_autocast_enabled(device)
    return _OutsideAutocast(module, device) if autocast else module


def _module(operator: str, tensor: Tensor) -> Any:
    if tensor.dtype == torch.float64 or not (tensor.is_cuda or interpreted()):
        return import_module(f"kernels.{operator}.reference")
    try:
        return import_module(f"kernels.{operator}.triton")
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise RuntimeError(f"{operator}: CUDA tensors need triton, which is not installed: pip install triton") from error
