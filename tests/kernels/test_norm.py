"""RMSNorm and LayerNorm: equal to their definitions, with and without the addition, on every kind of row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.norm import MAX_WIDTH, add_layer_norm, add_rms_norm, layer_norm, reference, rms_norm
from kernels.norm.cases import case
from kernels.norm.operator import norm as operator
from kernels.verification import relative_error, verify

KINDS = ("rms_norm", "add_rms_norm", "layer_norm", "add_layer_norm")


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "scale", "wide"),
    [
        *[(kind, (3, 5, 33), torch.float32, 1.0, False) for kind in KINDS],
        *[(kind, (7, 48), torch.bfloat16, 1.0, False) for kind in KINDS],
        ("add_rms_norm", (9, 256), torch.float16, 1.0, False),
        ("add_layer_norm", (13, 20), torch.bfloat16, 1.0, True),
        ("add_layer_norm", (1, 1), torch.float32, 1.0, False),
        ("rms_norm", (4, 1000), torch.bfloat16, 1e4, False),
        ("rms_norm", (4, 64), torch.float32, 0.0, False),
    ],
)
def test_values_and_gradients_are_the_references(
    kind: str, shape: tuple[int, ...], dtype: torch.dtype, scale: float, wide: bool, device: str
) -> None:
    assert not verify(case(kind, shape, dtype, scale, wide), device).failures


def test_strided_rows_and_expanded_gradients_are_read_where_they_lie(device: str) -> None:
    wide = torch.randn(6, 3, 40, device=device)
    x = wide[:, :2, 4:24].requires_grad_()
    weight = torch.randn(20, device=device).requires_grad_()
    gradient = torch.randn(20, device=device).expand(6, 2, 20)
    got = torch.autograd.grad(rms_norm(x, weight), [x, weight], gradient)
    plain = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    y, _ = reference.norm(plain[0], None, None, plain[1], None, 1e-5, False, torch.float64)
    want = torch.autograd.grad(y, plain, gradient.double())
    assert all(relative_error(a, b) < 1e-6 for a, b in zip(got, want, strict=True))
    turned = torch.randn(20, 6, device=device).t()  # no unit stride along the width
    assert relative_error(rms_norm(turned, weight), rms_norm(turned.contiguous(), weight)) == 0


@pytest.mark.parametrize("used", [0, 1])
def test_either_output_may_be_left_unused(used: int, device: str) -> None:
    inputs = [torch.randn(*size, device=device).requires_grad_() for size in ((5, 12), (5, 12), (12,), (12,))]
    x, residual, weight, bias = inputs
    gradient = torch.randn(5, 12, device=device)
    wanted = inputs if used == 0 else [x, residual, bias]
    got = torch.autograd.grad(add_rms_norm(x, residual, weight, x_bias=bias)[used], wanted, gradient)
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    outputs = reference.norm(doubles[0], doubles[1], doubles[3], doubles[2], None, 1e-5, False, torch.float64)
    want = torch.autograd.grad(
        outputs[used], [d for d, t in zip(doubles, inputs, strict=True) if any(t is w for w in wanted)], gradient.double()
    )
    assert all(relative_error(a, b) < 1e-6 for a, b in zip(got, want, strict=True))


def test_no_rows_give_no_values_and_zero_gradients(device: str) -> None:
    x, weight = torch.randn(0, 7, device=device).requires_grad_(), torch.ones(7, device=device).requires_grad_()
    y = layer_norm(x, weight)
    assert y.shape == (0, 7)
    dx, dweight = torch.autograd.grad(y.sum(), [x, weight])
    assert dx.shape == (0, 7)
    assert not dweight.any()


def test_rows_that_fit_no_program_take_plain_torch(device: str) -> None:
    x, weight = torch.randn(2, MAX_WIDTH + 1, device=device), torch.randn(MAX_WIDTH + 1, device=device)
    want, _ = reference.norm(x.double(), None, None, weight.double(), None, 1e-5, False, torch.float64)
    assert relative_error(rms_norm(x, weight), want) < 1e-6


@settings(max_examples=8, deadline=None)
@given(rows=st.integers(1, 9), width=st.integers(2, 70), power=st.integers(-8, 8), seed=st.integers(0, 99))
def test_rms_norm_does_not_see_the_scale_of_its_input(rows: int, width: int, power: int, seed: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).to(device)
    weight = torch.ones(width, device=device)
    # eps = 0: a power of two changes no bit of any quotient.
    assert torch.equal(rms_norm(x * 2.0**power, weight, eps=0.0), rms_norm(x, weight, eps=0.0))


def test_autocast_narrows_what_is_returned_and_not_what_is_read(device: str) -> None:
    x, residual, weight = torch.randn(4, 8, device=device), torch.randn(4, 8, device=device), torch.ones(8, device=device)
    with torch.autocast(device, torch.bfloat16):
        y, total = add_rms_norm(x, residual, weight)
    assert (y.dtype, total.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(total, x + residual)
    assert rms_norm(x, weight, dtype=torch.float16).dtype == torch.float16


def test_it_is_one_operator_to_compilers(device: str) -> None:
    x, residual = (torch.randn(3, 20, device=device, requires_grad=True) for _ in range(2))
    weight, bias = torch.randn(20, device=device, requires_grad=True), torch.randn(20, device=device, requires_grad=True)
    torch.library.opcheck(operator, (x, residual, bias, weight, bias, 1e-5, True, torch.float32))
    torch.library.opcheck(operator, (x, None, None, weight, None, 1e-5, False, torch.float32))

    def block(x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        y, total = add_layer_norm(x.sin(), residual, weight, bias, x_bias=bias)
        return (y * total).sum()

    plain = torch.autograd.grad(block(x, residual), [x, residual, weight, bias])
    fused = torch.autograd.grad(
        torch.compile(block, fullgraph=True, backend="aot_eager")(x, residual), [x, residual, weight, bias]
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, fused, strict=True))


def test_a_second_derivative_is_refused(device: str) -> None:
    x, weight = torch.randn(3, 8, device=device, requires_grad=True), torch.ones(8, device=device)
    (gradient,) = torch.autograd.grad(rms_norm(x, weight).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="norm: its gradient cannot be differentiated again"):
        gradient.sum().backward()


def test_the_reference_is_differentiable_to_any_order(reference_only: None) -> None:
    x, residual = (torch.randn(2, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight, bias = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda *a: add_layer_norm(*a[:2], *a[2:4], x_bias=a[3]), (x, residual, weight, bias))
    assert torch.autograd.gradgradcheck(lambda x, w: rms_norm(x, w), (x, weight))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: rms_norm(x, torch.ones(5)), r"rms_norm: weight has shape \(5,\); it must be \(width,\)"),
        (lambda x: rms_norm(x.long(), torch.ones(4)), "rms_norm: x is int64"),
        (lambda x: add_rms_norm(x, x[:1], torch.ones(4)), "add_rms_norm: residual has shape"),
        (lambda x: layer_norm(x.to("meta"), torch.ones(4)), "layer_norm: x is on meta"),
        (lambda x: rms_norm(x[:, :0], torch.ones(0)), "rms_norm: x has shape"),
    ],
)
def test_wrong_input_is_one_clear_line(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call(torch.randn(2, 4))  # type: ignore[operator]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_more_elements_than_32_bits_count() -> None:
    rows = (1 << 31) // 8192 + 5
    x, weight = torch.randn(rows, 8192, device="cuda", dtype=torch.bfloat16).requires_grad_(), torch.ones(8192, device="cuda")
    y = rms_norm(x, weight)
    (dx,) = torch.autograd.grad(y, x, x.detach())
    last = x.detach()[-3:].double().requires_grad_()
    want, _ = reference.norm(last, None, None, weight.double(), None, 1e-5, False, torch.float64)
    assert relative_error(y[-3:], want) < 4e-3
    assert relative_error(dx[-3:] + 1, torch.autograd.grad(want, last, last)[0] + 1) < 4e-3
