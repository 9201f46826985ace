"""Cross entropy in chunks: equal to that of whole logits, for every way of weighing, ignoring and reducing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kernels.linear_cross_entropy import linear_cross_entropy
from kernels.linear_cross_entropy.cases import case
from kernels.linear_cross_entropy.operator import chunk_tokens
from kernels.linear_cross_entropy.operator import linear_cross_entropy as operator
from kernels.verification import relative_error, verify


def inputs(
    device: str, tokens: int = 12, width: int = 16, vocabulary: int = 50
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    hidden, weight = (torch.randn(n, width, generator=generator).to(device).requires_grad_() for n in (tokens, vocabulary))
    return hidden, weight, torch.randint(0, vocabulary, (tokens,), generator=generator).to(device)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {"chunk": 6}),
        (torch.bfloat16, {"chunk": 6}),
        (torch.float32, {"z_loss": 1e-2, "weighted": True, "reduction": "sum"}),
        (torch.float16, {"z_loss": 1e-2, "weighted": True, "reduction": "sum"}),
        (torch.float16, {"chunk": 7, "wide_weight": True, "z_loss": 1e-3}),
        (torch.bfloat16, {"chunk": 7, "wide_weight": True, "z_loss": 1e-3}),
        (torch.bfloat16, {"chunk": 4, "accumulate": torch.bfloat16, "ignored": False}),
        (torch.bfloat16, {"spread": 8.0}),  # nearly all of the mass on one token
        (torch.bfloat16, {"spread": 1e30}),  # whose square is beyond float32
    ],
)
def test_values_and_gradients_are_the_references(dtype: torch.dtype, options: dict[str, Any], device: str) -> None:
    assert not verify(case(13, 20, 101, dtype, **options), device).failures


@pytest.mark.parametrize("vocabulary", [8192, 8229])
def test_rows_longer_than_a_block_are_read_to_their_end(vocabulary: int, device: str) -> None:
    assert not verify(case(3, 8, vocabulary, torch.float32, ignored=vocabulary == 8229), device).failures


def test_token_losses_are_nats_in_float32_even_of_bfloat16_inputs(device: str) -> None:
    hidden, weight, targets = inputs(device)
    hidden, weight = hidden.bfloat16(), weight.bfloat16()
    targets = (hidden @ weight.T).argmax(-1)  # as of a trained model: the target's logit is the large one
    targets[3] = -100
    want = F.cross_entropy(hidden.double() @ weight.double().T, targets, reduction="none")
    result = linear_cross_entropy(hidden, weight, targets, scale=0.5)
    assert result.token_loss.dtype == torch.float32
    assert result.token_loss[3] == 0
    assert not result.token_loss.requires_grad
    assert relative_error(result.token_loss, want) < 5e-3
    assert relative_error(result.loss, 0.5 * want.sum() / 11) < 5e-3
    whole = F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="none")
    assert relative_error(result.token_loss, want) < 0.5 * relative_error(whole, want)  # the target's own logit is not rounded


def test_losses_can_be_told_by_document(device: str) -> None:
    hidden, weight, targets = inputs(device)
    documents = torch.tensor([0] * 5 + [2] * 7, device=device).view(3, 4)
    result = linear_cross_entropy(hidden.view(3, 4, -1), weight, targets.view(3, 4), documents=documents)
    assert result.documents is documents
    losses, tokens = result.by_document(3)
    assert tokens.tolist() == [5, 0, 7]
    assert losses.tolist() == pytest.approx(
        [float(result.token_loss.flatten()[:5].sum()), 0, float(result.token_loss.flatten()[5:].sum())]
    )
    with pytest.raises(ValueError, match="give documents="):
        linear_cross_entropy(hidden, weight, targets).by_document(3)


def test_no_token_costs_nothing(device: str) -> None:
    hidden, weight, targets = inputs(device)
    for part in (slice(0, 0), slice(None)):
        result = linear_cross_entropy(hidden[part], weight, torch.full_like(targets[part], -100))
        assert result.loss == 0
        gradients = torch.autograd.grad(result.loss, [hidden, weight])
        assert not any(g.any() for g in gradients)


def test_a_target_outside_the_vocabulary_is_not_hidden(device: str) -> None:
    hidden, weight, targets = inputs(device)
    for wrong in (50, -1):
        targets[0] = wrong
        assert linear_cross_entropy(hidden, weight, targets).loss.isnan()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_another_logit_that_is_not_finite_is_not_hidden(value: float, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's maximum leaves NaN out, unless it is told not to, which the interpreter does not know."""
    if device == "cpu":
        from triton.runtime.interpreter import InterpreterBuilder

        monkeypatch.setattr(InterpreterBuilder, "create_maxnumf", lambda self, a, b: self.binary_op(a, b, np.fmax))
    hidden, weight, _ = inputs(device)
    with torch.no_grad():
        hidden[:, 0] = 1
        weight[9] = 0
        weight[9, 0] = value
    result = linear_cross_entropy(hidden, weight, torch.zeros(len(hidden), dtype=torch.int64, device=device))
    assert result.token_loss.isnan().all()


