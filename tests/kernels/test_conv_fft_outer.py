"""The outer transform of long rows in registers and in two factors: its spectrum, and the way back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.verification import relative_error


def _transformed(rows: Tensor, outer: int, inner: int) -> Tensor:
    """(rows, outer inner) -> (rows, outer, inner): DFT at quarter bins along the first factor, times the whole's twiddles."""
    x = rows.view(-1, outer, inner).to(torch.complex128)
    bins = torch.arange(outer, dtype=torch.float64)[:, None] - 0.25
    turns = bins * torch.arange(outer) / outer
    matrix = torch.polar(torch.ones_like(turns), -2 * math.pi * turns) / outer**0.5
    turns = bins * torch.arange(inner) / (outer * inner)
    return (matrix @ x) * torch.polar(torch.ones_like(turns), -2 * math.pi * turns)


@pytest.mark.parametrize(("outer", "inner"), [(32, 128), (256, 32), (512, 32)])
def test_there_and_back(outer: int, inner: int, device: str) -> None:
    from kernels.conv_fft.launch_long import Long
    from kernels.conv_fft.launch_outer import outer_transform
    from kernels.conv_fft.rows import whole_rows
    from kernels.conv_fft.transforms import Plan

    batch, length = 5, outer * inner - 100
    generator = torch.Generator().manual_seed(0)
    u, pre, post = (torch.randn(batch, 1, length, generator=generator).to(device, torch.float16) for _ in range(3))
    rows = whole_rows(batch, 1, length, u.device)
    passes: Any = object.__new__(Long)
    passes.p = Plan(outer * inner, outer, inner, (16, 16), 16, 0.0)
    passes.outer = outer_transform(outer, inner, u.device)
    z, scales = passes._into(u, pre, rows, 0, 0, 1)
    scale = scales.double().cpu()[0].repeat_interleave(passes.outer.columns // 16, dim=1)
    z = z.double().cpu()[0] * scale.view(batch, 1, inner // 16, 1, 1)
    parts = torch.complex(z[:, :, :, 0], z[:, :, :, 1]).reshape(batch, outer, inner)
    v = (u.double() * pre.double())[:, 0].cpu()
    exact = _transformed(torch.nn.functional.pad(v, (0, 100)), outer, inner)
    assert relative_error(torch.view_as_real(parts), torch.view_as_real(exact)) < 2e-3
    y = torch.empty_like(u)
    largest = scales.amax(2, keepdim=True)  # the inner transform leaves one scale for the row
    z = (z / largest.double().cpu().view(batch, 1, 1, 1, 1)).to(torch.float16)[None].contiguous().to(device)
    scales = largest.expand(scales.shape).contiguous()
    passes._out_of(z, scales, torch.ones(1, device=u.device), rows, 0, 0, (post, y), (None, None))
    assert relative_error(y.cpu(), (v * post.double()[:, 0].cpu())[:, None]) < 2e-3
