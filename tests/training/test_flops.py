"""Arithmetic counted for utilisation equals what torch counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from training.config import ModelConfig
from training.flops import attention_pairs, matmul_parameters, peak_flops, training_flops
from training.model import Transformer


@pytest.mark.parametrize("config", [
    ModelConfig(vocabulary=128, layers=3, d_model=64, heads=4),
    ModelConfig(vocabulary=128, layers=2, d_model=64, heads=4, kv_heads=2, tied=False, d_ff=96),
])  # fmt: skip
def test_flops_equal_those_that_torch_counts(config: ModelConfig) -> None:
    model = Transformer(config).initialise(0)
    rows, length = 2, 32
    tokens = torch.randint(0, 128, (rows, length))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(tokens, torch.zeros(rows, length, dtype=torch.long)).sum().backward()
    # Torch multiplies whole squares and masks them afterwards.
    assert counter.get_total_flops() == training_flops(config, rows * length, rows * length * length)


def test_pairs_are_those_that_meet() -> None:
    documents = np.array([[0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 0, 0]])
    assert attention_pairs(documents) == (6 + 3 + 1) + 21


def test_matmul_parameters_are_the_matrices() -> None:
    config = ModelConfig(vocabulary=128, layers=3, d_model=64, heads=4, kv_heads=2)
    model = Transformer(config)
    assert matmul_parameters(config) == sum(p.numel() for p in model.parameters() if p.ndim == 2)


def test_peaks_go_by_name() -> None:
    assert peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("cpu") is None
    assert peak_flops("cpu", 0.2) == 0.2e12
