"""Long convolution on FlashFFTConv's shapes, causal and gated in bfloat16, against torch.fft in float32; and packed documents.

torch.fft: `irfft(rfft(u * pregate, 2L) rfft(filter, 2L))[..., :L] * postgate` in float32, rounded at the end. Rows of up to
2048 samples are timed as CUDA graphs, ours and torch's, where launches would take longer than the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kernels.conv_fft import conv_fft
from kernels.conv_fft.launch_short import is_short
from kernels.conv_fft.transforms import plan

if TYPE_CHECKING:
    from kernels_bench import Bench, Row

# Length, batch and channels: FlashFFTConv's benchmark.
SHAPES = (
    (256, 64, 768),
    (512, 64, 768),
    (1024, 64, 768),
    (2048, 64, 768),
    (4096, 64, 768),
    (8192, 64, 768),
    (16384, 32, 768),
    (32768, 16, 768),
    (131072, 8, 384),
    (524288, 8, 96),
    (1 << 20, 8, 48),
)
# Batch, length, mean document length: packed documents.
PACKED = ((32, 8192, 1000), (4, 65536, 1000), (4, 65536, 4000))


def library(u: Tensor, k: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    length = u.shape[-1]
    spectrum = torch.fft.rfft(u.float() * pre.float(), 2 * length) * torch.fft.rfft(k, 2 * length)
    return (torch.fft.irfft(spectrum, 2 * length)[..., :length] * post.float()).to(u.dtype)


def ours(u: Tensor, k: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    return conv_fft(u, k, pregate=pre, postgate=post)


def arguments(batch: int, channels: int, length: int) -> tuple[list[Tensor], Tensor]:
    """u, filter and gates that want gradients, and an output's gradient."""
    generator = torch.Generator("cuda").manual_seed(length)

    def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(*shape, generator=generator, device="cuda", dtype=dtype)

    u, pre, post, dy = (random(batch, channels, length) for _ in range(4))
    k = random(channels, length, dtype=torch.float32) / length**0.5
    return [t.requires_grad_() for t in (u, k, pre, post)], dy


def graphed(bench: Bench, work: Callable[[], object]) -> float:
    """Time of the work as a CUDA graph: the GPU's, without launches."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return bench.time(graph.replay)


def lognormal_documents(tokens: int, mean: int) -> Tensor:
    """cu_seqlens of documents with lognormal lengths (sigma 1) that fill `tokens`."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randn(4 * tokens // mean + 8, generator=generator).exp()
    lengths = (lengths / lengths.mean() * mean).long().clamp_min(1)
    ends = lengths.cumsum(0)
    return torch.cat([torch.zeros(1, dtype=torch.long), ends[ends < tokens], torch.tensor([tokens])]).cuda()


def rows(bench: Bench) -> Iterator[Row]:
    for length, batch, channels in SHAPES:
        torch.cuda.empty_cache()
        yield from _dense(bench, length, batch, channels)
    for batch, length, mean in PACKED:
        torch.cuda.empty_cache()
        yield from _packed(bench, batch, length, mean)


def _dense(bench: Bench, length: int, batch: int, channels: int) -> Iterator[Row]:
    leaves, dy = arguments(batch, channels, length)
    p = plan(length)
    factors = " x ".join(str(n) for n in (p.factors[0], p.halves, p.factors[1]) if n > 1)
    how = f"{factors} fused" if p.outer == 1 else f"{p.outer} x ({factors})"
    if is_short(length, None, 1.0):
        how = "products of 64 x 64 taps"
    yield from _both(
        bench, f"B{batch} H{channels} L{length}", how, ours, "torch.fft float32", library, leaves, dy, graphs=length <= 2048
    )


def _packed(bench: Bench, batch: int, length: int, mean: int) -> Iterator[Row]:
    leaves, dy = arguments(batch, 768, length)
    cu_seqlens = lognormal_documents(batch * length, mean)
    longest = min(length, int(cu_seqlens.diff().max()))

    def isolated(u: Tensor, k: Tensor, pre: Tensor, post: Tensor) -> Tensor:
        return conv_fft(u, k, pregate=pre, postgate=post, cu_seqlens=cu_seqlens, longest_document=longest)

    shape = f"B{batch} H768 L{length}, documents of {mean}"
    yield from _both(bench, shape, "isolated documents", isolated, "not isolated", ours, leaves, dy, graphs=True)


def _both(
    bench: Bench, shape: str, how: str, work: Callable[..., Tensor], peer_name: str, peer: Callable[..., Tensor],
    leaves: list[Tensor], dy: Tensor, graphs: bool,
) -> Iterator[Row]:  # fmt: skip
    """A row for the forward pass, and one for both; of four and eleven tensors of traffic."""
    from kernels_bench import Row

    def timed(step: Callable[[], object]) -> float | None:
        try:
            return graphed(bench, step) if graphs else bench.time(step)
        except torch.OutOfMemoryError:
            return None

    size = 2 * leaves[0].numel()
    for direction, tensors in (("forward", 4), ("forward+backward", 11)):
        if tensors == 4:
            found = [timed(lambda f=f: f(*leaves)) for f in (work, peer)]
        else:
            found = [timed(lambda f=f: torch.autograd.grad(f(*leaves), leaves, dy)) for f in (work, peer)]
        assert found[0] is not None
        yield Row("conv_fft", shape, direction, bench.bytes_floor(tensors * size), found[0], {peer_name: found[1]}, how)
