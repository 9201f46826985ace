"""The short convolution: values, gradients, documents, states, in both layouts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.conv_fir import conv_fir
from kernels.conv_fir.reference import conv_fir as plain
from kernels.documents import document_starts_of
from kernels.verification import CONVOLUTION_LIMITS, Case, verify

LAYOUTS = ["bld", "bdl"]


def inputs(
    batch: int, length: int, channels: int, taps: int, layout: str, fused: bool, documents: list[int] | None = None
) -> dict:
    generator = torch.Generator().manual_seed(length)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (batch, length, channels) if layout == "bld" else (batch, channels, length)
    before = (batch, taps - 1, channels) if layout == "bld" else (batch, channels, taps - 1)
    found: dict = {"u": random(*shape), "weight": random(channels, taps)}
    if fused:
        found |= {"bias": random(channels), "pregate": random(*shape), "postgate": random(*shape), "state": random(*before)}
    if documents:
        cu_seqlens = torch.tensor([0, *documents]).cumsum(0).to(torch.int32)
        found["document_starts"] = document_starts_of(cu_seqlens, batch, length)
    return found


def case(arguments: dict, layout: str, dtype: torch.dtype, silu: bool = False) -> Case:
    return Case(
        "conv_fir",
        "test",
        lambda **a: conv_fir(**a, silu=silu, layout=layout),
        lambda **a: plain(**a, silu=silu, channels_last=layout == "bld"),
        arguments,
        dtype,
        keep_float32=("weight", "bias"),
        limits=CONVOLUTION_LIMITS,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("dtype", "batch", "length", "channels", "taps", "fused", "documents"),
    [
        (torch.float32, 2, 37, 24, 4, True, [5, 0, 1, 26, 13, 29]),
        (torch.float32, 1, 1, 3, 3, False, None),
        (torch.float16, 1, 43, 5, 8, True, None),
        (torch.bfloat16, 3, 20, 16, 3, True, [25, 35]),
        (torch.bfloat16, 2, 32, 32, 4, False, None),
        (torch.float32, 1, 25, 2, 11, True, [4, 21]),
    ],
)
def test_values_and_gradients_are_the_references(
    layout: str,
    dtype: torch.dtype,
    batch: int,
    length: int,
    channels: int,
    taps: int,
    fused: bool,
    documents: list[int] | None,
    device: str,
) -> None:
    report = verify(case(inputs(batch, length, channels, taps, layout, fused, documents), layout, dtype, silu=fused), device)
    assert not report.failures
