"""Length classes on streams side by side."""

from __future__ import annotations

import pytest
import torch

from kernels.conv_fft import conv_fft, streams
from kernels.conv_fft.streams import side_by_side


def test_results_in_order(device: str) -> None:
    like = torch.zeros(1, device=device)
    assert side_by_side(like, [lambda i=i: i for i in range(7)]) == list(range(7))
    assert side_by_side(like, []) == []


def test_a_work_that_fails(device: str) -> None:
    def fail() -> int:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        side_by_side(torch.zeros(1, device=device), [fail, lambda: 1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_as_many_streams_as_there_are_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    u, pre, post, dy = (torch.randn(4, 16, 32768, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    k = torch.randn(16, 32768, device="cuda") / 181
    leaves = [t.requires_grad_() for t in (u, k, pre, post)]
    ends = torch.randint(1, 4 * 32768, (200,), device="cuda").sort().values
    cu_seqlens = torch.cat([torch.zeros_like(ends[:1]), ends, torch.full_like(ends[:1], 4 * 32768)])
    found = []
    for count in (1, 2, 4):
        monkeypatch.setattr(streams, "STREAMS", count)
        streams._streams.cache_clear()
        y = conv_fft(u, k, pregate=pre, postgate=post, cu_seqlens=cu_seqlens)
        found.append([y, *torch.autograd.grad(y, leaves, dy)])
    streams._streams.cache_clear()
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
