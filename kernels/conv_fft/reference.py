"""The long convolution in plain torch, any dtype up to float64: what the kernels are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.conv_fft.spectrum import folded
from kernels.conv_fft.transforms import plan
from kernels.differentiation import vjp


def conv_fft(
    u: Tensor,
    filter: Tensor,
    reverse_filter: Tensor | None = None,
    pre: Tensor | None = None,
    post: Tensor | None = None,
    document_starts: Tensor | None = None,
    fraction: float = 1.0,
) -> Tensor:
    """post * (filter convolved with (u * pre)), each document by itself.

    u, pre, post: (B, H, L). filter: (H, K), lags 0 ... K - 1. reverse_filter: (H, K'), lags -1 ... -K'. document_starts: (B,
    L). fraction: of the frequencies of the transform that the kernels take, the lowest ones, that are kept. Half precision is
    computed in float32 and rounded at the end.
    """
    wide = torch.promote_types(u.dtype, torch.float32)
    x = u.to(wide) if pre is None else u.to(wide) * pre.to(wide)
    k = filter.to(wide)
    r = None if reverse_filter is None else reverse_filter.to(wide)
    if document_starts is None or x.numel() == 0:
        y = _convolve(x, k, r, fraction)
    else:
        y = torch.stack([_documents(row, k, r, starts, fraction) for row, starts in zip(x, document_starts, strict=True)])
    if post is not None:
        y = y * post.to(wide)
    return y.to(u.dtype)


def _documents(row: Tensor, k: Tensor, r: Tensor | None, starts: Tensor, fraction: float) -> Tensor:
    """(H, L), each document convolved alone."""
    _, lengths = torch.unique_consecutive(starts, return_counts=True)
    return torch.cat([_convolve(part, k, r, fraction) for part in row.split(lengths.tolist(), dim=1)], 1)


def _convolve(x: Tensor, k: Tensor, r: Tensor | None, fraction: float) -> Tensor:
    length = x.shape[-1]
    if x.numel() == 0:  # what no library transforms; the product keeps the graph
        return x * (k.sum() if r is None else k.sum() + r.sum())
    if fraction < 1:
        return _band_limited(x, k, r, fraction)
    spectrum = torch.fft.rfft(k[:, :length], 2 * length)
    if r is not None:
        before = r[:, : length - 1].flip(1)  # lag -t at 2 length - t
        spectrum = spectrum + torch.fft.rfft(torch.nn.functional.pad(before, (2 * length - before.shape[1], 0)), 2 * length)
    return torch.fft.irfft(torch.fft.rfft(x, 2 * length) * spectrum, 2 * length)[..., :length]


def _band_limited(x: Tensor, k: Tensor, r: Tensor | None, fraction: float) -> Tensor:
    """The right-angle convolution, of which the kernels' factorisation keeps the lowest frequencies."""
    length = x.shape[-1]
    p = plan(length, fraction)
    n = torch.arange(p.points, dtype=torch.float64, device=x.device) * (torch.pi / (2 * p.points))
    w = torch.polar(torch.ones_like(n), n).to(torch.promote_types(x.dtype, torch.complex64))
    spectrum = torch.fft.fft(folded(k, r, p.points) * w)
    kept = round(p.points * p.keep / p.factors[1]) // 2
    mask = torch.zeros(p.points, dtype=x.dtype, device=x.device)
    mask[:kept] = mask[p.points - kept :] = 1
    z = torch.fft.ifft(torch.fft.fft(torch.nn.functional.pad(x, (0, p.points - length)) * w) * (spectrum * mask)) * w.conj()
    return z.real[..., :length]


def forward(
    u: Tensor, k: Tensor, reverse: Tensor | None, pre: Tensor | None, post: Tensor | None,
    document_starts: Tensor | None, fraction: float, longest: int, table: Tensor | None = None,
) -> Tensor:  # fmt: skip
    return conv_fft(u, k, reverse, pre, post, document_starts, fraction)


def backward(
    dy: Tensor, u: Tensor, k: Tensor, reverse: Tensor | None, pre: Tensor | None, post: Tensor | None,
    document_starts: Tensor | None, fraction: float, longest: int, table: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    du, dk, dreverse, dpre, dpost, *_ = vjp(conv_fft, (u, k, reverse, pre, post, document_starts, fraction), (dy,))
    return du, dk, dreverse, dpre, dpost  # type: ignore[return-value]
