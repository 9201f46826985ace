"""What `python -m kernels.check` runs of SwiGLU."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from kernels.swiglu import reference, swiglu
from kernels.verification import Case


def case(shape: tuple[int, ...], packed: bool, dtype: torch.dtype, scale: float = 1.0) -> Case:
    """Normal inputs; packed: gate and up in one tensor."""
    generator = torch.Generator().manual_seed(0)
    names = ("gate",) if packed else ("gate", "up")
    arguments = {name: scale * torch.randn(shape, generator=generator, dtype=torch.float64) for name in names}
    name = ("packed " if packed else "") + " x ".join(map(str, shape)) + (f", scale {scale:g}" if scale != 1 else "")
    return Case("swiglu", name, swiglu, reference.swiglu, arguments, dtype)


def cases() -> Iterator[Case]:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for packed in (False, True):
            yield case((2, 255, 5632), packed, dtype)
            yield case((3, 1022), packed, dtype)
    yield case((64, 2048), False, torch.bfloat16, scale=100.0)
