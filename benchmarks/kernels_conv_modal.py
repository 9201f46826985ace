"""The modal scan, 16 modes, gated, 768 channels, 8K to 1M tokens; peer: torch's FFT with the same filter made by torch.

Ours and the peer are timed as CUDA graphs: several small kernels make the tables, and the host's calls would be measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kernels_bench import Bench, Row

# batch, length
_SHAPES = ((16, 8192), (4, 32768), (1, 131072), (1, 1048576))
_CHANNELS, _MODES = 768, 16


def by_fft(u: Tensor, filter: Tensor, pregate: Tensor, postgate: Tensor) -> Tensor:
    """The same with torch.fft in float32 and a filter that is there already."""
    length = u.shape[2]
    y = torch.fft.irfft(
        torch.fft.rfft(u.float() * pregate.float(), 2 * length) * torch.fft.rfft(filter, 2 * length), 2 * length
    )
    return (y[..., :length] * postgate.float()).to(u.dtype)


def rows(bench: Bench) -> Iterator[Row]:
    for batch, length in _SHAPES:
        yield from _rows(bench, batch, length)


def _rows(bench: Bench, batch: int, length: int) -> Iterator[Row]:
    from kernels_bench import Row

    from kernels.conv_modal import conv_modal, modal_filter
    from kernels.conv_modal.cases import modes

    parts = [part.to("cuda", torch.float32).requires_grad_() for part in modes(_CHANNELS, _MODES).values()]
    shape = (batch, _CHANNELS, length)
    u, pre, post = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))

    def ours() -> Tensor:
        return conv_modal(u, *parts, pregate=pre, postgate=post)

    label = f"B{batch} D{_CHANNELS} L{length} N{_MODES} gates"
    size = u.numel() * 2
    with torch.no_grad():
        filter = modal_filter(*parts, length)
        peer = bench.try_time(lambda: by_fft(u, filter, pre, post), graph=True)
        made = bench.graph_time(lambda: modal_filter(*parts, length))
    torch.cuda.empty_cache()
    yield Row("conv_modal", label, "forward", bench.bytes_floor(4 * size), bench.graph_time(ours), {"torch.fft": peer})
    backward = bench.gradient_graph_time(ours, [u, pre, post, *parts])
    yield Row("conv_modal", label, "backward", bench.bytes_floor(7 * size), backward)
    yield Row("modal_filter", f"D{_CHANNELS} L{length} N{_MODES}", "forward", bench.bytes_floor(filter.numel() * 4), made)
