from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.attention import attention
from kernels.decode import decode_attention
from kernels.decode.cases import case
from kernels.decode.splits import Plan, Split, count
from kernels.verification import Case, verify

_CASES = [
    case("groups, lengths", torch.float32, (3, 4, 2, 1, 90, 16), lengths=(1, 33, 90)),
    case("3 new tokens", torch.bfloat16, (2, 2, 1, 3, 70, 16), lengths=(3, 70)),
    case("window", torch.float32, (2, 1, 1, 1, 90, 16), window=40, lengths=(30, 90)),
    case("window, 2 new tokens", torch.float32, (1, 1, 1, 2, 90, 16), window=40, lengths=(88,)),
    case("prefix", torch.float32, (3, 4, 2, 1, 20, 16), prefix=75, lengths=(1, 20, 7)),
    case("prefix, 2 new tokens, head dimension 24", torch.float16, (2, 1, 1, 2, 9, 24), prefix=33),
]


@pytest.fixture
def short_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several splits, each of several blocks, in short caches."""
    if not torch.cuda.is_available():
        monkeypatch.setattr("kernels.decode.triton.plan", lambda *_, **__: Plan(Split(16, 2, 8), Split(16, 2, 8)))


@pytest.mark.parametrize("chosen", _CASES, ids=lambda c: c.name)
def test_outputs_are_those_of_float64(chosen: Case, device: str, short_splits: None) -> None:
    assert not verify(chosen, device).failures


def test_the_splits_that_are_shipped_run_too(device: str) -> None:
    assert not verify(case("shipped", torch.bfloat16, (2, 2, 1, 1, 300, 64), prefix=100, lengths=(200, 5)), device).failures


@pytest.mark.parametrize(
    ("tiles", "keys", "splits"), [(64, 2048, 4), (8, 32768, 32), (1024, 512, 1), (32, 8192, 8), (132, 4096, 2), (1, 100, 1)]
)
def test_splits_fill_the_multiprocessors_evenly(tiles: int, keys: int, splits: int) -> None:
    assert count(tiles, keys, Split(64, 3, 2), processors=132) == splits


def test_no_split_is_without_keys() -> None:
    for tiles in (1, 5, 40):
        for blocks in range(1, 200):
            splits = count(tiles, 64 * blocks, Split(64, 3, 2), processors=132)
            assert splits == -(-blocks // -(-blocks // splits)) <= max(1, -(-blocks // 2))


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_what_lies_beyond_a_length_is_never_read(device: str, short_splits: None) -> None:
    q, k, v = (_draw(2, 2, n, 16, seed=i).to(device) for i, n in enumerate((2, 60, 60)))
    lengths = torch.tensor([5, 41], dtype=torch.int32, device=device)
    before = decode_attention(q, k, v, lengths)
    for row, length in enumerate(lengths.tolist()):
        k[row, :, length:] = v[row, :, length:] = torch.nan
    assert torch.equal(decode_attention(q, k, v, lengths), before)


def test_a_step_gives_what_training_gives(device: str, short_splits: None) -> None:
    q, k, v = (_draw(1, heads, 50, 16, seed=i).to(device) for i, heads in enumerate((4, 2, 2)))
    whole, lse = attention(q, k, v, return_lse=True)
    for end in (1, 17, 50):
        step = min(end, 3)
        lengths = torch.tensor([end], dtype=torch.int32, device=device)
        o, step_lse = decode_attention(q[:, :, end - step : end], k, v, lengths, return_lse=True)
        torch.testing.assert_close(o, whole[:, :, end - step : end], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(step_lse, lse[:, :, end - step : end], rtol=1e-5, atol=1e-6)


def test_a_shared_prefix_gives_what_copies_of_it_give(device: str, short_splits: None) -> None:
    batch, prefix, own = 3, 40, 21
    q = _draw(batch, 4, 1, 16).to(device)
    k, v = (_draw(batch, 2, own, 16, seed=i).to(device) for i in (1, 2))
    prefix_k, prefix_v = (_draw(2, prefix, 16, seed=i).to(device) for i in (3, 4))
    shared = decode_attention(q, k, v, prefix_k=prefix_k, prefix_v=prefix_v)
    copied = [torch.cat([p.expand(batch, -1, -1, -1), x], 2) for p, x in ((prefix_k, k), (prefix_v, v))]
    torch.testing.assert_close(shared, decode_attention(q, *copied), rtol=1e-5, atol=1e-6)


def test_a_sequence_without_keys_gives_zero(device: str, short_splits: None) -> None:
    q, k, v = _draw(2, 1, 1, 16).to(device), _draw(2, 1, 20, 16).to(device), _draw(2, 1, 20, 16).to(device)
    o, lse = decode_attention(q, k, v, torch.tensor([0, 20], dtype=torch.int32, device=device), return_lse=True)
    assert not o[0].any() and lse[0] == -torch.inf
    assert o[1].all() and torch.isfinite(lse[1])


def test_torch_sees_one_operator(reference_only: None) -> None:
    q, k, v = _draw(2, 4, 1, 16), _draw(2, 2, 9, 16), _draw(2, 2, 9, 16)
    lengths = torch.tensor([3, 9], dtype=torch.int32)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.menagerie.decode_attention.default, (q, k, v, lengths, None, None, 0, 0.25), test_utils=checks
    )
    compiled = torch.compile(lambda *x: decode_attention(*x), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(q, k, v, lengths), decode_attention(q, k, v, lengths))
    with pytest.raises(RuntimeError, match="decode_attention: it has no gradient; train with"):
        decode_attention(q.requires_grad_(), k, v).sum().backward()


def _errors() -> Iterator[tuple[str, Callable[[], Any]]]:
    q, cache, prefix = torch.zeros(2, 4, 1, 16), torch.zeros(2, 2, 9, 16), torch.zeros(2, 5, 16)
    lengths = torch.ones(2, dtype=torch.int32)
    yield "lengths is int64 (2,) on cpu; it must be int32 (2,)", lambda: decode_attention(q, cache, cache, lengths.long())
    yield "prefix_k and prefix_v go together", lambda: decode_attention(q, cache, cache, prefix_k=prefix)
    yield "a window and a shared prefix", lambda: decode_attention(q, cache, cache, prefix_k=prefix, prefix_v=prefix, window=3)
    yield (
        "prefix_k has shape (3, 5, 16)",
        lambda: decode_attention(q, cache, cache, prefix_k=torch.zeros(3, 5, 16), prefix_v=prefix),
    )
    yield "v_cache has shape", lambda: decode_attention(q, cache, cache[:, :1])
    yield "4 query heads over 3 KV heads", lambda: decode_attention(q, *[torch.zeros(2, 3, 9, 16)] * 2)
    yield "65 queries per sequence; it takes 1 to 64", lambda: decode_attention(torch.zeros(2, 4, 65, 16), cache, cache)
    yield "9 queries and a cache of 3 keys", lambda: decode_attention(torch.zeros(2, 4, 9, 16), *[cache[:, :, :3]] * 2)
    yield "head_dim 12; it takes multiples of 8", lambda: decode_attention(q[..., :12], *[cache[..., :12]] * 2)


@pytest.mark.parametrize("message, call", list(_errors()), ids=lambda x: x if isinstance(x, str) else "")
def test_errors_name_the_limit(message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="decode_attention: ") as raised:
        call()
    assert message in str(raised.value)


def test_each_shipped_configuration_compiles_for_hopper(compile_gate: Callable[..., list[dict[str, Any]]]) -> None:
    assert compile_gate("decode")
