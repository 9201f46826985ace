"""The Toeplitz convolution: values, gradients, documents, states, filters that groups share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.conv_toeplitz import conv_toeplitz
from kernels.conv_toeplitz.reference import conv_toeplitz as plain
from kernels.documents import document_starts_of
from kernels.verification import CONVOLUTION_LIMITS, Case, verify


def inputs(
    batch: int, channels: int, length: int, filters: int, taps: int, fused: bool = False, documents: list[int] | None = None
) -> dict:
    generator = torch.Generator().manual_seed(length)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (batch, channels, length)
    found: dict = {"u": random(*shape), "filter": random(filters, taps) / taps**0.5}
    if fused:
        found |= {"bias": random(channels), "pregate": random(*shape), "postgate": random(*shape)}
        found |= {"state": random(batch, channels, taps - 1)}
    if documents:
        found["document_starts"] = document_starts_of(torch.tensor([0, *documents]).cumsum(0).to(torch.int32), batch, length)
    return found


def case(arguments: dict, dtype: torch.dtype, silu: bool = False) -> Case:
    return Case(
        "conv_toeplitz",
        "test",
        lambda **a: conv_toeplitz(**a, silu=silu),
        lambda **a: plain(**a, silu=silu),
        arguments,
        dtype,
        keep_float32=("bias",),
        limits=CONVOLUTION_LIMITS,
    )


@pytest.mark.parametrize(
    ("dtype", "arguments", "silu"),
    [
        (torch.float32, inputs(2, 2, 41, 1, 9, True, [5, 0, 1, 30, 17, 29]), True),  # two stages, rows of a group
        (torch.float32, inputs(1, 1, 90, 1, 55, False, [20, 70]), False),  # four blocks
        (torch.bfloat16, inputs(3, 2, 33, 2, 17), False),
        (torch.float16, inputs(1, 2, 50, 1, 30, True), False),
    ],
)
def test_values_and_gradients_are_the_references(dtype: torch.dtype, arguments: dict, silu: bool, device: str) -> None:
    report = verify(case(arguments, dtype, silu), device)
    assert not report.failures
