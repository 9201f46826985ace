"""What the modal scan is checked with on a device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kernels.conv_modal import conv_modal, conv_modal_state, modal_filter
from kernels.conv_modal.reference import conv_modal as reference
from kernels.conv_modal.reference import modal_filter as filter_reference
from kernels.documents import document_starts_of
from kernels.verification import CONVOLUTION_LIMITS, Case

_FLOAT32 = ("decay", "frequency", "residue", "skip", "state")
# One or two slow modes hold most of the norm of these, so roundings do not average out: 0.4e-3 to 7.4e-3 in random cases, and
# 12e-3 in one of a single channel. States before each chunk, kept in bfloat16, are half of it.
_MODE_LIMITS: dict[str, float] = dict.fromkeys(("ddecay", "dfrequency", "dresidue"), 8e-3)


def modes(channels: int, count: int, slowest: float = 1e-3) -> dict[str, Tensor]:
    """Poles whose memory is 1 to 1 / slowest tokens, at all frequencies; residues that give a filter of size about 1."""
    generator = torch.Generator().manual_seed(count)
    share = torch.rand(channels, count, generator=generator, dtype=torch.float64)
    frequency = torch.rand(channels, count, generator=generator, dtype=torch.float64) * 3.1
    residue = torch.randn(channels, count, 2, generator=generator, dtype=torch.float64) / count**0.5
    return {"decay": -(slowest**share), "frequency": frequency, "residue": residue}


def arguments(
    batch: int, channels: int, length: int, count: int, *, fused: bool = False, documents: list[int] | None = None
) -> dict[str, Any]:
    """Random inputs in float64; `fused`: skip, both gates and a state; `documents`: lengths that add up to batch * length."""
    generator = torch.Generator().manual_seed(length + count)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (batch, channels, length)
    found: dict[str, Any] = {"u": random(*shape), **modes(channels, count)}
    if fused:
        found |= {"skip": random(channels), "pregate": random(*shape), "postgate": random(*shape)}
        found |= {"state": random(batch, channels, count, 2)}
    if documents:
        found["document_starts"] = document_starts_of(torch.tensor([0, *documents]).cumsum(0).to(torch.int32), batch, length)
    return found


def outputs(**inputs: Any) -> Tensor:
    """The reference's outputs alone, as conv_modal returns them."""
    return reference(**inputs)[0]


def unfused(u: Tensor, pregate: Tensor | None = None, postgate: Tensor | None = None, **inputs: Any) -> Tensor:
    """The same as torch would do it in the inputs' dtype: each gate a product of its own, rounded."""
    y = reference(u if pregate is None else u * pregate, **inputs)[0]
    return y if postgate is None else y * postgate


def case(name: str, dtype: torch.dtype, inputs: dict[str, Any]) -> Case:
    """A case of the inputs; modes and states stay float32."""
    wide = _MODE_LIMITS if dtype == torch.bfloat16 else {}
    return Case(
        "conv_modal",
        name,
        conv_modal,
        outputs,
        inputs,
        dtype,
        _FLOAT32,
        plain=unfused,
        limits=CONVOLUTION_LIMITS,
        wide_limits=wide,
    )


def state_case(name: str, dtype: torch.dtype, inputs: dict[str, Any]) -> Case:
    """The same with the state after the last token, values alone."""
    return Case(
        "conv_modal",
        name,
        conv_modal_state,
        reference,
        inputs,
        dtype,
        _FLOAT32,
        plain=unfused,
        limits=CONVOLUTION_LIMITS,
        backward=False,
    )


def filter_case(name: str, inputs: dict[str, Any]) -> Case:
    """The filter and its gradients."""
    return Case("modal_filter", name, modal_filter, filter_reference, inputs, torch.float32)


def cases() -> Iterator[Case]:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        yield case("B2 D16 L1000 N16", dtype, arguments(2, 16, 1000, 16))
        everything = arguments(2, 8, 1500, 8, fused=True, documents=[1, 0, 700, 2, 1000, 1000, 297])
        yield case("B2 D8 L1500 N8 everything", dtype, everything)
        yield state_case("B2 D8 L1500 N8 everything, states", dtype, everything)
    yield case("B1 D4 L5000 N5 two tiles", torch.bfloat16, arguments(1, 4, 5000, 5, fused=True))
    for count in (16, 32, 64):  # what takes most shared memory
        yield case(f"B2 D4 L1000 N{count} gated", torch.float32, arguments(2, 4, 1000, count, fused=True))
    yield case("B3 D4 L7 N32", torch.bfloat16, arguments(3, 4, 7, 32))
    yield case("B2 D16 L200 N64", torch.bfloat16, arguments(2, 16, 200, 64, fused=True))
    yield filter_case("D16 L10000 N16", {**modes(16, 16), "length": 10000})
    yield filter_case("D1 L1000003 N4", {**modes(1, 4, 1e-6), "length": 1_000_003})
