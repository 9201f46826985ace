"""The modal scan: values, gradients, documents, states, its filter and its recurrence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.conv_modal import conv_modal, conv_modal_state
from kernels.conv_modal.cases import arguments, case, filter_case, modes, state_case
from kernels.conv_modal.inputs import Inputs
from kernels.verification import verify
from tests.kernels.gluon_emulation import Launcher, emulated

KERNELS = ["modal_bwd_kernel", "modal_tiles_kernel"]


def _assembly(code: str, constraints: str, values: list[Tensor], **_: Any) -> Tensor:
    """`shfl.sync.up` among the pairs of chunks: those that have none so far before them keep their own."""
    pairs = int(code.split(",")[2]) // 4
    (x,) = values
    return torch.cat([x[:, :pairs], x[:, :-pairs]], dim=1)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backward goes by the kernel for Hopper, emulated."""
    from kernels.conv_modal import hopper, hopper_layouts, triton

    plan = triton._plan(torch.bfloat16, 16)._replace(chunk=64, rows=64)
    monkeypatch.setattr(triton, "_plan", lambda *of: plan)
    kernel = Launcher(hopper.modal_hopper_kernel, emulated([hopper_layouts, hopper], _assembly))
    monkeypatch.setattr(triton, "_hopper_kernel", lambda u: kernel)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel itself is tested")
