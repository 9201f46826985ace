"""FIR filters of 65 to 1024 taps, per channel and shared by groups (StripedHyena 2's filters); peer: torch's FFT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kernels_bench import Bench, Row

# batch, channels, length, filters, taps, gated
_SHAPES = (
    (16, 768, 8192, 768, 65, True),
    (16, 768, 8192, 768, 128, False),
    (16, 768, 8192, 768, 128, True),
    (8, 4096, 8192, 256, 128, True),
    (16, 768, 8192, 768, 512, True),
    (16, 768, 8192, 768, 1024, True),
)


def by_fft(u: Tensor, filter: Tensor, pregate: Tensor | None, postgate: Tensor | None) -> Tensor:
    """The same with torch.fft in float32."""
    length = u.shape[2]
    size = length + filter.shape[1]
    v = u.float() if pregate is None else u.float() * pregate.float()
    taps = filter.float().repeat_interleave(u.shape[1] // filter.shape[0], dim=0)
    y = torch.fft.irfft(torch.fft.rfft(v, size) * torch.fft.rfft(taps, size), size)[..., :length]
    return (y if postgate is None else y * postgate.float()).to(u.dtype)


def rows(bench: Bench) -> Iterator[Row]:
    for shape in _SHAPES:
        yield from _rows(bench, *shape)


def _rows(bench: Bench, batch: int, channels: int, length: int, filters: int, taps: int, gated: bool) -> Iterator[Row]:
    from kernels_bench import Row

    from kernels.conv_toeplitz import conv_toeplitz

    shape = (batch, channels, length)
    u, pre, post = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    filter = torch.randn(filters, taps, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    gates = {"pregate": pre, "postgate": post} if gated else {}

    def ours() -> Tensor:
        return conv_toeplitz(u, filter, **gates)

    label = f"B{batch} D{channels} L{length} filters {filters} K{taps}" + " gates" * gated
    chunk = 64 if taps <= 129 else 128
    operations = 2 * u.numel() * chunk * (1 + -(-(taps - 1) // chunk))
    size = u.numel() * 2
    floor = max(bench.bytes_floor((4 if gated else 2) * size), bench.operations_floor(operations))
    with torch.no_grad():
        peer = bench.try_time(lambda: by_fft(u, filter, gates.get("pregate"), gates.get("postgate")), graph=True)
    yield Row("conv_toeplitz", label, "forward", floor, bench.graph_time(ours), {"torch.fft": peer})
    floor = max(bench.bytes_floor((7 if gated else 3) * size), bench.operations_floor((3 if gated else 2) * operations))
    yield Row("conv_toeplitz", label, "backward", floor, bench.gradient_graph_time(ours, [u, filter, *gates.values()]))
