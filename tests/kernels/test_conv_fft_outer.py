"""The outer transform of long rows in two factors: its spectrum, and the way back, by rows read ahead or one by one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.verification import relative_error

_OUTER, _INNER = 256, 32


def _transformed(rows: Tensor) -> Tensor:
    """(rows, 256 32) -> (rows, 256, 32): DFT at quarter bins along the first factor, times the whole's twiddles."""
    x = rows.view(-1, _OUTER, _INNER).to(torch.complex128)
    bins = torch.arange(_OUTER, dtype=torch.float64)[:, None] - 0.25
    turns = bins * torch.arange(_OUTER) / _OUTER
    matrix = torch.polar(torch.ones_like(turns), -2 * math.pi * turns) / _OUTER**0.5
    turns = bins * torch.arange(_INNER) / (_OUTER * _INNER)
    return (matrix @ x) * torch.polar(torch.ones_like(turns), -2 * math.pi * turns)


@pytest.mark.parametrize("early", [False, True])
def test_there_and_back(early: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.conv_fft import launch_long
    from kernels.conv_fft.rows import whole_rows
    from kernels.conv_fft.transforms import Plan, pack

    tile = launch_long.two_factor_tile(_OUTER) | {"EARLY": early}
    monkeypatch.setattr(launch_long, "two_factor_tile", lambda outer: tile)
    batch, length = 5, _OUTER * _INNER - 100
    generator = torch.Generator().manual_seed(0)
    u, pre, post = (torch.randn(batch, 1, length, generator=generator).to(device, torch.float16) for _ in range(3))
    rows = whole_rows(batch, 1, length, u.device)
    p = Plan(_OUTER * _INNER, _OUTER, _INNER, (16, 16), 16, 0.0)
    passes: Any = object.__new__(launch_long.Long)
    passes.p, passes.in_two, passes.columns = p, True, tile["BC"]
    passes.ends = _ends(u.device)
    z, scales = passes._into(u, pre, rows, 0, 0, 1)
    parts = torch.view_as_complex(z.cpu().view(torch.float16).float().view(*z.shape, 2))
    parts = parts.view(batch, _OUTER, _INNER // 16, 16) * scales.cpu().view(batch, 1, -1, 1)
    v = (u.double() * pre.double())[:, 0].cpu()
    exact = _transformed(torch.nn.functional.pad(v, (0, 100)))
    assert relative_error(torch.view_as_real(parts.view(exact.shape)), torch.view_as_real(exact)) < 2e-3
    y = torch.empty_like(u)
    largest = scales.amax(2, keepdim=True)  # the inner transform leaves one scale for the row
    z = pack((parts / largest.cpu().view(batch, 1, 1, 1)).to(torch.complex64)).view(z.shape).to(device)
    scales = largest.expand(scales.shape).contiguous()
    passes._out_of(z, scales, torch.ones(1, device=u.device), rows, 0, 0, (post, y), (None, None))
    assert relative_error(y.cpu(), (v * post.double()[:, 0].cpu())[:, None]) < 2e-3


def _ends(device: torch.device) -> tuple[Tensor, ...]:
    from kernels.conv_fft.transforms import plain_matrix, twiddles, twiddles_in_two, weighted_matrix

    between = twiddles(16, 16, True, device), twiddles_in_two((16, 16), _INNER, device)
    return *weighted_matrix(16, 1, device), *plain_matrix(16, 1, device), *between
