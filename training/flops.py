"""Arithmetic counted exactly, for model-FLOP utilisation (MFU).

One multiply-add is two FLOPs; the backward pass costs twice the forward. Matrix products count once per token; attention
counts the pairs of positions that really meet, causal and within a document, not the square of the sequence. Recomputation
by activation checkpointing is no model FLOP (Chowdhery et al., "PaLM", appendix B), nor are norms, rotations and softmax.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.config import ModelConfig

PEAK_TFLOPS = {
    # Dense bfloat16 by the vendor's data sheets, in TFLOP/s, by a part of the device's name; the first match counts.
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H200": 989.0,
    "GH200": 989.0,
    "B200": 2250.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
}


def matmul_parameters(config: ModelConfig) -> int:
    """Weights that every token is multiplied with: all matrices, the output projection too, the embedding's lookup not."""
    width, keys = config.d_model, config.key_value_heads * config.head_dim
    attention = 2 * width * width + 2 * width * keys
    return config.layers * (attention + 3 * width * config.hidden) + width * config.vocabulary


def attention_pairs(documents: npt.NDArray[np.integer]) -> int:
    """Pairs (query, key) that may meet: sum over documents of L (L + 1) / 2. documents: (rows, length), as in a Batch."""
    rows, length = documents.shape
    change = np.ones((rows, length), bool)
    change[:, 1:] = documents[:, 1:] != documents[:, :-1]
    starts = np.flatnonzero(change)
    lengths = np.diff(np.append(starts, rows * length))
    return int((lengths * (lengths + 1) // 2).sum())


def training_flops(config: ModelConfig, tokens: int, pairs: int) -> int:
    """FLOPs of a forward and backward pass: 6 per token and matrix weight, 12 per pair, layer and unit of d_model."""
    return 6 * tokens * matmul_parameters(config) + 12 * pairs * config.layers * config.d_model


def peak_flops(device_name: str, tflops: float | None = None) -> float | None:
    """A device's peak in FLOP/s: as given, else by its name, else None."""
    if tflops is None:
        tflops = next((value for name, value in PEAK_TFLOPS.items() if name.lower() in device_name.lower()), None)
    return None if tflops is None else tflops * 1e12
