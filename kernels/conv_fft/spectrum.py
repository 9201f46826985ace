"""A filter's spectrum in the kernels' order, and a spectrum's gradient back to the filter's."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.conv_fft.transforms import Plan, in_order, pack, thread_order, weights


def folded(k: Tensor, reverse: Tensor | None, points: int) -> Tensor:
    """(H, points) complex: the taps at lags 0 ... points - 1 in the real part; in the imaginary part, negated, lag n -
    points at n.

    k: (H, K), lag t at t. reverse: (H, K'), lag -(t + 1) at t. Taps that reach further than a row of `points` are left out.
    """
    causal = torch.nn.functional.pad(k[:, :points], (0, max(0, points - k.shape[1])))
    if reverse is None:
        return torch.complex(causal, torch.zeros_like(causal))
    # Lag -(t + 1) sits at points - 1 - t, and lag -points, at 0, reaches no row.
    before = reverse[:, : points - 1]
    before = torch.nn.functional.pad(before.flip(1), (points - before.shape[1], 0))
    return torch.complex(causal, -before)


def filter_spectrum(k: Tensor, reverse: Tensor | None, p: Plan) -> tuple[Tensor, Tensor]:
    """Packed float16 in the kernels' order, each channel scaled by a power of two to a largest part in [2, 4).

    In thread order: (H, outer, Na C keep). (H,) the scales.
    """
    n_a, n_b = p.factors
    values = torch.fft.fft(
        folded(k.float(), reverse if reverse is None else reverse.float(), p.points) * weights(p.points, k.device)
    )
    _, exponent = torch.frexp(torch.view_as_real(values).abs().amax((1, 2)))
    scale = torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent - 2)
    values = (values / scale[:, None]).view(-1, n_b, p.halves * n_a, p.outer)  # k = k1 + N1 (ka + NA (kc + C kb))
    if p.keep < n_b:
        values = values.roll(p.keep // 2, 1)[:, : p.keep]
    return thread_order(pack(values.permute(0, 3, 2, 1).contiguous()), 2 // p.halves).contiguous(), scale


def filter_gradients(gradient: Tensor, p: Plan, dk: Tensor, dreverse: Tensor | None) -> None:
    """Add to dk and dreverse what the spectrum's gradient (H, outer, 2, Na C keep), in thread order, is to the taps."""
    n_a, n_b = p.factors
    parts = in_order(gradient, p.halves * n_a, p.keep, 2 // p.halves)
    values = torch.complex(parts[:, :, 0], parts[:, :, 1]).permute(0, 3, 2, 1)
    if p.keep < n_b:
        left_out = values.new_zeros(len(values), n_b - p.keep, p.halves * n_a, p.outer)
        values = torch.cat([values, left_out], 1).roll(-(p.keep // 2), 1)
    # The kernels' transforms are unitary and the filter's is not: the inverse of their product is a plain sum.
    taps = torch.fft.ifft(values.reshape(-1, p.points), norm="forward") * weights(p.points, dk.device).conj()
    count = min(dk.shape[1], p.points)
    dk[:, :count] += taps.real[:, :count]
    if dreverse is not None:
        count = min(dreverse.shape[1], p.points - 1)
        dreverse[:, :count] -= taps.imag.flip(1)[:, :count]
