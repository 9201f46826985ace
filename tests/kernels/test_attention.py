from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from kernels.attention import attention, choose, combine_lse, reference
from kernels.attention.cases import case, packed
from kernels.attention.tiles import Tile, Tiles
from kernels.documents import document_starts_of
from kernels.verification import Case, verify

_SMALL = Tiles(Tile(32, 32, 4), Tile(16, 32, 4), Tile(32, 16, 4))


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles in short sequences, so that the interpreter walks every kind of loop."""
    if not torch.cuda.is_available():
        monkeypatch.setattr("kernels.attention.triton.tiles", lambda *_: _SMALL)


def _draw(*shape: int, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def _leaves(heads: int, groups: int, queries: int, keys: int, head_dim: int, device: str, batch: int = 1) -> list[Tensor]:
    shapes = ((batch, heads, queries, head_dim), (batch, groups, keys, head_dim), (batch, groups, keys, head_dim))
    return [_draw(*shape, device=device, seed=i).requires_grad_() for i, shape in enumerate(shapes)]


_CASES = [
    case("causal", torch.float32, (1, 1, 1, 70, 70, 16), deterministic=True),
    case("full, odd", torch.bfloat16, (1, 1, 1, 45, 45, 64), causal=False, deterministic=True),
    case("documents, groups", torch.bfloat16, (2, 2, 1, 36, 36, 16), documents=True),
    case("documents, window, full", torch.float32, (1, 1, 1, 61, 61, 16), window=24, documents=True, causal=False),
    case("fewer queries than keys, window", torch.float16, (1, 1, 1, 40, 80, 16), window=24),
    case("more queries than keys", torch.float32, (1, 1, 1, 70, 40, 16)),
    case("head dimension 96", torch.bfloat16, (1, 1, 1, 33, 33, 96), deterministic=True),
    case("one token, head dimension 8", torch.bfloat16, (2, 1, 1, 1, 1, 8), deterministic=True),
    case("zeros", torch.float32, (1, 1, 1, 33, 33, 16), size=0.0, deterministic=True),
    case("large scores", torch.bfloat16, (1, 1, 1, 33, 33, 16), size=30.0, deterministic=True),
]


@pytest.mark.parametrize("chosen", _CASES, ids=lambda c: c.name)
def test_outputs_and_gradients_are_those_of_float64(chosen: Case, device: str, small_tiles: None) -> None:
    report = verify(chosen, device)
    assert not report.failures


def test_the_tiles_that_are_shipped_run_too(device: str) -> None:
    assert not verify(
        case("documents, shipped tiles", torch.bfloat16, (1, 1, 1, 150, 150, 64), documents=True), device
    ).failures


def _everything(starts: Tensor | None, inputs: list[Tensor], do: Tensor, **options: Any) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    o = attention(*leaves, document_starts=starts, deterministic=True, **options)
    return [o, *torch.autograd.grad(o, leaves, do)]


@pytest.mark.parametrize("causal", [True, False])
def test_documents_never_move_each_other_by_a_bit(causal: bool, device: str, small_tiles: None) -> None:
    length = 70
    starts = document_starts_of(torch.tensor([0, 21, 22, 22, 48, length]), 1, length).to(device)
    inputs, do = _leaves(1, 1, length, length, 16, device), _draw(1, 1, length, 16, device=device, seed=9)
    before = _everything(starts, inputs, do, causal=causal)
    moved = slice(22, 48)
    changed = [x.detach().clone() for x in inputs]
    for x in (*changed, do):
        x[:, :, moved] = 7 * torch.randn_like(x[:, :, moved])
    after = _everything(starts, changed, do, causal=causal)
    for name, a, b in zip(("o", "dq", "dk", "dv"), before, after, strict=True):
        for kept in (slice(0, 22), slice(48, length)):
            assert torch.equal(a[:, :, kept], b[:, :, kept]), name
        assert not torch.equal(a[:, :, moved], b[:, :, moved]), name


@pytest.mark.parametrize("window", [None, 20])
def test_what_comes_later_or_leaves_the_window_moves_nothing_by_a_bit(
    window: int | None, device: str, small_tiles: None
) -> None:
    length, at = 60, 27
    inputs, do = _leaves(1, 1, length, length, 16, device), _draw(1, 1, length, 16, device=device, seed=9)
    before = _everything(None, inputs, do, window=window)
    changed = [x.detach().clone() for x in inputs]
    for x in changed[1:]:
        x[:, :, at] += 3
    after = _everything(None, changed, do, window=window)
    sees = torch.arange(length) >= at
    if window:
        sees &= torch.arange(length) < at + window
    moved = (before[0] != after[0]).any(-1)[0, 0].cpu()
    assert torch.equal(moved, sees)
    # dq of a query that does not see the key, and what a key's gradient does not depend on.
    assert torch.equal(before[1][:, :, ~sees], after[1][:, :, ~sees])


def test_packed_documents_give_what_separate_ones_give(device: str, small_tiles: None) -> None:
    sizes = [5, 20, 1, 11]
    length = sum(sizes)
    inputs, do = _leaves(1, 1, length, length, 16, device), _draw(1, 1, length, 16, device=device, seed=9)
    cu = torch.tensor([0, *sizes], device=device).cumsum(0).to(torch.int32)
    whole = _everything(document_starts_of(cu, 1, length), inputs, do)
    assert torch.equal(whole[0], attention(*inputs, cu_seqlens=cu))
    for begin, size in zip(cu.tolist(), sizes, strict=False):
        one = slice(begin, begin + size)
        alone = _everything(None, [x[:, :, one] for x in inputs], do[:, :, one])
        for a, b in zip(whole, alone, strict=True):
            torch.testing.assert_close(a[:, :, one], b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal, window, value", [(True, 0, math.nan), (False, 9, math.inf)], ids=["causal", "window"])
@pytest.mark.parametrize("broken", ["q", "k", "v", "do"])
def test_what_is_not_finite_reaches_only_who_sees_it(
    broken: str, causal: bool, window: int, value: float, device: str, small_tiles: None
) -> None:
    """In tiles that a mask cuts, hidden keys and queries have the weight 0, and 0 x NaN must not get through."""
    length, at = 45, 20
    starts = document_starts_of(torch.tensor([0, 13, 14, 14, 32, length]), 1, length).to(device)
    inputs, do = _leaves(1, 1, length, length, 16, device), _draw(1, 1, length, 16, device=device, seed=9)
    named = {name: x.detach() for name, x in zip(("q", "k", "v", "do"), (*inputs, do), strict=True)}

    def run() -> list[Tensor]:
        return _everything(starts, [named[x] for x in "qkv"], named["do"], causal=causal, window=window or None)

    healthy = run()
    named[broken] = named[broken].clone()
    named[broken][:, :, at] = value
    results = run()
    seen = reference.visible_keys(length, length, starts, causal, window, starts.device)[0, 0].cpu()  # (queries, keys)
    queries = torch.arange(length) == at if broken in ("q", "do") else seen[:, at]  # whose rows have it
    keys = (seen & queries[:, None]).any(0)  # what those queries see
    outputs = queries & (broken != "do")
    for before, after, touched in zip(healthy, results, (outputs, queries, keys, keys), strict=True):
        torch.testing.assert_close(after[:, :, ~touched], before[:, :, ~touched], rtol=1e-4, atol=1e-5)
    assert not torch.isfinite(results[1][:, :, at]).any()


def test_a_query_that_sees_nothing_gives_zero_and_no_gradient(device: str, small_tiles: None) -> None:
    q, k, v = _leaves(1, 1, 50, 20, 16, device)
    o, lse = attention(q, k, v, return_lse=True)
    assert (o[:, :, :30] == 0).all()
    assert (lse[:, :, :30] == -torch.inf).all()
    assert torch.isfinite(lse[:, :, 30:]).all()
    dq, dk, dv = torch.autograd.grad(o, (q, k, v), torch.ones_like(o))
    assert (dq[:, :, :30] == 0).all()
    assert torch.isfinite(torch.cat([dq, dk, dv], 2)).all()


@pytest.mark.parametrize("queries, keys, batch", [(0, 0, 1), (5, 0, 1), (4, 4, 0)])
def test_nothing_in_gives_nothing_out(queries: int, keys: int, batch: int, device: str) -> None:
    q, k, v = _leaves(2, 1, queries, keys, 16, device, batch=batch)
    o, lse = attention(q, k, v, return_lse=True)
    assert o.shape == q.shape
    assert not o.any()
    assert (lse == -torch.inf).all()
    o.sum().backward()
    assert q.grad is not None and not q.grad.any()


def test_gradients_of_any_stride(device: str, small_tiles: None) -> None:
    q, k, v = _leaves(1, 1, 35, 35, 16, device)
    o = attention(q, k, v, deterministic=True)
    (expanded,) = torch.autograd.grad(o.sum(), q, retain_graph=True)
    (dense,) = torch.autograd.grad(o, q, torch.ones_like(o), retain_graph=True)
    assert torch.equal(expanded, dense)
    do = _draw(1, 1, 16, 35, device=device).transpose(2, 3)
    (strided,) = torch.autograd.grad(o, q, do, retain_graph=True)
    (dense,) = torch.autograd.grad(o, q, do.contiguous())
    assert torch.equal(strided, dense)


def test_inputs_of_any_stride_are_read_as_they_lie(device: str, small_tiles: None) -> None:
    qkv = _draw(1, 20, 3, 2, 16, device=device)
    q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
    expected = attention(q.contiguous(), k.contiguous(), v.contiguous(), return_lse=True)[0]
    assert torch.equal(attention(q, k, v, return_lse=True)[0], expected)
    every_other = torch.stack([q, torch.full_like(q, math.nan)], -1)[..., 0]
    assert every_other.stride(-1) == 2
    assert torch.equal(attention(every_other, k, v, return_lse=True)[0], expected)
    one_head = k[:, :1].expand(-1, 2, -1, -1)
    assert torch.equal(
        attention(q, one_head, one_head, return_lse=True)[0], attention(q, k[:, :1], k[:, :1], return_lse=True)[0]
    )


def test_the_reference_is_torchs_attention(reference_only: None) -> None:
    q, k, v = (x.detach().double().requires_grad_() for x in _leaves(4, 2, 33, 33, 8, "cpu", batch=2))
    torch.testing.assert_close(attention(q, k, v), F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
    few = q[:, :, :9]
    bottom_right = torch.ones(9, 33, dtype=torch.bool).tril(24)
    torch.testing.assert_close(
        attention(few, k, v), F.scaled_dot_product_attention(few, k, v, attn_mask=bottom_right, enable_gqa=True)
    )


def test_gradcheck(reference_only: None) -> None:
    q, k, v = (x.detach().double().requires_grad_() for x in _leaves(2, 1, 7, 7, 4, "cpu"))
    cu = torch.tensor([0, 3, 7])
    assert torch.autograd.gradcheck(lambda *x: attention(*x, cu_seqlens=cu, window=3, return_lse=True), (q, k, v))


def test_torch_sees_one_operator(reference_only: None) -> None:
    q, k, v = _leaves(2, 1, 9, 9, 16, "cpu")
    torch.library.opcheck(torch.ops.menagerie.attention.default, (q, k, v, packed(1, 9), True, 4, 0.25))
    compiled = torch.compile(lambda q, k, v: attention(q, k, v, window=4), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q, k, v), attention(q, k, v, window=4))
    (dq,) = torch.autograd.grad(attention(q, k, v).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="attention: its gradient cannot be differentiated again"):
        dq.sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(q, k, v).dtype == torch.bfloat16


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_parts_combine_to_the_whole(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    k, v = (torch.randn(1, 2, sum(sizes), 8, generator=generator, dtype=torch.float64) for _ in range(2))
    q = torch.randn(1, 2, 3, 8, generator=generator, dtype=torch.float64)
    parts = [
        reference.forward(q, *pair, None, False, 0, 1.0) for pair in zip(k.split(sizes, 2), v.split(sizes, 2), strict=True)
    ]
    blind = (torch.full_like(q, 3.0), torch.full(q.shape[:3], -torch.inf, dtype=q.dtype))
    o, lse = combine_lse(*zip(blind, *parts, strict=True))
    expected = reference.forward(q, k, v, None, False, 0, 1.0)
    torch.testing.assert_close((o, lse), expected)


def test_combining_passes_gradients_and_says_what_does_not_fit() -> None:
    outputs = [_draw(2, 4, seed=i).double().requires_grad_() for i in range(3)]
    lses = [_draw(2, seed=5 + i).double().requires_grad_() for i in range(3)]
    assert torch.autograd.gradcheck(lambda *x: combine_lse(x[:3], x[3:]), (*outputs, *lses))
    with pytest.raises(ValueError, match=r"part 1 is an output of shape \(3, 4\)"):
        combine_lse([_draw(2, 4), _draw(3, 4)], [_draw(2), _draw(3)])
    with pytest.raises(ValueError, match="1 outputs and 0 lses"):
        combine_lse([_draw(2, 4)], [])


@given(st.lists(st.integers(0, 70), min_size=1, max_size=5), st.integers(1, 2), st.booleans(), st.integers(0, 60))
@settings(max_examples=5, deadline=None)
def test_the_schedule_orders_tiles_by_the_keys_that_they_see(sizes: list[int], batch: int, causal: bool, window: int) -> None:
    from kernels.attention.schedule import schedule

    device = "cuda" if torch.cuda.is_available() else "cpu"
    length = -(-max(sum(sizes), 1) // batch)
    cu = torch.tensor([0, *sizes]).cumsum(0).clamp_max(batch * length)
    cu = torch.cat([cu, torch.tensor([batch * length])])
    starts = document_starts_of(cu, batch, length)
    made = schedule(starts.to(device), causal, window, 32, 16)
    assert torch.equal(made.starts[:, :length].cpu(), starts)
    same = starts[:, :, None] == starts[:, None, :]
    ends = same.int().cumsum(-1).argmax(-1) + 1
    assert torch.equal(made.ends[:, :length].cpu(), ends.int())
    seen = reference.visible_keys(length, length, starts, causal, window, torch.device("cpu"))[:, 0]
    for order, size, sees in ((made.query_order, 32, seen), (made.key_order, 16, seen.transpose(1, 2))):
        for row, tiles_ in zip(sees, order.cpu().tolist(), strict=True):
            assert sorted(tiles_) == list(range(-(-length // size)))
            any_row = [part.any(0).nonzero() for part in row.split(size)]
            work = [int(found.max() - found.min()) + 1 for found in any_row]
            assert [work[tile] for tile in tiles_] == sorted(work, reverse=True)


def test_the_choice_says_why() -> None:
    said: list[str] = []
    q, k, v = _leaves(2, 1, 9, 9, 16, "cpu")
    attention(q, k, v, explain=said.append)
    assert said == ["attention: fused: cpu tensors take the reference in plain torch"]
    on_gpu = torch.empty(1, 2, 9, 64, device="meta", dtype=torch.bfloat16)
    on_gpu = _Cuda(on_gpu)
    assert choose(on_gpu, on_gpu).backend == "cudnn"
    assert "outside the window" in choose(on_gpu, on_gpu, window=4).reason
    assert "document" in choose(on_gpu, on_gpu, documents=True).reason
    assert choose(on_gpu, on_gpu, window=9).backend == "cudnn"
    assert choose(on_gpu, on_gpu, deterministic=True).backend == "fused"


class _Cuda:
    """A tensor's facts as they would be on a GPU."""

    is_cuda = True

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.dtype = tensor.shape, tensor.dtype


