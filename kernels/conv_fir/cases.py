"""What the short convolution is checked with on a device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kernels.conv_fir import conv_fir
from kernels.conv_fir.reference import conv_fir as reference
from kernels.documents import document_starts_of
from kernels.verification import CONVOLUTION_LIMITS, Case


def arguments(
    batch: int, length: int, channels: int, taps: int, layout: str, *, fused: bool = False, documents: list[int] | None = None
) -> dict[str, Any]:
    """Random inputs in float64; `fused`: bias, both gates and a state; `documents`: lengths that add up to batch * length."""
    generator = torch.Generator().manual_seed(length + taps)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (batch, length, channels) if layout == "bld" else (batch, channels, length)
    before = (batch, taps - 1, channels) if layout == "bld" else (batch, channels, taps - 1)
    found: dict[str, Any] = {"u": random(*shape), "weight": random(channels, taps) / taps**0.5}
    if fused:
        found |= {"bias": random(channels), "pregate": random(*shape), "postgate": random(*shape), "state": random(*before)}
    if documents:
        found["document_starts"] = document_starts_of(torch.tensor([0, *documents]).cumsum(0).to(torch.int32), batch, length)
    return found


def case(name: str, layout: str, dtype: torch.dtype, inputs: dict[str, Any], silu: bool = False) -> Case:
    """A case of the inputs in a layout; weight and bias stay float32."""
    return Case(
        "conv_fir",
        name,
        partial(conv_fir, silu=silu, layout=layout),
        partial(reference, silu=silu, channels_last=layout == "bld"),
        inputs,
        dtype,
        keep_float32=("weight", "bias"),
        limits=CONVOLUTION_LIMITS,
    )


def cases() -> Iterator[Case]:
    documents = [1, 0, 700, 2, 1000, 1000, 297]
    for layout in ("bld", "bdl"):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            yield case(f"{layout} B2 L1024 D256 K4", layout, dtype, arguments(2, 1024, 256, 4, layout))
        for dtype in (torch.float32, torch.bfloat16):
            fused = arguments(3, 1000, 200, 3, layout, fused=True, documents=documents)
            yield case(f"{layout} B3 L1000 D200 K3 everything", layout, dtype, fused, silu=True)
        for taps in (2, 5, 8):
            yield case(f"{layout} B2 L257 D77 K{taps}", layout, torch.bfloat16, arguments(2, 257, 77, taps, layout), silu=True)
        yield case(f"{layout} B2 L3 D64 K4", layout, torch.bfloat16, arguments(2, 3, 64, 4, layout, fused=True))
        long = arguments(2, 1000, 64, 128, layout, fused=True, documents=[300, 1, 1200, 499])
        yield case(f"{layout} B2 L1000 D64 K128 everything", layout, torch.bfloat16, long, silu=True)
