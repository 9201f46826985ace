"""The short convolution against causal-conv1d's shapes: B 16, L 8192, 3 and 4 taps; peers: torch, torch.compile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from kernels_bench import Bench, Row

_SHAPES = ((16, 8192, 2048), (16, 8192, 8192))


def shift_and_add(u: Tensor, weight: Tensor, time: int) -> Tensor:
    """The convolution as torch.compile fuses it: a sum of padded slices."""
    taps, length = weight.shape[1], u.shape[time]
    pad = (0, 0, taps - 1, 0) if time == 1 else (taps - 1, 0)
    padded = F.pad(u, pad)
    shape = (1, 1, -1) if time == 1 else (1, -1, 1)
    return sum(weight[:, j].view(shape) * padded.narrow(time, taps - 1 - j, length) for j in range(taps))  # type: ignore[return-value]


def rows(bench: Bench) -> Iterator[Row]:
    for shape in _SHAPES:
        for layout in ("bld", "bdl"):
            for taps, silu, gates in ((3, False, False), (4, False, False), (4, True, False), (4, True, True)):
                yield from _rows(bench, *shape, layout, taps, silu, gates)


def _rows(
    bench: Bench, batch: int, length: int, channels: int, layout: str, taps: int, silu: bool, gates: bool
) -> Iterator[Row]:
    from kernels_bench import Row

    from kernels.conv_fir import conv_fir

    shape = (batch, length, channels) if layout == "bld" else (batch, channels, length)
    u, pre, post = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    weight = torch.randn(channels, taps, device="cuda", requires_grad=True)
    bias = torch.randn(channels, device="cuda", requires_grad=True) if silu else None
    fused = {"pregate": pre, "postgate": post} if gates else {}

    def ours() -> Tensor:
        return conv_fir(u, weight, bias=bias, silu=silu, layout=layout, **fused)

    peers: dict[str, float | None] = {}
    if taps == 4 and not silu and channels == 2048:
        compiled = torch.compile(shift_and_add, dynamic=False)
        narrow = weight.detach().bfloat16()
        with torch.no_grad():
            peers["torch.compile"] = bench.try_time(lambda: compiled(u, narrow, 1 if layout == "bld" else 2))
            if layout == "bdl":
                kernel = narrow.flip(1)[:, None]
                peers["torch conv1d"] = bench.try_time(lambda: F.conv1d(u, kernel, padding=taps - 1, groups=channels))
    label = f"{layout} B{batch} L{length} D{channels} K{taps}" + " SiLU" * silu + " gates" * gates
    size = u.numel() * 2
    yield Row("conv_fir", label, "forward", bench.bytes_floor((4 if gates else 2) * size), bench.time(ours), peers)
    backward = bench.gradient_time(ours, [u, weight, *fused.values()])
    yield Row("conv_fir", label, "backward", bench.bytes_floor((7 if gates else 3) * size), backward)
