"""Packed documents of the long convolution, and the plans that are kept for a batch's boundaries."""

from __future__ import annotations

import gc
import re
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.conv_fft import cases, conv_fft, plan_documents, plans, rows
from kernels.conv_fft.rows import BLOCKS, document_rows, length_classes
from kernels.verification import verify

HALF, BRAIN = torch.float16, torch.bfloat16


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter runs programs one after the other: as few as a channel needs."""
    from kernels.conv_fft import launch_fused, launch_short

    if not torch.cuda.is_available():
        monkeypatch.setattr(launch_fused, "PROGRAMS", 4)
        monkeypatch.setattr(launch_short, "PROGRAMS", 4)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One program to 1024 samples, blocks of 1024 to 4096."""
    monkeypatch.setattr(rows, "BLOCKS", ((1024, 4096, 1024),))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    "case",
    [
        cases.case("every kernel", 2, 1, 2400, documents=(1, 3, 0, 120, 128, 500, 1100, 548, 1025, 1, 1374)),
        cases.case("few taps, no gates", 1, 2, 1600, 40, documents=(1, 30, 60, 119, 121, 1269), gates=False),
        cases.case("many documents", 1, 1, 400, documents=(1,) * 40 + (7, 8, 9) * 15),
        cases.case("odd rows, longer filter", 1, 1, 1301, 2000, documents=(70, 1, 1129, 101)),
        cases.case("two-sided", 1, 1, 1400, documents=(1100, 7, 293), two_sided=True),
    ],
    ids=lambda case: case.name,
)
def test_values_and_gradients_are_the_references(case: Any, device: str) -> None:
    assert not verify(case, device).failures