def _errors() -> Iterator[tuple[str, Callable[[], Any]]]:
    def q(*shape: int, **options: Any) -> Tensor:
        return torch.zeros(shape or (2, 4, 8, 16), **options)

    yield "head_dim 12; it takes multiples of 8 up to 256: the nearest is 16", lambda: attention(*[q(1, 1, 4, 12)] * 3)
    yield "head_dim 300", lambda: attention(*[q(1, 1, 4, 300)] * 3)
    yield "4 query heads over 3 KV heads", lambda: attention(q(), q(2, 3, 8, 16), q(2, 3, 8, 16))
    yield "k has shape", lambda: attention(q(), q(1, 4, 8, 16), q(1, 4, 8, 16))
    yield "v has shape", lambda: attention(q(), q(), q(2, 4, 9, 16))
    yield (
        "8 queries and 9 keys with documents",
        lambda: attention(q(), q(2, 4, 9, 16), q(2, 4, 9, 16), cu_seqlens=torch.tensor([0, 16])),
    )
    yield "k is float16 and q is float32", lambda: attention(q(), q(dtype=torch.float16), q())
    yield "it may be float32, float16, bfloat16, float64", lambda: attention(*[q(dtype=torch.int32)] * 3)
    yield "0 keys in the window", lambda: attention(q(), q(), q(), window=0)
    yield "scale -1.0; it must be positive", lambda: attention(q(), q(), q(), scale=-1.0)


@pytest.mark.parametrize("message, call", list(_errors()), ids=lambda x: x if isinstance(x, str) else "")
def test_errors_name_the_limit(message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="attention: ") as raised:
        call()
    assert message in str(raised.value)


def test_each_shipped_configuration_compiles_for_hopper(compile_gate: Callable[..., list[dict[str, Any]]]) -> None:
    assert compile_gate("attention")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device with 100 GB")
def test_more_than_2_31_elements() -> None:
    q, k, v = (torch.randn(5, 65536, 64, 128, device="cuda", dtype=torch.bfloat16).transpose(1, 2) for _ in range(3))
    assert q.numel() > 2**31
    do = torch.randn_like(q)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    o = attention(*inputs, window=128)
    gradients = torch.autograd.grad(o, inputs, do)
    last = [x[-1:, -1:].detach().contiguous().requires_grad_() for x in inputs]
    expected = attention(*last, window=128)
    assert torch.equal(o[-1:, -1:], expected)
    for whole, one in zip(gradients, torch.autograd.grad(expected, last, do[-1:, -1:]), strict=True):
        assert torch.equal(whole[-1:, -1:], one)
