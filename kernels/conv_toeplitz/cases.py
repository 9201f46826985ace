"""What the Toeplitz convolution is checked with on a device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kernels.conv_toeplitz import conv_toeplitz
from kernels.conv_toeplitz.reference import conv_toeplitz as reference
from kernels.documents import document_starts_of
from kernels.verification import CONVOLUTION_LIMITS, Case


def arguments(
    batch: int, channels: int, length: int, filters: int, taps: int, *, fused: bool = False, documents: list[int] | None = None
) -> dict[str, Any]:
    """Random inputs in float64; `fused`: bias, both gates and a state; `documents`: lengths that add up to batch * length."""
    generator = torch.Generator().manual_seed(length + taps)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (batch, channels, length)
    found: dict[str, Any] = {"u": random(*shape), "filter": random(filters, taps) / taps**0.5}
    if fused:
        found |= {"bias": random(channels), "pregate": random(*shape), "postgate": random(*shape)}
        found |= {"state": random(batch, channels, taps - 1)}
    if documents:
        found["document_starts"] = document_starts_of(torch.tensor([0, *documents]).cumsum(0).to(torch.int32), batch, length)
    return found


def case(name: str, dtype: torch.dtype, inputs: dict[str, Any], silu: bool = False) -> Case:
    """A case of the inputs; the bias stays float32."""
    return Case(
        "conv_toeplitz",
        name,
        partial(conv_toeplitz, silu=silu),
        partial(reference, silu=silu),
        inputs,
        dtype,
        keep_float32=("bias",),
        limits=CONVOLUTION_LIMITS,
    )


def cases() -> Iterator[Case]:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        yield case("B2 D32 L2048 K65", dtype, arguments(2, 32, 2048, 32, 65))
        everything = arguments(3, 24, 1000, 4, 128, fused=True, documents=[1, 0, 700, 2, 1000, 1000, 297])
        yield case("B3 D24 L1000 G4 K128 everything", dtype, everything, silu=True)
        yield case(
            "B1 D16 L2100 G2 K1000 everything", dtype, arguments(1, 16, 2100, 2, 1000, fused=True, documents=[2000, 100])
        )
    yield case("B2 D8 L3000 K2048", torch.bfloat16, arguments(2, 8, 3000, 8, 2048))
    yield case("B2 D8 L5 K17", torch.bfloat16, arguments(2, 8, 5, 8, 17))
    yield case("B2 D8 L4096 K256", torch.bfloat16, arguments(2, 8, 4096, 2, 256), silu=True)
