"""Causal rows of up to 256 samples of the long convolution: products with Toeplitz matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.conv_fft import cases, conv_fft, reference
from kernels.verification import relative_error, verify

HALF, BRAIN = torch.float16, torch.bfloat16


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter runs programs one after the other: as few as a channel needs."""
    from kernels.conv_fft import launch_short

    if not torch.cuda.is_available():
        monkeypatch.setattr(launch_short, "PROGRAMS", 2)


@pytest.mark.parametrize(
    "case",
    [
        cases.case("one block", 3, 2, 64, dtype=HALF),
        cases.case("whole blocks, a whole tile", 64, 1, 256),
        cases.case("two blocks, none full, fewer taps", 3, 1, 121, 17),
        cases.case("three blocks", 2, 1, 192, dtype=HALF, skip=True),
        cases.case("four blocks, more taps", 33, 1, 250, 300),
        cases.case("more taps than samples, no gates", 2, 2, 100, 1000, gates=False),
        cases.case("more than a tile", 70, 1, 40),
        cases.case("documents", 2, 1, 512, documents=(1, 3, 260, 8, 240, 300, 7, 205)),
        cases.case("documents, odd rows", 1, 2, 333, documents=(70, 1, 200, 62), gates=False),
    ],
    ids=lambda case: case.name,
)
def test_values_and_gradients_are_the_references(case: Any, device: str) -> None:
    assert not verify(case, device).failures


@pytest.mark.parametrize("programs", [1, 64])
def test_several_tiles(programs: int, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """By one program, and by one each: of rows, and of documents, whose last tile is not full."""
    from kernels.conv_fft import launch_short

    monkeypatch.setattr(launch_short, "PROGRAMS", programs)
    assert not verify(cases.case("rows", 70, 1, 64), device).failures
    assert not verify(cases.case("documents", 1, 1, 560, documents=(8,) * 70), device).failures


def _run(u: Tensor, k: Tensor, pre: Tensor, post: Tensor, dy: Tensor, **more: Any) -> list[Tensor]:
    """y, du, dk, dpre and dpost."""
    leaves = [t.clone().requires_grad_() for t in (u, k, pre, post)]
    y = conv_fft(leaves[0], leaves[1], pregate=leaves[2], postgate=leaves[3], **more)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


@pytest.fixture(params=[256, 200])
def arguments(request: pytest.FixtureRequest, device: str) -> list[Tensor]:
    """u, k, pre, post, dy of three rows."""
    generator = torch.Generator().manual_seed(request.param)
    u, pre, post, dy = (torch.randn(3, 1, request.param, generator=generator).to(device, BRAIN) for _ in range(4))
    return [u, torch.randn(1, request.param, generator=generator).to(device), pre, post, dy]


@pytest.mark.parametrize("cut", [1, 64, 101])
@pytest.mark.parametrize("loud", [1.0, 1e3])
def test_the_future_moves_no_bit(loud: float, cut: int, arguments: list[Tensor]) -> None:
    u, k, pre, post, dy = arguments
    before = _run(*arguments)
    changed = u.clone()
    changed[..., cut:] = loud * torch.randn_like(changed[..., cut:])
    after = _run(changed, k, pre, post, dy)
    for i in (0, 4):
        assert torch.equal(before[i][..., :cut], after[i][..., :cut])
        assert not torch.equal(before[i][..., cut:], after[i][..., cut:])
    changed = dy.clone()
    changed[..., :cut] = loud * torch.randn_like(changed[..., :cut])
    after = _run(u, k, pre, post, changed)
    for i in (1, 3):  # gradients flow the other way
        assert torch.equal(before[i][..., cut:], after[i][..., cut:])
        assert not torch.equal(before[i][..., :cut], after[i][..., :cut])


@pytest.mark.parametrize("value", [1e4, float("inf"), float("nan")])
@pytest.mark.parametrize("documents", [False, True])
def test_another_row_moves_no_bit(documents: bool, value: float, arguments: list[Tensor]) -> None:
    """Nor another document, even if it is not finite; the taps' gradient shows it."""
    more: dict[str, Any] = {}
    if documents:
        arguments = [t if t.ndim == 2 else t.view(1, 1, -1) for t in arguments]
        length = arguments[1].shape[1]
        more = {"cu_seqlens": length * torch.arange(4, device=arguments[0].device)}
    u, k, pre, post, dy = arguments
    before = _run(*arguments, **more)
    broken = u.clone()
    broken.view(3, -1)[1, 3::7] = value
    after = _run(broken, k, pre, post, dy, **more)
    for i in (0, 1, 3, 4):
        a, b = before[i].view(3, -1), after[i].view(3, -1)
        assert torch.equal(a[::2], b[::2])
    assert torch.isfinite(after[2]).all() == (value == 1e4)


def test_a_silent_row_beside_others(arguments: list[Tensor]) -> None:
    """Rows meet in the taps' gradient at the loudest one's scale; one that is silent adds nothing to it, and breaks nothing."""
    arguments[0][1] = 0
    alone = _run(*(t if t.ndim == 2 else t[::2] for t in arguments))[2]
    assert torch.allclose(_run(*arguments)[2], alone, rtol=1e-5, atol=1e-5 * float(alone.abs().max()))


@pytest.mark.parametrize("scales", [(1e36, 1e-36), (1e-30, 1e30), (1e20, 1e15)])
def test_extreme_samples_and_taps_whose_product_is_not(scales: tuple[float, float], device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    u = (torch.randn(2, 1, 250, generator=generator) * scales[0]).to(device, BRAIN)
    k = (torch.randn(1, 250, generator=generator) * scales[1]).to(device)
    assert relative_error(conv_fft(u, k), reference.conv_fft(u.double(), k.double())) < 4e-3
