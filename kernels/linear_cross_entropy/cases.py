"""What `python -m kernels.check` runs of the chunked cross entropy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kernels.linear_cross_entropy import linear_cross_entropy, reference
from kernels.verification import Case


def case(
    tokens: int,
    width: int,
    vocabulary: int,
    dtype: torch.dtype,
    chunk: int | None = None,
    z_loss: float = 0.0,
    reduction: str = "mean",
    weighted: bool = False,
    ignored: bool = True,
    wide_weight: bool = False,
    accumulate: torch.dtype = torch.float32,
    spread: float = 1.0,
) -> Case:
    """Logits of deviation `spread`; a fifth of the tokens ignored. wide_weight: a float32 weight below narrow products."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=torch.float64) * (spread / width**0.5)
    targets = torch.randint(0, vocabulary, (tokens,), generator=generator)
    if ignored:
        targets[torch.rand(tokens, generator=generator) < 0.2] = -100
    weights = torch.rand(tokens, generator=generator, dtype=torch.float64) if weighted else None
    arguments: dict[str, Any] = {"hidden": hidden, "weight": weight, "targets": targets, "weights": weights}

    def fused(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        return linear_cross_entropy(
            hidden, weight, targets, weights=weights, reduction=reduction, z_loss=z_loss, chunk=chunk,  # type: ignore[arg-type]
            accumulate=accumulate if accumulate == torch.float32 else weight.dtype,
        )[:2]  # fmt: skip

    def exact(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        return reference.linear_cross_entropy(
            hidden, weight.to(hidden.dtype), targets, weights, reduction == "mean", 1.0, z_loss
        )

    name = (
        f"{tokens} x {width} x {vocabulary}"
        + (f", chunk {chunk}" if chunk else "")
        + (f", z-loss {z_loss:g}" if z_loss else "")
    )
    name += (", " + reduction if reduction != "mean" else "") + (", weighted" if weighted else "")
    name += (", float32 weight" if wide_weight else "") + (", narrow sums" if accumulate != torch.float32 else "")
    keep = ("weight", "weights") if wide_weight else ("weights",)
    return Case("linear_cross_entropy", name, fused, exact, arguments, dtype, keep_float32=keep, constant=("weights",))


def cases() -> Iterator[Case]:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        yield case(1025, 512, 50304, dtype, chunk=512)
        yield case(777, 384, 50257, dtype, z_loss=1e-4, weighted=True)
    yield case(2048, 768, 50304, torch.bfloat16, chunk=512, reduction="sum", wide_weight=True)
    yield case(2048, 768, 50304, torch.bfloat16, chunk=512, accumulate=torch.bfloat16)
    yield case(1024, 256, 131072, torch.bfloat16, spread=5.0, ignored=False)
    yield case(20, 64, 300, torch.bfloat16, spread=1e30)  # where no two logits round to the same largest
