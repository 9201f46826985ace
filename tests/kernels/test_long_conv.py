"""The choice among the convolutions: each operator gives the same answer, and the choice follows the filter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernels.conv_fft import reference
from kernels.conv_modal import modal_filter
from kernels.long_conv import Modes, choose, long_conv
from kernels.verification import relative_error


@pytest.fixture
def arguments() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    u, pregate, postgate = (torch.randn(2, 4, 100, generator=generator, dtype=torch.float64) for _ in range(3))
    document_starts = torch.tensor([0] * 30 + [30] * 70, dtype=torch.int32).expand(2, 100).contiguous()
    return {"u": u, "pregate": pregate, "postgate": postgate, "document_starts": document_starts}


@pytest.mark.usefixtures("reference_only")
@pytest.mark.parametrize(("taps", "filters", "operator"), [
    (1, 4, "conv_fir"), (4, 4, "conv_fir"), (7, 2, "conv_fir"), (60, 4, "conv_toeplitz"), (60, 2, "conv_toeplitz"),
])  # fmt: skip
@pytest.mark.parametrize("with_skip", [False, True])
def test_short_filters(arguments: dict[str, Any], taps: int, filters: int, operator: str, with_skip: bool) -> None:
    said: list[str] = []
    filter = torch.randn(filters, taps, dtype=torch.float64)
    skip = torch.randn(4, dtype=torch.float64) if with_skip else None
    y = long_conv(**arguments, filter=filter, skip=skip, explain=said.append)
    assert said[0].startswith(operator)
    taps_of_each = filter.repeat_interleave(4 // filters, 0)
    if skip is not None:
        taps_of_each[:, 0] += skip
    u, pre, post, starts = arguments.values()
    assert relative_error(y, reference.conv_fft(u, taps_of_each, None, pre, post, starts)) < 1e-12


@pytest.mark.usefixtures("reference_only")
def test_modes_are_a_scan_and_the_filter_they_stand_for(arguments: dict[str, Any]) -> None:
    modes = Modes(-torch.rand(4, 3).double(), torch.rand(4, 3).double(), torch.randn(4, 3, 2).double())
    said: list[str] = []
    y = long_conv(**arguments, filter=modes, explain=said.append)
    assert said[0].startswith("conv_modal: 3 modes")
    taps = modal_filter(modes.decay, modes.frequency, modes.residue, 100)
    u, pre, post, starts = arguments.values()
    assert relative_error(y, reference.conv_fft(u, taps, None, pre, post, starts)) < 1e-6


@pytest.mark.usefixtures("reference_only")
def test_only_the_transform_is_two_sided_or_sparse(arguments: dict[str, Any]) -> None:
    said: list[str] = []
    filter = torch.randn(2, 5, dtype=torch.float64)
    y = long_conv(**arguments, filter=filter, reverse_filter=filter, explain=said.append)
    assert said[0].startswith("conv_fft: a two-sided filter")
    u, pre, post, starts = arguments.values()
    each = filter.repeat_interleave(2, 0)
    assert relative_error(y, reference.conv_fft(u, each, each, pre, post, starts)) < 1e-12
    assert choose(4, 4096, torch.bfloat16, sparse=True).operator == "conv_fft"


def test_the_choice_follows_length_and_dtype() -> None:
    half = torch.bfloat16
    assert choose(4, 8192, half).operator == "conv_fir"
    assert choose(128, 8192, half).operator == "conv_toeplitz"
    assert choose(1 << 20, 1 << 20, half).operator == "conv_fft"
    assert choose(2048, 1 << 17, torch.float32).operator == "conv_fft"
    times = [choose(4096, n, half).picoseconds["conv_fft"] for n in (4096, 1 << 15, 1 << 20)]
    assert times == sorted(times)


@pytest.mark.parametrize(("change", "message"), [
    ({"filter": torch.zeros(3, 4)}, "4 channels and 3 filters"),
    ({"u": torch.zeros(4, 5)}, "u has shape"),
    ({"skip": torch.zeros(3)}, "skip has shape"),
    ({"filter": Modes(*torch.zeros(2, 4, 1), torch.zeros(4, 1, 2)), "kept_frequencies": 0.5}, "a scan is causal"),
])  # fmt: skip
def test_errors_say_what_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        long_conv(**{"u": torch.zeros(1, 4, 10), "filter": torch.zeros(4, 3)} | change)
