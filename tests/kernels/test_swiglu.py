"""SwiGLU of two tensors, or of two halves of one."""

from __future__ import annotations

import pytest
import torch

from kernels.swiglu import _swiglu as operator
from kernels.swiglu import reference, swiglu
from kernels.swiglu.cases import case
from kernels.verification import relative_error, verify


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "packed", "scale"), [((3, 5, 70), False, 1.0), ((2, 3, 70), True, 1.0), ((1, 2), True, 100.0)]
)
def test_values_and_gradients_are_the_references(
    shape: tuple[int, ...], packed: bool, scale: float, dtype: torch.dtype, device: str
) -> None:
    assert not verify(case(shape, packed, dtype, scale), device).failures


def test_strided_rows_and_expanded_gradients(device: str) -> None:
    both = torch.randn(6, 40, device=device)
    gate, up = both[:, 3:20].requires_grad_(), both[:, 20:37].requires_grad_()
    gradient = torch.randn(17, device=device).expand(6, 17)
    got = torch.autograd.grad(swiglu(gate, up), [gate, up], gradient)
    doubles = [x.detach().double().requires_grad_() for x in (gate, up)]
    want = torch.autograd.grad(reference.swiglu(*doubles), doubles, gradient.double())
    assert all(relative_error(a, b) < 1e-6 for a, b in zip(got, want, strict=True))
    assert swiglu(gate[:0], up[:0]).shape == (0, 17)


def test_it_is_one_operator_to_compilers(device: str) -> None:
    gate, up = (torch.randn(3, 8, device=device, requires_grad=True) for _ in range(2))
    torch.library.opcheck(operator, (gate, up))
    torch.library.opcheck(operator, (gate, None))

    def loss(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return swiglu(gate.sin(), up).square().sum()

    plain = torch.autograd.grad(loss(gate, up), [gate, up])
    fused = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(gate, up), [gate, up])
    assert all(torch.equal(a, b) for a, b in zip(plain, fused, strict=True))
    (gradient,) = torch.autograd.grad(loss(gate, up), gate, create_graph=True)
    with pytest.raises(RuntimeError, match="swiglu: its gradient cannot be differentiated again"):
        gradient.sum().backward()


def test_autocast_and_wrong_input(device: str) -> None:
    x = torch.randn(3, 5, device=device)
    with torch.autocast(device, torch.bfloat16):
        assert swiglu(x, x).dtype == torch.bfloat16
    for arguments, says in (
        ((x,), "of even width"),
        ((x, x[:2]), "up has shape"),
        ((x, x.half()), "convert up"),
        ((x.long(), None), "gate is int64"),
    ):
        with pytest.raises(ValueError, match=says):
            swiglu(*arguments)