def test_gradients_follow_what_wants_them_and_the_loss_may_be_scaled(device: str) -> None:
    hidden, weight, targets = inputs(device)
    for scale in (1.0, 3.0):
        (dweight,) = torch.autograd.grad(scale * linear_cross_entropy(hidden.detach(), weight, targets).loss, weight)
        (dhidden,) = torch.autograd.grad(scale * linear_cross_entropy(hidden, weight.detach(), targets).loss, hidden)
        want = torch.autograd.grad(scale * F.cross_entropy(hidden @ weight.T, targets), [hidden, weight])
        assert relative_error(dhidden, want[0]) < 1e-5
        assert relative_error(dweight, want[1]) < 1e-5
    with torch.no_grad():
        assert not linear_cross_entropy(hidden, weight, targets).loss.requires_grad


def test_its_gradient_is_given_once_and_not_differentiated(device: str) -> None:
    hidden, weight, targets = inputs(device)
    loss = linear_cross_entropy(hidden, weight, targets).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="linear_cross_entropy: its gradient was already taken"):
        loss.backward()
    loss = linear_cross_entropy(hidden, weight, targets).loss
    with pytest.raises(RuntimeError, match="linear_cross_entropy: its gradient cannot be differentiated again"):
        torch.autograd.grad(loss, hidden, create_graph=True)


def test_it_is_one_operator_to_compilers(device: str) -> None:
    hidden, weight, targets = inputs(device)
    torch.library.opcheck(operator, (hidden, weight, targets, None, True, 1.0, 0.0, -100, 5, torch.float32, True, True))

    def loss(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return 2 * linear_cross_entropy(hidden.sin(), weight, targets, chunk=5).loss

    plain = torch.autograd.grad(loss(hidden, weight), [hidden, weight])
    fused = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(hidden, weight), [hidden, weight])
    assert all(torch.equal(a, b) for a, b in zip(plain, fused, strict=True))


def test_autocast_keeps_the_gradient_of_a_float32_weight_wide(device: str) -> None:
    hidden, weight, targets = inputs(device)
    with torch.autocast(device, torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, targets, chunk=4).loss
    got = torch.autograd.grad(loss, [hidden, weight])
    assert [g.dtype for g in got] == [torch.float32, torch.float32]
    want = torch.autograd.grad(F.cross_entropy(hidden.double() @ weight.double().T, targets), [hidden, weight])
    assert all(relative_error(a, b) < 1e-2 for a, b in zip(got, want, strict=True))


def test_chunks_are_even_and_within_the_budget() -> None:
    for tokens in (1, 255, 300, 16384, 16385, 65536, 100_000):
        for vocabulary in (50, 50304, 262_144):
            chunk = chunk_tokens(tokens, vocabulary, torch.bfloat16)
            assert 1 <= chunk <= max(tokens, 256)
            assert chunk * vocabulary * 2 <= (1 << 30) or chunk <= 256


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"targets": torch.zeros(11, dtype=torch.int64)}, "targets is int64"),
        ({"targets": torch.zeros(12, dtype=torch.int32)}, "must be int64"),
        ({"weight": torch.zeros(50, 15)}, r"weight has shape \(50, 15\)"),
        ({"weights": torch.ones(3)}, "weights has shape"),
        ({"reduction": "none"}, "token_loss has each token's own"),
        ({"chunk": 0}, "0 tokens in a chunk; it takes 1 to"),
        ({"accumulate": torch.float16}, "accumulate is torch.float16"),
        ({"weight": torch.zeros(50, 16, dtype=torch.float16)}, "make weight that, or float32"),
    ],
)
def test_wrong_input_is_one_clear_line(changes: dict[str, Any], says: str) -> None:
    hidden, weight, targets = inputs("cpu")
    with pytest.raises(ValueError, match=f"linear_cross_entropy: .*{says}|{says}"):
        linear_cross_entropy(**{"hidden": hidden, "weight": weight, "targets": targets} | changes)
