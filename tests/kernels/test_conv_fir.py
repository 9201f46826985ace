"""The short convolution: values and gradients, with documents and states, in both layouts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernels.conv_fir.cases import arguments, case
from kernels.verification import verify

EVERYTHING = {"fused": True, "documents": [5, 0, 1, 26, 13, 29]}


@pytest.mark.parametrize("layout", ["bld", "bdl"])
@pytest.mark.parametrize(
    ("dtype", "batch", "length", "channels", "taps", "options"),
    [
        (torch.float32, 2, 37, 24, 4, EVERYTHING),
        (torch.bfloat16, 2, 37, 5, 3, {"documents": [50, 24]}),
        (torch.float16, 1, 11, 5, 8, {}),
        (torch.float32, 1, 1, 3, 3, {}),
    ],
)
def test_values_and_gradients_are_the_references(
    layout: str,
    dtype: torch.dtype,
    batch: int,
    length: int,
    channels: int,
    taps: int,
    options: dict[str, Any],
    device: str,
) -> None:
    inputs = arguments(batch, length, channels, taps, layout, **options)
    assert not verify(case("test", layout, dtype, inputs, silu="fused" in options), device).failures


@pytest.mark.parametrize("layout", ["bld", "bdl"])
def test_silu_alone_over_several_blocks(layout: str, device: str) -> None:
    inputs = arguments(1, 150, 3, 4, layout)
    assert not verify(case("test", layout, torch.float32, inputs, silu=True), device).failures


def test_more_taps_than_registers_hold_are_toeplitz_products(device: str) -> None:
    inputs = arguments(1, 25, 2, 11, "bld", fused=True, documents=[4, 21])
    assert not verify(case("test", "bld", torch.float32, inputs, silu=True), device).failures
