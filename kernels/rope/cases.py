"""What `python -m kernels.check` runs of the rotation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kernels.rope import reference, rope
from kernels.verification import Case


def case(
    batch: int,
    heads: tuple[int, int],
    length: int,
    dim: int,
    dtype: torch.dtype,
    half: int | None = None,
    interleaved: bool = False,
) -> Case:
    """Random queries and keys as slices of one projection; each row has its own positions."""
    generator = torch.Generator().manual_seed(0)
    half = half or dim // 2
    q, k = (torch.randn(batch, length, h, dim, generator=generator, dtype=torch.float64).transpose(1, 2) for h in heads)
    positions = torch.randint(0, 4096, (batch, length, 1), generator=generator)
    angle = positions * 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)

    def turned(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        return rope(q, k, cos, sin, interleaved=interleaved)

    def exact(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        return reference.rope(q, cos, sin, interleaved), reference.rope(k, cos, sin, interleaved)

    name = f"{batch} x {length}, {heads[0]} and {heads[1]} heads of {dim}" + (
        f", {2 * half} rotated" if 2 * half != dim else ""
    )
    arguments = {"q": q, "k": k, "cos": angle.cos(), "sin": angle.sin()}
    name += " interleaved" if interleaved else ""
    return Case("rope", name, turned, exact, arguments, dtype, keep_float32=("cos", "sin"), constant=("cos", "sin"))


def cases() -> Iterator[Case]:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for dim in (64, 96, 128, 256):
            yield case(2, (8, 2), 511, dim, dtype)
        yield case(3, (12, 12), 777, 64, dtype, interleaved=True)
        yield case(1, (7, 1), 1000, 128, dtype, half=32)
