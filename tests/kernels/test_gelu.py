"""GELU with its bias: values, and the bias's gradient summed over rows."""

from __future__ import annotations

import pytest
import torch

from kernels.gelu import _gelu as operator
from kernels.gelu import gelu, reference
from kernels.gelu.cases import case
from kernels.verification import relative_error, verify


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("shape", "biased", "scale"), [((3, 5, 70), True, 1.0), ((3, 300), False, 1.0), ((1, 1), True, 100.0)])
def test_values_and_gradients_are_the_references(
    shape: tuple[int, ...], biased: bool, scale: float, dtype: torch.dtype, device: str
) -> None:
    assert not verify(case(shape, biased, dtype, scale), device).failures


def test_strided_rows_expanded_gradients_and_no_rows(device: str) -> None:
    x = torch.randn(6, 40, device=device)[:, 3:20].requires_grad_()
    bias = torch.randn(17, device=device).requires_grad_()
    gradient = torch.randn(17, device=device).expand(6, 17)
    got = torch.autograd.grad(gelu(x, bias), [x, bias], gradient)
    doubles = [t.detach().double().requires_grad_() for t in (x, bias)]
    want = torch.autograd.grad(reference.gelu(*doubles), doubles, gradient.double())
    assert all(relative_error(a, b) < 1e-6 for a, b in zip(got, want, strict=True))
    empty = gelu(x[:0], bias)
    assert empty.shape == (0, 17)
    assert not torch.autograd.grad(empty.sum(), bias)[0].any()


def test_it_is_one_operator_to_compilers(device: str) -> None:
    x, bias = torch.randn(3, 8, device=device, requires_grad=True), torch.randn(8, device=device, requires_grad=True)
    torch.library.opcheck(operator, (x, bias))

    def loss(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return gelu(x.sin(), bias).square().sum()

    plain = torch.autograd.grad(loss(x, bias), [x, bias])
    fused = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x, bias), [x, bias])
    assert all(torch.equal(a, b) for a, b in zip(plain, fused, strict=True))
    (gradient,) = torch.autograd.grad(loss(x, bias), x, create_graph=True)
    with pytest.raises(RuntimeError, match="gelu: its gradient cannot be differentiated again"):
        gradient.sum().backward()


def test_wrong_input_is_one_clear_line(device: str) -> None:
    x = torch.randn(3, 5, device=device)
    with pytest.raises(ValueError, match=r"gelu: bias has shape \(4,\); it must be \(width,\)"):
        gelu(x, x.new_ones(4))
    with pytest.raises(ValueError, match="gelu: x is int64"):
        gelu(x.long())
