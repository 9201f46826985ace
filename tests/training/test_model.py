"""The Transformer: equal to a reference written from the definitions; causal; documents apart, exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from training.config import ModelConfig
from training.model import KeyValueCache, Transformer
from training.packing import dense_mask, positions_in_documents

CONFIG = ModelConfig(vocabulary=97, layers=3, d_model=48, heads=6, kv_heads=2, rope_theta=500.0)


def model(**changes: object) -> Transformer:
    made = Transformer(replace(CONFIG, **changes)).initialise(5)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in made.named_parameters():  # larger than initial weights, so that every part matters
            parameter.mul_(5.0) if parameter.ndim > 1 else parameter.add_(torch.linspace(-0.5, 0.5, len(parameter)))
            assert name
    return made.double()


def reference(made: Transformer, tokens: list[int]) -> Tensor:
    """Logits of one document, position by position and head by head, with complex numbers for the rotation."""
    config, w = made.config, dict(made.named_parameters())
    head, group = config.d_model // config.heads, config.heads // (config.kv_heads or config.heads)

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / torch.sqrt((x * x).mean() + config.norm_eps) * weight

    def turn(x: Tensor, position: int) -> Tensor:
        half = head // 2
        angle = torch.tensor([position * config.rope_theta ** (-2 * i / head) for i in range(half)]).double()
        turned = torch.complex(x[:half], x[half:]) * torch.polar(torch.ones(half).double(), angle)
        return torch.cat([turned.real, turned.imag])

    stream = [w["embedding.weight"][t] for t in tokens]
    for layer in range(config.layers):
        prefix = f"blocks.{layer}."
        normed = [norm(x, w[prefix + "attention_norm.weight"]) for x in stream]
        q, k, v = ([w[prefix + f"attention.{name}.weight"] @ x for x in normed] for name in ("query", "key", "value"))
        for i in range(len(tokens)):
            heads = []
            for h in range(config.heads):
                mine, shared = slice(h * head, (h + 1) * head), slice(h // group * head, (h // group + 1) * head)
                query = turn(q[i][mine], i)
                scores = torch.stack([query @ turn(k[j][shared], j) / math.sqrt(head) for j in range(i + 1)])
                weights = torch.exp(scores - scores.max())
                heads.append(sum(a * v[j][shared] for j, a in enumerate(weights / weights.sum())))
            stream[i] = stream[i] + w[prefix + "attention.out.weight"] @ torch.cat(heads)  # type: ignore[arg-type]
        for i, x in enumerate(stream):
            y = norm(x, w[prefix + "feed_forward_norm.weight"])
            gate, up = w[prefix + "feed_forward.gate.weight"] @ y, w[prefix + "feed_forward.up.weight"] @ y
            stream[i] = x + w[prefix + "feed_forward.down.weight"] @ (gate / (1 + torch.exp(-gate)) * up)
    output = w["embedding.weight"] if config.tied else w["head.weight"]
    return torch.stack([output @ norm(x, w["norm.weight"]) for x in stream])


@pytest.mark.parametrize("changes", [{}, {"kv_heads": 0}, {"tied": False, "kv_heads": 1}])
def test_logits_equal_those_of_the_definitions(changes: dict[str, object]) -> None:
    made = model(**changes)
    tokens = torch.randint(0, 97, (1, 13), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference(made, tokens[0].tolist())
        got = made(tokens)[0]
    # Rotations are computed in float32: relative error 1e-7 in the angles' cosines.
    assert (got - expected).abs().max() / expected.abs().max() < 1e-5


def packed(seed: int = 0) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(seed))
    return tokens, torch.tensor([[0] * 13 + [1] * 20 + [2] * 7, [0] * 1 + [1] * 39])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_changing_one_document_leaves_the_others_equal_to_the_bit(dtype: torch.dtype) -> None:
    made = model().to(dtype)
    tokens, documents = packed()
    other = tokens.clone()
    other[0, :13] = (other[0, :13] + 1) % 97
    with torch.no_grad():
        before, after = made(tokens, documents), made(other, documents)
    assert torch.equal(before[0, 13:], after[0, 13:])
    assert torch.equal(before[1], after[1])
    assert (before[0, :13] - after[0, :13]).abs().max() > 0.1


def test_gradients_do_not_cross_documents() -> None:
    made = model()
    tokens, documents = packed()
    embedded = made.embedding(tokens).detach().requires_grad_()
    made.embedding.forward = lambda _: embedded  # type: ignore[method-assign]
    made(tokens, documents)[0, 13:33].square().sum().backward()
    assert embedded.grad is not None
    moved = embedded.grad.abs().sum(dim=-1) > 0
    assert moved[0, 13:33].all()
    assert not moved[0, :13].any()
    assert not moved[0, 33:].any()
    assert not moved[1].any()


def test_a_packed_document_reads_as_it_would_alone() -> None:
    made = model()
    tokens, documents = packed()
    with torch.no_grad():
        together = made(tokens, documents)
        alone = made(tokens[:1, 13:33])
    torch.testing.assert_close(together[0, 13:33], alone[0], rtol=1e-10, atol=1e-10)


def test_no_position_sees_a_later_one() -> None:
    made = model().float()
    tokens, _ = packed()
    later = tokens.clone()
    later[:, 25:] = (later[:, 25:] + 1) % 97
    with torch.no_grad():
        assert torch.equal(made(tokens)[:, :25], made(later)[:, :25])


def test_the_loss_of_targets_is_that_of_the_logits() -> None:
    made = model()
    tokens, documents = packed()
    targets = tokens.roll(-1, 1)
    result = made(tokens, documents, targets=targets, scale=0.5)
    logits = made(tokens, documents)
    want = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
    torch.testing.assert_close(result.token_loss, want.detach(), rtol=1e-12, atol=0)
    assert result.loss.item() == pytest.approx(0.5 * want.sum().item(), rel=1e-6)
    got = torch.autograd.grad(result.loss, list(made.parameters()))
    exact = torch.autograd.grad(0.5 * want.sum(), list(made.parameters()))
    assert all((a - b).norm() < 1e-6 * b.norm() for a, b in zip(got, exact, strict=True))


def test_flex_attention_computes_the_same() -> None:
    made, flex = model().float(), model(attention="flex").float()
    tokens, documents = packed()
    with torch.no_grad():
        torch.testing.assert_close(flex(tokens, documents), made(tokens, documents), rtol=1e-4, atol=1e-4)


def test_a_cache_gives_the_logits_of_the_whole_text() -> None:
    made = model()
    tokens, _ = packed()
    with torch.no_grad():
        whole = made(tokens)
        cache = KeyValueCache(made.config, 2, 40, made.embedding.weight)
        parts = [tokens[:, :10], tokens[:, 10:15], *tokens[:, 15:].split(1, dim=1)]
        pieces = torch.cat([made(part, cache=cache) for part in parts], dim=1)
    torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-10)


def test_positions_restart_with_each_document() -> None:
    documents = torch.tensor([[4, 4, 4, 7, 7, 1], [0, 1, 2, 2, 2, 2]])
    assert positions_in_documents(documents).tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 0, 1, 2, 3]]
    mask = dense_mask(documents)[0, 0].int().tolist()
    assert mask == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_initial_weights_follow_the_stated_law() -> None:
    made = Transformer(ModelConfig(vocabulary=4096, layers=8, d_model=256, heads=4)).initialise(0)
    weights = dict(made.named_parameters())
    assert weights["embedding.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert weights["blocks.3.attention.query.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert weights["blocks.3.feed_forward.down.weight"].std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert (weights["blocks.3.attention_norm.weight"] == 1).all()
    again = Transformer(made.config).initialise(0)
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), again.parameters(), strict=True))
    # An untrained model knows nothing: its loss is that of the uniform distribution.
    tokens = torch.randint(0, 4096, (4, 64), generator=torch.Generator().manual_seed(0))
    loss = torch.nn.functional.cross_entropy(made(tokens).flatten(0, 1), tokens.roll(-1, 1).flatten())
    assert loss.item() == pytest.approx(math.log(4096), abs=0.1)
