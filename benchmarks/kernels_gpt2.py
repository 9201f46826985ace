"""A training step of GPT-2 124M, 64 x 1024 tokens: these operators against plain torch, both compiled, with cuDNN attention."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from kernels_bench import Bench, Row

BATCH, STEPS, WARM = 64, 16, 4


def rows(bench: Bench) -> Iterator[Row]:
    from kernels_bench import Row

    gpt2 = _model()
    tokens = BATCH * gpt2.LENGTH
    for label, stream in (("float32 stream", torch.float32), ("bfloat16 stream", torch.bfloat16)):
        plain, memory = measured(False, stream)
        for attention, own_attention in (("cuDNN attention", False), ("our attention", True)):
            if own_attention and stream == torch.float32:
                continue
            ms, peak = measured(True, stream, own_attention)
            yield Row(
                "gpt2", f"124M, {BATCH} x {gpt2.LENGTH}, {label}, {attention}", "step",
                bench.operations_floor(gpt2.training_operations(tokens)), ms, {"torch.compile, cuDNN": plain},
                extra={
                    "tokens_per_second": round(tokens / ms * 1e3), "peer_tokens_per_second": round(tokens / plain * 1e3),
                    "peak_gb": peak, "peer_peak_gb": memory,
                },
            )  # fmt: skip


@cache
def _model() -> Any:
    """`gpt2.py` beside this file; by its path, for in this folder `kernels` is another module."""
    spec = importlib.util.spec_from_file_location("gpt2", Path(__file__).with_name("gpt2.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(fused: bool, stream: torch.dtype = torch.float32, own_attention: bool = False) -> tuple[float, float]:
    """(ms of a step, peak GB): the mean of steps in a row, as training runs them."""
    gpt2 = _model()
    torch._dynamo.reset()
    torch.manual_seed(0)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        step = gpt2.training_step(gpt2.GPT2(fused, stream, own_attention).cuda())
        tokens, targets = (torch.randint(0, gpt2.VOCABULARY, (BATCH, gpt2.LENGTH), device="cuda") for _ in range(2))
        for _ in range(WARM):
            step(tokens, targets)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        for _ in range(STEPS):
            step(tokens, targets)
        ended.record()
        torch.cuda.synchronize()
    return begun.elapsed_time(ended) / STEPS, torch.cuda.max_memory_allocated() / 1e9
