"""The modal scan: values, gradients, documents, states, its filter and its recurrence."""

from __future__ import annotations

import pytest
import torch

from kernels.conv_modal.cases import arguments, case, filter_case, modes, state_case
from kernels.verification import verify


@pytest.mark.parametrize(
    ("dtype", "inputs"),
    [
        (torch.float32, arguments(2, 1, 300, 3, fused=True, documents=[5, 0, 1, 280, 17, 297])),  # two tiles
        (torch.bfloat16, arguments(1, 2, 70, 8)),
        (torch.float16, arguments(2, 1, 33, 9, fused=True)),
    ],
)
def test_values_and_gradients_are_the_references(dtype: torch.dtype, inputs: dict, device: str) -> None:
    assert not verify(case("test", dtype, inputs), device).failures


@pytest.mark.parametrize(("way", "early"), [("lanes", False), ("lanes", True), ("tiles", False)])
@pytest.mark.parametrize(
    ("dtype", "inputs"),
    [
        (torch.float32, arguments(2, 1, 300, 3, fused=True, documents=[5, 0, 1, 280, 17, 297])),
        (torch.float32, arguments(5, 1, 150, 3)),  # a block of lanes that is not full
        (torch.bfloat16, arguments(2, 1, 70, 9, fused=True)),
    ],
)
def test_other_ways_back_are_right(
    dtype: torch.dtype, inputs: dict, way: str, early: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kernels.conv_modal import triton

    monkeypatch.setattr(triton, "_way", lambda u, decay: way)
    monkeypatch.setitem(triton._LANES, "EARLY", early)
    if early:  # and offsets of 64 bits
        monkeypatch.setattr(triton, "_narrow", lambda *tensors: False)
    assert not verify(case("test", dtype, inputs), device).failures


@pytest.mark.parametrize("way", ["lanes", "tiles"])
def test_other_ways_back_take_slices(way: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.conv_modal import conv_modal, triton

    monkeypatch.setattr(triton, "_way", lambda u, decay: way)
    inputs = {name: value.to(device, torch.float32) for name, value in arguments(2, 2, 100, 3, fused=True).items()}
    projected = torch.stack([inputs.pop(name) for name in ("u", "pregate", "postgate")], dim=1).requires_grad_()
    gradients = []
    for dense in (True, False):
        u, pregate, postgate = (part.contiguous() if dense else part for part in projected.unbind(1))
        y = conv_modal(u, pregate=pregate, postgate=postgate.clone() if dense else postgate, **inputs)
        gradients.append(torch.autograd.grad(y.square().sum(), projected)[0])
    assert torch.equal(*gradients)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("way", ["scan", "lanes", "tiles"])
def test_what_is_no_number_stays_in_its_document(way: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.conv_modal import conv_modal, triton

    monkeypatch.setattr(triton, "_way", lambda u, decay: way)
    length, bad = 600, slice(100, 330)  # two tiles, and documents that begin in the middle of chunks
    inputs = arguments(1, 1, length, 3, documents=[100, 230, 270])
    inputs = {n: v.to(device, torch.float32) if v.is_floating_point() else v.to(device) for n, v in inputs.items()}
    u, results = inputs.pop("u"), []
    for value in (0.5, float("nan"), float("inf")):
        changed = u.clone()
        changed[..., 200] = value
        changed.requires_grad_()
        y = conv_modal(changed, **inputs)
        gradient = torch.ones_like(y)
        gradient[..., 250] = value
        results.append((y, torch.autograd.grad(y, changed, gradient)[0]))
    for others in results[1:]:
        for usual, other in zip(results[0], others, strict=True):
            assert not other[..., bad].isfinite().all()
            assert torch.equal(usual[..., : bad.start], other[..., : bad.start])
            assert torch.equal(usual[..., bad.stop :], other[..., bad.stop :])


@pytest.mark.parametrize("documents", [None, [100, 250]])
def test_the_state_after_a_sequence_is_the_recurrences(documents: list[int] | None, device: str) -> None:
    inputs = arguments(1, 1, 350, 3, fused=True, documents=documents)
    assert not verify(state_case("test", torch.float32, inputs), device).failures


@pytest.mark.parametrize("modes", [16, 64])
def test_the_backwards_states_have_the_shape_that_is_promised(modes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.conv_modal import triton

    monkeypatch.setattr(triton, "BACKWARD", "lanes")
    u, decay = torch.empty(2, 3, 1000, dtype=torch.float16), torch.empty(3, modes)
    step = triton._LANES["S"] if modes == 16 else triton._ROWS
    assert triton.carries_shape(u, decay) == (2, 3, -(-1000 // (triton._CHUNK * step)), modes, 2)


def test_the_filter_and_its_gradients_are_the_references(device: str) -> None:
    assert not verify(filter_case("test", {**modes(2, 5), "length": 600}), device).failures
