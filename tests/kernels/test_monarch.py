"""Block-diagonal and Monarch products: values, gradients, sizes that are no multiple of anything, one operator for torch."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from kernels.monarch import block_diagonal, block_diagonal_glu, cases, layouts, monarch, reference
from kernels.verification import Case, relative_error, verify

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def _cases() -> list[Case]:
    found = []
    for dtype in DTYPES:
        found += [
            cases.product_case("odd", 11, 3, 37, 45, dtype),
            cases.monarch_case("odd", 9, (4, 30, 17), (6, 11, 20), dtype),
            cases.glu_case("odd", 21, 3, 50, 33, "silu", dtype),
        ]
    for dtype in DTYPES[1:]:  # whole tiles: rows that stay on the SM (tokens shared by two programs), and tiles of the output
        found += [
            cases.glu_case("rows", 70, 1, 64, 256, "gelu", dtype),
            cases.glu_case("rows, two parts", 37, 2, 128, 192, "silu", dtype),
            cases.glu_case("tiles", 37, 2, 64, 128, "sigmoid", dtype),
        ]
    found += [cases.glu_case("few tokens", 5, 2, 20, 40, activation, torch.float32) for activation in ("gelu", "sigmoid")]
    return [*found, cases.product_case("one by one", 1, 1, 1, 1, torch.float32)]


@pytest.mark.parametrize("case", _cases(), ids=lambda case: f"{case.name}, {case.dtype}")
def test_values_and_gradients_are_the_references(case: Case, device: str) -> None:
    assert not verify(case, device).failures


def test_an_unaligned_input_takes_the_kernels_for_any_sizes(device: str) -> None:
    torch.manual_seed(0)
    x, gate, value = (torch.randn(s, dtype=torch.float16, device=device) for s in ((4 * 128 + 1,), (2, 64, 64), (2, 64, 64)))
    x = x[1:].view(4, 128)
    exact = reference.block_diagonal_glu(x.double(), gate.double(), value.double(), "gelu")
    assert relative_error(block_diagonal_glu(x, gate, value), exact) < 1e-3


@pytest.mark.parametrize("columns", [64, 192])
def test_no_tokens_give_zero_gradients(columns: int, device: str) -> None:
    x = torch.zeros(0, 2 * columns, dtype=torch.float16, device=device, requires_grad=True)
    gate, value = (torch.ones(2, 64, columns, dtype=torch.float16, device=device, requires_grad=True) for _ in range(2))
    gradients = torch.autograd.grad(block_diagonal_glu(x, gate, value).sum(), (x, gate, value))
    assert gradients[0].shape == x.shape
    assert not any(g.any() for g in gradients[1:])


@pytest.mark.parametrize("columns", [8, 16])
def test_packed_weights_come_apart_again(columns: int) -> None:
    gate, value = torch.randn(2, 3, 16, 5).unbind(0)
    packed = layouts.pack(gate, value, columns)
    assert torch.equal(packed[:, :columns], gate[:, :columns])
    assert torch.equal(packed[:, columns : 2 * columns], value[:, :columns])
    assert all(torch.equal(a, b) for a, b in zip(layouts.unpack(packed, columns), (gate, value), strict=True))


def test_the_reference_is_the_matrix_product() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(3, 4, 2, dtype=torch.float64), torch.randn(2, 5, 6, dtype=torch.float64)
    x = torch.randn(7, 6, dtype=torch.float64)
    inner = torch.zeros(12, 12, dtype=torch.float64)  # from (r, l), which the middle is, to (l, r)
    for r in range(6):
        for l in range(2):  # noqa: E741
            inner[l * 6 + r, r * 2 + l] = 1
    outer = torch.zeros(10, 10, dtype=torch.float64)  # from (l, s) to (s, l)
    for l in range(2):  # noqa: E741
        for s in range(5):
            outer[s * 2 + l, l * 5 + s] = 1
    matrix = outer @ torch.block_diag(*second) @ inner @ torch.block_diag(*first)
    assert torch.allclose(reference.monarch(x, first, second), x @ matrix.T)
    assert torch.autograd.gradcheck(
        lambda *a: reference.block_diagonal_glu(*a, "gelu"),
        [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((3, 6), (2, 4, 3), (2, 4, 3))],
    )


@pytest.mark.usefixtures("reference_only")
def test_one_operator_for_torch() -> None:
    x, weight, other = (torch.randn(s, requires_grad=True) for s in ((5, 6), (2, 4, 3), (2, 4, 3)))
    torch.library.opcheck(torch.ops.menagerie.block_product.default, (x, weight))
    torch.library.opcheck(torch.ops.menagerie.block_glu.default, (x, weight, other, "gelu"))
    torch.library.opcheck(torch.ops.menagerie.swap_axes.default, (x, 2))

    def step(x: torch.Tensor) -> torch.Tensor:
        return monarch(block_diagonal_glu(x, weight, other), other.transpose(1, 2), weight.transpose(1, 2)[:, :, :3]).sin()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), step(x))
    dx = torch.autograd.grad(block_diagonal(x, weight).sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="monarch: its gradient cannot be differentiated again"):
        dx.sum().backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert block_diagonal_glu(x, weight, other).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w: block_diagonal(x[:, :5], w), "x's last axis must be blocks times columns of weight = 6"),
        (lambda x, w: block_diagonal(x.half(), w), "weight is float32 and x is float16"),
        (lambda x, w: monarch(x, w, w), "first (2, 4, 3) gives 8 features and second (2, 4, 3) takes 6"),
        (lambda x, w: block_diagonal_glu(x, w, w[:1]), "value has shape (1, 4, 3)"),
        (lambda x, w: block_diagonal_glu(x, w, w, activation="relu"), "activation is 'relu'; it may be gelu, silu, sigmoid"),
    ],
)
def test_errors_say_what_is_wrong(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call(torch.zeros(5, 6), torch.zeros(2, 4, 3))


def test_what_is_shipped_compiles(compile_gate: Any) -> None:
    assert len(compile_gate("monarch")) == 13
