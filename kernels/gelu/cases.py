"""What `python -m kernels.check` runs of GELU."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from kernels.gelu import gelu, reference
from kernels.verification import Case


def case(shape: tuple[int, ...], biased: bool, dtype: torch.dtype, scale: float = 1.0) -> Case:
    """Normal inputs, and a bias that stays float32, as a master weight does."""
    generator = torch.Generator().manual_seed(0)
    arguments = {"x": scale * torch.randn(shape, generator=generator, dtype=torch.float64)}
    if biased:
        arguments["bias"] = torch.randn(shape[-1], generator=generator, dtype=torch.float64)
    name = ("biased " if biased else "") + " x ".join(map(str, shape)) + (f", scale {scale:g}" if scale != 1 else "")
    return Case("gelu", name, gelu, reference.gelu, arguments, dtype, keep_float32=("bias",))


def cases() -> Iterator[Case]:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for biased in (False, True):
            yield case((2, 511, 3072), biased, dtype)
            yield case((5, 77), biased, dtype)
    yield case((64, 2048), True, torch.bfloat16, scale=100.0)
