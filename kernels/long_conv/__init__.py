"""A convolution along time with whatever kernel is fastest for its filter.

`long_conv` chooses among the four and can say which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.arguments import check_range, check_shape, check_tensors

__all__ = ["Choice", "Modes", "choose", "long_conv"]

# What a kernel reaches of a card's bytes and operations per second, for the choice: measured on an H100 SXM.
_BANDWIDTH = 2.6e12
_TOEPLITZ = {torch.bfloat16: 1.9e14, torch.float16: 1.9e14, torch.float32: 4.0e13}
_MODAL = {torch.bfloat16: 7.7e13, torch.float16: 7.7e13, torch.float32: 2.0e13}
# Seconds per sample of the library's FFT in float32.
_LIBRARY = 5.5e-11
_SHORT, _TOEPLITZ_TAPS = 8, 2048


@dataclass(frozen=True)
class Modes:
    """A filter that is a sum of exponentials, k[t] = sum_n Re(r_n exp((decay_n + i frequency_n) t)): see `kernels.conv_modal`.

    decay, frequency: (channels, modes); residue: (channels, modes, 2).
    """

    decay: Tensor
    frequency: Tensor
    residue: Tensor


@dataclass(frozen=True)
class Choice:
    """operator: conv_fir, conv_toeplitz, conv_modal or conv_fft.

    picoseconds: the model's estimate per sample of each candidate.
    """

    operator: str
    picoseconds: dict[str, float]
    reason: str

    def __str__(self) -> str:
        others = ", ".join(f"{name} {time:.1f}" for name, time in self.picoseconds.items())
        return f"{self.operator}: {self.reason} (model, ps per sample: {others})"


def choose(
    taps: int, length: int, dtype: torch.dtype, *, modes: int = 0, gates: int = 2, two_sided: bool = False, sparse: bool = False
) -> Choice:
    """Which operator convolves rows of `length` samples fastest with `taps` taps (or `modes` exponentials).

    The model: a sample costs the larger of its bytes over the bandwidth and its operations over the tensor cores' rate.
    conv_fir moves u, y and the gates. conv_toeplitz does 256 (taps / 128 + 1) operations, conv_modal 2 x 64 + 16 modes,
    conv_fft what `kernels.conv_fft.transforms.plan` says; float32 takes the library's FFT there.
    """
    from kernels.conv_fft.transforms import plan

    length = max(length, 1)
    taps = min(taps, length)
    width = torch.finfo(dtype).bits // 8
    moved = (2 + gates) * width / _BANDWIDTH
    half = dtype in (torch.float16, torch.bfloat16)
    rate = torch.float32 if dtype == torch.float64 else dtype
    if modes:
        time = max(moved, (128 + 16 * modes) / _MODAL[rate])
        reason = f"{modes} modes are a scan: one read and one write at any length"
        return Choice("conv_modal", {"conv_modal": 1e12 * time}, reason)
    found: dict[str, float] = {}
    if not two_sided and not sparse:
        if taps <= _SHORT:
            found["conv_fir"] = moved
        elif taps <= _TOEPLITZ_TAPS:
            found["conv_toeplitz"] = max(moved, 256 * (taps / 128 + 1) / _TOEPLITZ[rate])
    found["conv_fft"] = plan(length, gated=gates > 0).seconds / length if half else _LIBRARY
    operator, least = "conv_fft", found["conv_fft"]
    for name, time in found.items():
        if time < least:
            operator, least = name, time
    reason = f"{taps} taps over {length} samples in {str(dtype).removeprefix('torch.')}"
    if two_sided or sparse:
        reason = ("a two-sided" if two_sided else "a frequency-sparse") + " filter has the transform only"
    return Choice(operator, {name: 1e12 * time for name, time in found.items()}, reason)


def long_conv(
    u: Tensor,
    filter: Tensor | Modes,
    *,
    reverse_filter: Tensor | None = None,
    skip: Tensor | None = None,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    kept_frequencies: float = 1.0,
    cu_seqlens: Tensor | None = None,
    document_starts: Tensor | None = None,
    longest_document: int | None = None,
    explain: Callable[[str], Any] | None = None,
) -> Tensor:
    """y = postgate * (filter * (pregate * u) + skip (pregate * u)) by the operator that `choose` names.

    u, pregate, postgate: (batch, channels, length). filter: (filters, taps), lags 0 ... taps - 1, channels a multiple of
    filters (groups of channels share one); or `Modes`. reverse_filter, kept_frequencies, longest_document: see
    `kernels.conv_fft`. skip: (channels,). cu_seqlens or document_starts: documents that are convolved each by itself
    (`kernels.documents`). explain: called with one line that says which operator runs and why (`print`, say). Returns a
    tensor like u; differentiable once in every tensor. ValueError on anything else.
    """
    check_tensors("long_conv", u=u)
    check_shape("long_conv", "u", u, (None, None, None), "(batch, channels, length)")
    channels, length = u.shape[1:]
    given: dict[str, Any] = {
        "pregate": pregate,
        "postgate": postgate,
        "cu_seqlens": cu_seqlens,
        "document_starts": document_starts,
    }
    dtype = torch.get_autocast_dtype(u.device.type) if torch.is_autocast_enabled(u.device.type) else u.dtype
    gates = (pregate is not None) + (postgate is not None)
    if isinstance(filter, Modes):
        if reverse_filter is not None or kept_frequencies != 1:
            raise ValueError(
                "long_conv: Modes with reverse_filter or kept_frequencies; a scan is causal and has no frequencies to drop: "
                "give the taps, kernels.conv_modal.modal_filter(...)"
            )
        choice = choose(length, length, dtype, modes=filter.decay.shape[-1], gates=gates)
    else:
        if isinstance(filter, tuple):
            raise TypeError("long_conv: filter is a tuple; modes go in as long_conv.Modes(decay, frequency, residue)")
        check_tensors("long_conv", u=u, filter=filter)
        check_shape("long_conv", "filter", filter, (None, None), "(filters, taps)")
        check_range("long_conv", "filter taps", filter.shape[1], 1, 1 << 31, "give it at least one tap")
        if not filter.shape[0] or channels % filter.shape[0]:
            raise ValueError(
                f"long_conv: {channels} channels and {filter.shape[0]} filters; channels must be a multiple of filters"
            )
        if reverse_filter is not None:
            check_tensors("long_conv", u=u, reverse_filter=reverse_filter)
            meaning = "(filters, taps), as many filters as filter has, or one for each channel"
            count = channels if len(reverse_filter) == channels else filter.shape[0]
            check_shape("long_conv", "reverse_filter", reverse_filter, (count, None), meaning)
        if skip is not None:
            check_shape("long_conv", "skip", skip, (channels,), "(channels,)")
        choice = choose(
            filter.shape[1], length, dtype, gates=gates, two_sided=reverse_filter is not None, sparse=kept_frequencies != 1
        )
    if explain is not None:
        explain(str(choice))
    if isinstance(filter, Modes):
        from kernels.conv_modal import conv_modal

        return conv_modal(u, filter.decay, filter.frequency, filter.residue, skip=skip, **given)
    if choice.operator == "conv_fft":
        from kernels.conv_fft import conv_fft

        if reverse_filter is not None:
            reverse_filter = _per_channel(reverse_filter, channels)
        return conv_fft(
            u, _per_channel(filter, channels), reverse_filter=reverse_filter, skip=skip, kept_frequencies=kept_frequencies,
            longest_document=longest_document, **given,
        )  # fmt: skip
    filter = filter[:, : max(length, 1)]
    if skip is not None:
        filter = _per_channel(filter, channels)
        filter = torch.cat([filter[:, :1] + skip[:, None].to(filter.dtype), filter[:, 1:]], 1)
    if filter.shape[1] == 1:
        filter = torch.nn.functional.pad(filter, (0, 1))
    if choice.operator == "conv_fir":
        from kernels.conv_fir import conv_fir

        return conv_fir(u, _per_channel(filter, channels), layout="bdl", **given)
    from kernels.conv_toeplitz import conv_toeplitz

    return conv_toeplitz(u, filter, **given)


def _per_channel(filter: Tensor, channels: int) -> Tensor:
    """Filters that groups of channels share, one for each channel."""
    return filter if len(filter) == channels else filter.repeat_interleave(channels // len(filter), dim=0)
