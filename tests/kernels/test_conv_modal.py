"""The modal scan: values, gradients, documents, states, its filter and its recurrence."""

from __future__ import annotations

import pytest
import torch

from kernels.conv_modal.cases import arguments, case, filter_case, modes, state_case
from kernels.verification import verify


@pytest.mark.parametrize(
    ("dtype", "inputs"),
    [
        (torch.float32, arguments(2, 1, 300, 3, fused=True, documents=[5, 0, 1, 280, 17, 297])),  # two tiles
        (torch.bfloat16, arguments(1, 2, 70, 8)),
        (torch.float16, arguments(2, 1, 33, 9, fused=True)),
    ],
)
def test_values_and_gradients_are_the_references(dtype: torch.dtype, inputs: dict, device: str) -> None:
    assert not verify(case("test", dtype, inputs), device).failures


@pytest.mark.parametrize("documents", [None, [100, 250]])
def test_the_state_after_a_sequence_is_the_recurrences(documents: list[int] | None, device: str) -> None:
    inputs = arguments(1, 1, 350, 3, fused=True, documents=documents)
    assert not verify(state_case("test", torch.float32, inputs), device).failures


def test_the_filter_and_its_gradients_are_the_references(device: str) -> None:
    assert not verify(filter_case("test", {**modes(2, 5), "length": 600}), device).failures