@pytest.mark.parametrize(
    ("dtype", "inputs"),
    [
        (torch.float32, arguments(3, 1, 130, 5, fused=True)),
        (torch.float32, arguments(1, 1, 4112, 16)),  # two tiles
        (torch.float16, arguments(2, 1, 4096, 9, fused=True)),  # whole ones, copied ahead
    ],
)
def test_the_kernel_for_hopper_computes_the_references_gradients(
    dtype: torch.dtype, inputs: dict, hopper: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kernels.conv_modal import triton

    monkeypatch.setattr(triton, "_PROGRAMS", 1)
    assert not verify(case("test", dtype, inputs), "cpu").failures


@pytest.mark.parametrize(
    ("dtype", "inputs"),
    [
        (torch.float32, arguments(2, 1, 300, 3, fused=True, documents=[5, 0, 1, 280, 17, 297])),  # two tiles
        (torch.bfloat16, arguments(1, 2, 70, 8)),
        (torch.float16, arguments(2, 1, 33, 9, fused=True)),
        (torch.float32, arguments(1, 1, 150, 40, fused=True, documents=[20, 130])),  # shorter tiles
    ],
)
def test_values_and_gradients_are_the_references(dtype: torch.dtype, inputs: dict, device: str) -> None:
    assert not verify(case("test", dtype, inputs), device).failures


def _take(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backward goes by this kernel, whatever the dtype."""
    from kernels.conv_modal import triton

    plan = triton._plan
    monkeypatch.setattr(triton, "_plan", lambda *of: plan(*of)._replace(kernel=getattr(triton, kernel)))


@pytest.mark.parametrize(
    ("kernel", "dtype", "inputs"),
    [
        # In float32 nothing hides in roundings
        (
            "modal_tiles_kernel",
            torch.float32,
            arguments(2, 1, 300, 3, fused=True, documents=[5, 0, 1, 280, 17, 297]),
        ),
        ("modal_tiles_kernel", torch.float32, arguments(5, 1, 150, 3)),
        ("modal_bwd_kernel", torch.float16, arguments(2, 1, 70, 9, fused=True)),
    ],
)
def test_each_kernel_is_right_in_each_dtype(
    kernel: str, dtype: torch.dtype, inputs: dict, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _take(kernel, monkeypatch)
    assert not verify(case("test", dtype, inputs), device).failures


def test_gradients_are_of_the_kernel_for_their_dtype_and_number_of_modes() -> None:
    from kernels.conv_modal import triton

    for dtype in (torch.bfloat16, torch.float16):
        assert triton._plan(dtype, 16).kernel is triton.modal_tiles_kernel
        assert triton._plan(dtype, 32).kernel is triton.modal_bwd_kernel
    assert triton._plan(torch.float32, 8).kernel is triton.modal_bwd_kernel


@pytest.mark.parametrize("kernel", KERNELS)
def test_states_are_kept_where_a_gradient_is_wanted_and_made_again_where_not(
    kernel: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kernels.conv_modal import triton

    _take(kernel, monkeypatch)
    kept: list[bool] = []
    forward = triton.forward
    monkeypatch.setattr(triton, "forward", lambda *given: (kept.append(given[-1]), forward(*given))[1])
    inputs = {name: value.to(device, torch.float32) for name, value in arguments(1, 2, 70, 3, fused=True).items()}
    conv_modal(**inputs)
    leaf = inputs["pregate"].requires_grad_()
    with torch.no_grad():
        conv_modal(**inputs)
    assert kept == [False, False]
    (gradient,) = torch.autograd.grad(conv_modal(**inputs).sum(), leaf)
    assert kept == [False, False, True]
    given = [inputs.get(name) for name in Inputs._fields]
    y, _, states = torch.ops.menagerie.conv_modal(*given, False, False)
    assert not states.numel()
    assert torch.equal(torch.autograd.grad(y.sum(), leaf)[0], gradient)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gates_may_be_slices(kernel: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _take(kernel, monkeypatch)
    inputs = {name: value.to(device, torch.float32) for name, value in arguments(2, 2, 100, 3, fused=True).items()}
    projected = torch.stack([inputs.pop(name) for name in ("u", "pregate", "postgate")], dim=1).requires_grad_()
    gradients = []
    for dense in (True, False):
        u, pregate, postgate = (part.contiguous() if dense else part for part in projected.unbind(1))
        y = conv_modal(u, pregate=pregate, postgate=postgate.clone() if dense else postgate, **inputs)
        gradients.append(torch.autograd.grad(y.square().sum(), projected)[0])
    assert torch.equal(*gradients)


def test_parameters_may_have_any_strides(device: str) -> None:
    inputs = {name: value.to(device, torch.float32) for name, value in arguments(2, 4, 40, 3, fused=True).items()}
    results = []
    for dense in (True, False):
        given = dict(inputs)
        for name in ("decay", "frequency", "residue", "skip", "state"):
            axis = inputs[name].ndim - 1 if name != "skip" else 0
            spread = torch.stack([inputs[name], torch.full_like(inputs[name], torch.nan)], dim=axis + 1).flatten(axis, axis + 1)
            given[name] = inputs[name].clone() if dense else spread[..., ::2]
            given[name].requires_grad_()
        y = conv_modal(**given)
        wanted = [given[name] for name in ("decay", "frequency", "residue", "skip", "state")]
        results.append((y, *torch.autograd.grad(y.square().sum(), wanted)))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("broken", ["u", "state"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_no_number_stays_in_its_document(
    kernel: str, broken: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kernels.conv_modal import triton

    _take(kernel, monkeypatch)
    monkeypatch.setattr(triton, "_PROGRAMS", 1)  # one program has both rows
    length = 320  # three tiles, and documents that begin in the middle of chunks
    bad = slice(0, 100) if broken == "state" else slice(100, 230)
    inputs = arguments(2, 1, length, 3, fused=True, documents=[100, 130, 90, 320])
    inputs = {n: v.to(device, torch.float32) if v.is_floating_point() else v.to(device) for n, v in inputs.items()}
    results = []
    for value in (0.5, torch.nan, torch.inf):
        given = {name: tensor.clone() for name, tensor in inputs.items()}
        if broken == "state":
            given["state"][0] = value
        else:
            given["u"][0, :, 200] = value
        wanted = [given[name].requires_grad_() for name in ("u", "pregate", "postgate", "state")]
        y, after = conv_modal_state(**given)
        dy = torch.ones_like(y)
        dy[0, :, bad.start + 50] = value
        results.append((y.detach(), *torch.autograd.grad(y, wanted, dy), after))
    for others in results[1:]:
        for usual, other in zip(results[0], others, strict=True):
            if other.shape == inputs["u"].shape:
                assert not other[0, :, bad].isfinite().all()
                assert torch.equal(usual[0, :, : bad.start], other[0, :, : bad.start])
                assert torch.equal(usual[0, :, bad.stop :], other[0, :, bad.stop :])
            assert torch.equal(usual[1], other[1])
        dstate, after = others[-2:]
        assert torch.equal(after, results[0][-1])
        assert dstate[0].isfinite().all() == (broken != "state")


@pytest.mark.parametrize("runs", ["kernel", "reference"])
def test_a_sequence_of_no_tokens_leaves_the_state(runs: str, device: str, request: pytest.FixtureRequest) -> None:
    if runs == "reference":
        request.getfixturevalue("reference_only")
        device = "cpu"
    inputs = {
        name: value.to(device, torch.float32).requires_grad_() for name, value in arguments(2, 2, 0, 3, fused=True).items()
    }
    y, after = conv_modal_state(**inputs)
    assert y.shape == (2, 2, 0)
    assert torch.equal(after, inputs["state"])
    assert after.data_ptr() != inputs["state"].data_ptr()
    for name, gradient in zip(inputs, torch.autograd.grad(y.sum(), list(inputs.values())), strict=True):
        assert torch.equal(gradient, torch.zeros_like(inputs[name])), name
    del inputs["state"]
    assert not conv_modal_state(**inputs)[1].any()


@pytest.mark.parametrize("documents", [None, [100, 250]])
def test_the_state_after_a_sequence_is_the_recurrences(documents: list[int] | None, device: str) -> None:
    inputs = arguments(1, 1, 350, 3, fused=True, documents=documents)
    assert not verify(state_case("test", torch.float32, inputs), device).failures


def test_the_filter_and_its_gradients_are_the_references(device: str) -> None:
    assert not verify(filter_case("test", {**modes(2, 5), "length": 600}), device).failures