def test_documents_of_many_blocks(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """More blocks than a program of the filter's gradient sums, odd and even numbers of them, and a last one that is full."""
    monkeypatch.setattr(rows, "BLOCKS", ((1024, 8192, 1024),))
    assert not verify(cases.case("blocks", 1, 1, 9400, documents=(5200, 2104, 2048, 48)), device).failures


@pytest.mark.usefixtures("small_blocks")
def test_nan_in_a_later_block_leaves_earlier_ones(device: str) -> None:
    """Filters are causal: of outputs whole blocks before it, and of input gradients whole blocks after it, none is NaN."""
    u, dy = (_random(1, 1, 3072, device=device) for _ in range(2))
    k = _random(1, 3072, device=device, dtype=torch.float32)
    leaf = u.clone().requires_grad_()
    dy[..., 1030] = torch.nan
    leaf.data[..., 2500] = torch.nan
    y = conv_fft(leaf, k, cu_seqlens=torch.tensor([0, 3072], device=device))
    assert y[..., :2048].isfinite().all()
    assert not y[..., 2500:].isfinite().any()
    (dx,) = torch.autograd.grad(y, leaf, dy)
    assert dx[..., 2048:].isfinite().all()
    assert not dx[..., :1024].isfinite().any()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("documents", [(10,) * 30, (1100, 100)], ids=["many", "blocks"])
def test_sums_over_documents_are_float32(documents: tuple[int, ...], device: str) -> None:
    """Gradients of filter and skip: float16 operands leave out less than 1e-3, however many documents there are.

    Over some channels: the one number that a channel's skip gets may be small beside its terms.
    """
    errors = verify(cases.case("skip", 1, 5, sum(documents), documents=documents, skip=True), device).errors
    assert max(errors["dskip"], errors["dfilter"]) < 1e-3


def _random(*shape: int, device: str, dtype: torch.dtype = BRAIN) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(device, dtype)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", [HALF, BRAIN])
def test_what_is_beside_a_document_moves_no_bit_of_it(dtype: torch.dtype, device: str) -> None:
    lengths = [3, 90, 1, 200, 1066, 40]
    ends = torch.tensor([0, *lengths]).cumsum(0)
    u, gate, dy = (_random(1, 1, 1400, device=device, dtype=dtype) for _ in range(3))
    k = _random(1, 1400, device=device, dtype=torch.float32)

    def run(u: Tensor) -> list[Tensor]:
        u = u.clone().requires_grad_()
        y = conv_fft(u, k, pregate=gate, cu_seqlens=ends.to(device))
        return [y.detach(), *torch.autograd.grad(y, u, dy)]

    before = run(u)
    for i in (1, 3, 4):
        first, last = int(ends[i]), int(ends[i + 1])
        changed = torch.full_like(u, 1e4)
        changed[..., first:last] = u[..., first:last]
        for a, b in zip(before, run(changed), strict=True):
            assert torch.equal(a[..., first:last], b[..., first:last])


@pytest.mark.usefixtures("small_blocks")
def test_channels_in_groups(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    from kernels.conv_fft import workspace

    monkeypatch.setattr(workspace, "WORKSPACE", 1 << 15)
    assert not verify(cases.case("documents", 1, 2, 1200, documents=(1100, 100)), device).failures


@pytest.mark.parametrize("blocks", [BLOCKS, ((1024, 4096, 1024),)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [7, 2000, 2001])
def test_the_table_holds_each_document_once(
    length: int, causal: bool, blocks: Any, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(rows, "BLOCKS", blocks)
    generator = torch.Generator().manual_seed(length)
    boundaries = torch.rand(3, length, generator=generator) < 0.01
    boundaries[:, 0] = True
    boundaries[0, :] |= torch.arange(length) < 30  # of one token each
    position = torch.arange(length)
    starts = torch.where(boundaries, position, 0).cummax(1).values.int()
    table = document_rows(starts.to(device), 5, length, causal)
    assert table.longest == length_classes(length, causal)
    assert any(table.blocks) == (causal and length > 1024 and blocks != BLOCKS)
    count = int(table.count[-1])
    columns = zip(table.first[:count].tolist(), table.shift.tolist(), table.length.tolist(), strict=False)
    found = {(first // (5 * length) * length + first % length + shift, size - shift) for first, shift, size in columns}
    where = boundaries.flatten().nonzero().flatten().tolist()
    assert found == {(a, b - a) for a, b in zip(where, [*where[1:], 3 * length], strict=True)}
    sizes = table.length[:count].tolist()
    ends = table.count.tolist()
    begins = [0, *ends[1:-1]]
    for begin, end, most, longest in zip(begins, ends[1:], table.most, table.longest, strict=True):
        assert end - begin <= most
        assert all(size <= longest for size in sizes[begin:end])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("longest", [60, 500, 1100])
def test_a_document_beyond_the_bound_ends_in_zeros(longest: int, device: str) -> None:
    u = _random(1, 1, 3200, device=device).requires_grad_()
    k = _random(1, 3200, device=device, dtype=torch.float32)
    cu_seqlens = torch.tensor([0, 40, 60, 3200], device=device)
    bounded = conv_fft(u, k, pregate=u, cu_seqlens=cu_seqlens, longest_document=longest)
    right = conv_fft(u, k, pregate=u, cu_seqlens=cu_seqlens)
    assert torch.equal(bounded[..., :60], right[..., :60])
    assert not bounded[..., 60 + 2 * 1024 :].any()
    assert not torch.autograd.grad(bounded, u, torch.ones_like(u))[0][..., 60 + 2 * 1024 :].any()


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The boundaries that tables are made of."""
    made: list[Tensor] = []
    make = plans.document_table

    def counted(starts: Tensor, *rest: Any) -> Tensor:
        made.append(starts)
        return make(starts, *rest)

    monkeypatch.setattr(plans, "document_table", counted)
    monkeypatch.setattr(rows, "document_table", counted)
    return made


@pytest.mark.parametrize("form", ["cu_seqlens", "document_starts"])
def test_a_batch_is_planned_once(form: str, tables: list[Tensor], device: str) -> None:
    u = _random(1, 2, 64, device=device).requires_grad_()
    k = _random(2, 64, device=device, dtype=torch.float32).requires_grad_()
    given = torch.tensor([0, 30, 64]) if form == "cu_seqlens" else torch.tensor([[0] * 30 + [30] * 34], dtype=torch.int32)
    given = given.to(device)
    for _ in range(2):
        y = conv_fft(u, k, **{form: given})
        torch.autograd.grad(y.sum(), (u, k))
    assert len(tables) == 1
    moved = torch.tensor([0, 20, 64]) if form == "cu_seqlens" else torch.tensor([[0] * 20 + [20] * 44], dtype=torch.int32)
    given.copy_(moved)  # the same tensor, another version
    again = conv_fft(u, k, **{form: given})
    assert len(tables) == 2
    assert torch.equal(again, conv_fft(u, k, **{form: moved.to(device)}))
    assert not torch.equal(again, y)
    gone = weakref.ref(given)
    del given, y, again
    tables.clear()
    gc.collect()
    assert gone() is None  # what is kept does not keep the boundaries


def test_a_plan_of_ones_own(tables: list[Tensor], device: str) -> None:
    u = _random(1, 2, 64, device=device).requires_grad_()
    k = _random(2, 64, device=device, dtype=torch.float32)
    cu_seqlens = torch.tensor([0, 30, 64], device=device)
    plan = plan_documents(u, cu_seqlens=cu_seqlens)
    y = conv_fft(u, k, documents=plan)
    torch.autograd.grad(y.sum(), u)
    assert len(tables) == 1
    assert torch.equal(y, conv_fft(u, k, cu_seqlens=cu_seqlens))
    for arguments, message in (
        ({"u": u, "documents": plan, "cu_seqlens": cu_seqlens}, "documents and boundaries together"),
        ({"u": u[..., :32].detach(), "documents": plan}, "planned for (batch, channels, length) = (1, 2, 64)"),
        ({"u": u, "documents": plan, "reverse_filter": k}, "call plan_documents with causal=False"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            conv_fft(filter=k, **arguments)
    with pytest.raises(ValueError, match="plan_documents without documents"):
        plan_documents(u)


@pytest.mark.usefixtures("reference_only")
def test_compiled_with_documents() -> None:
    u, k = _random(1, 2, 40, device="cpu", dtype=torch.float32), _random(2, 40, device="cpu", dtype=torch.float32)
    cu_seqlens = torch.tensor([0, 17, 40])

    def step(u: Tensor, cu_seqlens: Tensor) -> Tensor:
        return conv_fft(2 * u, k, cu_seqlens=cu_seqlens) + 1

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(u, cu_seqlens), step(u, cu_seqlens))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("size", [50, 300, 600, 1100])
def test_nan_stays_in_its_document(size: int, device: str) -> None:
    """Of documents that share a program, and a product, those without NaN get what they get without it."""
    length = 6 * size
    generator = torch.Generator().manual_seed(0)
    u, pre, dy = (torch.randn(1, 1, length, generator=generator).to(device, HALF) for _ in range(3))
    k = torch.randn(1, size, generator=generator).to(device)
    starts = (torch.arange(length, dtype=torch.int32, device=device) // size * size)[None]
    broken = u.clone()
    broken[..., 2 * size + 3] = torch.nan
    found = []
    for x in (u, broken):
        leaves = [x.clone().requires_grad_(), pre.clone().requires_grad_()]
        y = conv_fft(leaves[0], k, pregate=leaves[1], document_starts=starts)
        found.append([t.view(6, size) for t in (y, *torch.autograd.grad(y, leaves, dy))])
    others = [i for i in range(6) if i != 2]
    assert not torch.isfinite(found[1][0][2]).all()
    for without, with_nan in zip(*found, strict=True):
        assert torch.equal(without[others], with_nan[others])
