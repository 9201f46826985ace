"""Rotary positions: a rotation in every plane, of strided queries and keys alike."""

from __future__ import annotations

import pytest
import torch

from kernels.rope import _rope as operator
from kernels.rope import reference, rope
from kernels.rope.cases import case
from kernels.verification import relative_error, verify


def angles(positions: torch.Tensor, half: int) -> tuple[torch.Tensor, torch.Tensor]:
    angle = positions[..., None] * 100.0 ** (-torch.arange(half, device=positions.device) / half)
    return angle.cos(), angle.sin()


@pytest.mark.parametrize(
    ("heads", "length", "dim", "dtype", "half", "interleaved"),
    [
        ((3, 1), 9, 16, torch.float32, None, False),
        ((2, 2), 7, 24, torch.float16, None, True),
        ((5, 2), 11, 64, torch.bfloat16, None, False),
        ((2, 1), 5, 20, torch.bfloat16, 6, False),
        ((1, 3), 1, 2, torch.float32, None, True),
    ],
)
def test_values_and_gradients_are_the_references(
    heads: tuple[int, int], length: int, dim: int, dtype: torch.dtype, half: int | None, interleaved: bool, device: str
) -> None:
    assert not verify(case(2, heads, length, dim, dtype, half, interleaved), device).failures


def test_the_reference_turns_complex_numbers(reference_only: None) -> None:
    q = torch.randn(1, 2, 6, 8, dtype=torch.float64)
    cos, sin = angles(torch.arange(6)[None], 4)
    turn = torch.polar(torch.ones(6, 4, dtype=torch.float64), torch.atan2(sin, cos)[0].double())
    for interleaved in (False, True):
        a, b = (q[..., 0::2], q[..., 1::2]) if interleaved else (q[..., :4], q[..., 4:])
        want = torch.complex(a, b) * turn
        got, _ = rope(q, q, cos.double(), sin.double(), interleaved=interleaved)
        pair = (got[..., 0::2], got[..., 1::2]) if interleaved else (got[..., :4], got[..., 4:])
        assert relative_error(torch.view_as_real(torch.complex(*pair)), torch.view_as_real(want)) < 1e-6


def test_slices_of_one_projection_are_read_where_they_lie(device: str) -> None:
    batch, length, dim = 2, 11, 16
    qkv = torch.randn(batch, length, 6, dim, device=device)
    q, k = qkv[:, :, :4].transpose(1, 2), qkv[:, :, 4:5].transpose(1, 2)
    cos, sin = angles(torch.arange(length, device=device)[None], dim // 2)
    got = rope(q, k, cos, sin)
    for x, y in zip((q, k), got, strict=True):
        assert relative_error(y, reference.rope(x.double(), cos.double(), sin.double())) < 1e-6
    turned = q.transpose(2, 3).contiguous().transpose(2, 3)  # no unit stride along dim
    assert torch.equal(rope(turned, k, cos, sin)[0], got[0])


def test_expanded_gradients_and_scores_that_depend_on_distance_alone(device: str) -> None:
    q, k = (torch.randn(1, 1, 1, 16, device=device) for _ in range(2))
    cos, sin = angles(torch.arange(12, device=device)[None], 8)
    many = [x.expand(1, 1, 12, 16).requires_grad_() for x in (q, k)]
    turned_q, turned_k = rope(*many, cos, sin)
    scores = turned_q[0, 0] @ turned_k[0, 0].T
    for distance in range(12):
        diagonal = scores.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)
    (dq,) = torch.autograd.grad(turned_q, many[0], torch.ones(1, device=device).expand_as(turned_q))
    torch.testing.assert_close(dq, reference.rope(torch.ones_like(turned_q), cos, sin, inverse=True))


def test_it_is_one_operator_that_differentiates_to_any_order(device: str) -> None:
    q, k = (torch.randn(1, 2, 5, 8, device=device, requires_grad=True) for _ in range(2))
    cos, sin = angles(torch.arange(5, device=device)[None], 4)
    torch.library.opcheck(operator, (q, k, cos, sin, False, False))

    def loss(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        a, b = rope(q, k, cos, sin)
        return (a * a * b).sum()

    plain = torch.autograd.grad(loss(q, k), [q, k])
    fused = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(q, k), [q, k])
    assert all(torch.equal(a, b) for a, b in zip(plain, fused, strict=True))
    (dq,) = torch.autograd.grad(loss(q, k), q, create_graph=True)
    (second,) = torch.autograd.grad(dq.sum(), k)
    doubles = [x.detach().double().requires_grad_() for x in (q, k)]
    (want,) = torch.autograd.grad(loss(*doubles), doubles[0], create_graph=True)
    assert relative_error(second, torch.autograd.grad(want.sum(), doubles[1])[0]) < 1e-5


def test_no_positions_and_wrong_input(device: str) -> None:
    empty = torch.randn(2, 3, 0, 8, device=device)
    cos = torch.randn(1, 0, 4, device=device)
    assert rope(empty, empty, cos, cos)[0].shape == (2, 3, 0, 8)
    q, cos = torch.randn(2, 3, 5, 8, device=device), torch.randn(1, 5, 4, device=device)
    for arguments, says in (
        ((q[0], q, cos, cos), "q has shape"),
        ((q, q[:, :, :4], cos, cos), "apart from the number of heads"),
        ((q, q, cos[:, :3], cos), "cos has shape"),
        ((q, q, torch.randn(1, 5, 5, device=device), cos), "half <= dim / 2"),
        ((q, q.half(), cos, cos), "convert k"),
    ):
        with pytest.raises(ValueError, match=f"rope: .*{says}|{says}"):
            rope(*arguments)
