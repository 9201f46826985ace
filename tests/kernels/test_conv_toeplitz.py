"""The Toeplitz convolution: values and gradients, with documents and states, filters that groups share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernels.conv_toeplitz.cases import arguments, case
from kernels.verification import verify


@pytest.mark.parametrize(
    ("dtype", "inputs", "silu"),
    [
        # Two stages, rows of a group
        (torch.float32, arguments(2, 2, 41, 1, 9, fused=True, documents=[5, 0, 1, 30, 17, 29]), True),
        # Four blocks
        (torch.float32, arguments(1, 1, 90, 1, 55, documents=[20, 70]), False),
        (torch.bfloat16, arguments(3, 2, 33, 2, 17), False),
        (torch.float16, arguments(1, 2, 50, 1, 30, fused=True), False),
    ],
)
def test_values_and_gradients_are_the_references(dtype: torch.dtype, inputs: dict[str, Any], silu: bool, device: str) -> None:
    assert not verify(case("test", dtype, inputs, silu), device).failures
