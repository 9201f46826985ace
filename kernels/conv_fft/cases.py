"""What `python -m kernels.check conv_fft` runs: every factorisation, gates, two-sided filters, documents, odd lengths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kernels.conv_fft import conv_fft, reference
from kernels.verification import CONVOLUTION_LIMITS, Case

_FILTERS = ("filter", "reverse_filter", "skip")


def exact(
    u: Tensor,
    filter: Tensor,
    reverse_filter: Tensor | None = None,
    skip: Tensor | None = None,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    kept_frequencies: float = 1.0,
    document_starts: Tensor | None = None,
) -> Tensor:
    """The reference with the public function's arguments."""
    if skip is not None:
        filter = torch.cat([filter[:, :1] + skip[:, None], filter[:, 1:]], 1)
    return reference.conv_fft(u, filter, reverse_filter, pregate, postgate, document_starts, kept_frequencies)


def half_precision(
    u: Tensor,
    filter: Tensor,
    reverse_filter: Tensor | None = None,
    skip: Tensor | None = None,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    kept_frequencies: float = 1.0,
    document_starts: Tensor | None = None,
) -> Tensor:
    """The FFT in float16 as torch has it on CUDA for powers of two: each transform's result is rounded to float16."""
    del kept_frequencies, document_starts

    def rounded(x: Tensor) -> Tensor:
        return torch.view_as_complex(torch.view_as_real(x).half().float()) if x.is_complex() else x.half().float()

    length = u.shape[-1]
    if skip is not None:
        filter = torch.cat([filter[:, :1] + skip[:, None], filter[:, 1:]], 1)
    x = (u if pregate is None else u * pregate).float()
    taps = torch.nn.functional.pad(filter[:, :length], (0, 2 * length - min(length, filter.shape[1])))
    if reverse_filter is not None:
        before = reverse_filter[:, : length - 1].flip(1)
        taps = taps + torch.nn.functional.pad(before, (2 * length - before.shape[1], 0))
    spectrum = rounded(torch.fft.rfft(taps))
    product = rounded(rounded(torch.fft.rfft(x, 2 * length, norm="ortho")) * spectrum)
    y = torch.fft.irfft(product, 2 * length, norm="ortho")[..., :length].to(u.dtype)
    return y if postgate is None else y * postgate


def case(
    name: str, batch: int, channels: int, length: int, taps: int = 0, *,
    dtype: torch.dtype = torch.bfloat16, gates: bool = True,
    two_sided: bool = False, skip: bool = False, kept: float = 1.0, documents: tuple[int, ...] = (), loud: float = 1.0,
) -> Case:  # fmt: skip
    """Random data; `loud` multiplies every second row. documents: their lengths, over all rows in order."""
    generator = torch.Generator().manual_seed(length)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    taps = taps or length
    u = random(batch, channels, length)
    u[1::2] *= loud
    arguments: dict[str, Any] = {"u": u, "filter": random(channels, taps) / taps**0.5}
    if two_sided:
        arguments["reverse_filter"] = random(channels, taps) / taps**0.5
    if skip:
        arguments["skip"] = random(channels)
    if gates:
        arguments |= {"pregate": random(batch, channels, length), "postgate": random(batch, channels, length)}
    if kept < 1:
        arguments["kept_frequencies"] = kept
    if documents:
        starts = torch.cat([torch.full((n,), sum(documents[:i])) for i, n in enumerate(documents)])
        rows = torch.arange(batch)[:, None] * length
        arguments["document_starts"] = (starts.view(batch, length) - rows).clamp_min(0).to(torch.int32)
    plain = half_precision if dtype == torch.float16 and not documents and kept == 1 else None
    return Case("conv_fft", name, conv_fft, exact, arguments, dtype, _FILTERS, plain=plain, limits=CONVOLUTION_LIMITS)


def cases() -> Iterator[Case]:
    half = torch.float16
    for length in (256, 512, 1024, 2048, 4096, 8192):
        yield case(f"gated, skip, {length}", 6, 16, length, skip=True)
    for length in (16384, 32768, 131072):
        yield case(f"gated, {length}", 2, 8, length)
    yield case("gated, 1M", 2, 2, 1 << 20, dtype=half)
    for length in (256, 1024, 16384):
        yield case(f"gated, {length}", 3, 8, length, dtype=half)
    for length in (1, 17, 255, 1000, 3001, 5000, 9001, 40000):
        yield case(f"two-sided, {length}", 3, 4, length, two_sided=True)
    yield case("no gates, no skip, 100 taps", 5, 16, 2048, 100, gates=False)
    yield case("no gates, 100 taps, 20000", 3, 8, 20000, 100, gates=False)
    yield case("filter longer than the row", 3, 4, 300, 1000, two_sided=True)
    # Every factorisation of long rows, and of frequency-sparse filters: see `tests/kernels/test_conv_fft.py`.
    for length in (65536, 90000, 262144, 524288, 2_000_000, 4_000_000):
        yield case(f"gated, {length}", 1, 1, length)
    for length, kept in ((1024, 0.5), (2000, 0.5), (4096, 0.25), (4096, 0.5), (8192, 0.25), (8192, 0.5), (65536, 0.5)):
        yield case(f"{kept} of the frequencies, {length}", 3, 4, length, kept=kept, two_sided=True)
    for length in (16384, 30000, 49000, 90000, 131072, 262144, 524288, 1 << 20, 2_000_000, 4_000_000):
        yield case(f"0.5 of the frequencies, {length}", 1, 1, length, kept=0.5)
    yield case("rows 10^4 to 1", 4, 8, 4000, loud=1e4)
    documents = (1, 3, 500, 260, 0, 700, 632, 1000, 1096, 4096, 2, 4094, 1, 4095)
    yield case("documents", 2, 8, 8192 + 48, documents=documents, two_sided=True)
    yield case("documents, long", 1, 4, 60000, documents=(100, 9000, 300, 20000, 5000, 25600))
    yield case("float32", 2, 4, 3000, dtype=torch.float32)
