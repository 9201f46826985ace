"""The long convolution: values, gradients, documents, causality, scales, and what its plan promises."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kernels.conv_fft import cases, conv_fft, reference
from kernels.conv_fft.rows import document_rows, length_classes
from kernels.conv_fft.transforms import BACKWARD, FORWARD, INNER, Plan, plan
from kernels.verification import relative_error, verify

HALF, BRAIN = torch.float16, torch.bfloat16


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter runs programs one after the other: as few as a channel needs."""
    from kernels.conv_fft import launch_fused, launch_short

    if not torch.cuda.is_available():
        monkeypatch.setattr(launch_fused, "PROGRAMS", 4)
        monkeypatch.setattr(launch_short, "PROGRAMS", 4)


@pytest.mark.parametrize(
    "case",
    [
        cases.case("smallest transform", 5, 1, 256, dtype=HALF, two_sided=True),
        cases.case("odd", 3, 1, 499, two_sided=True),
        cases.case("two rows to a tile, three rows", 3, 1, 1000, two_sided=True),
        cases.case("one row to a tile", 2, 1, 2048, dtype=HALF),
        cases.case("other factors backward", 1, 1, 4096, dtype=HALF),
        cases.case("largest fused", 1, 1, 8000),
        cases.case("one sample", 2, 2, 1),
        cases.case("fewer samples than a tile", 1, 3, 17, two_sided=True, dtype=HALF),
        cases.case("partial filter", 2, 2, 300, 40, gates=False),
        cases.case("filter longer than the rows", 2, 2, 100, 333, two_sided=True, dtype=HALF),
        cases.case("half of the frequencies", 1, 1, 1024, kept=0.5, two_sided=True),
        cases.case("a quarter of the frequencies", 1, 1, 4096, kept=0.25),
        cases.case("skip", 1, 4, 200, skip=True),
        cases.case("documents", 2, 1, 600, documents=(1, 299, 1, 0, 259, 40, 600), two_sided=True),
        cases.case("float32 takes the library", 2, 2, 300, dtype=torch.float32),
    ],
    ids=lambda case: case.name,
)
def test_values_and_gradients_are_the_references(case: Any, device: str) -> None:
    assert not verify(case, device).failures


@pytest.mark.parametrize(("length", "dtype"), [(256, HALF), (1024, HALF), (512, BRAIN), (2048, BRAIN)])
def test_gated_gradients_where_others_are_wrong(length: int, dtype: torch.dtype, device: str) -> None:
    """dpost without its factor at 256 and 1024 in float16, an inexact dk at 512 and 2048: each gradient has its limit here."""
    report = verify(cases.case("gated", 2, 1, length, dtype=dtype), device)
    assert not report.failures
    assert {"du", "dfilter", "dpregate", "dpostgate"} <= report.errors.keys()


@pytest.fixture(params=[1, 2])
def three_passes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of more than 1024 samples take an outer transform of 16 points around inner ones of 256, or of twice that."""
    from kernels.conv_fft import triton, workspace

    def small(length: int, *more: Any, **named: Any) -> Plan:
        points = 256 * request.param
        return Plan(16 * points, 16, points, (16, 16), 16, 0.0) if length > 1024 else plan(length, *more, **named)

    monkeypatch.setattr(triton, "plan", small)
    monkeypatch.setattr(workspace, "WORKSPACE", 1 << 15)  # one channel at a time


@pytest.mark.usefixtures("three_passes")
@pytest.mark.parametrize(
    "case",
    [
        cases.case("two-sided", 1, 1, 1500, two_sided=True, dtype=HALF),
        cases.case("documents", 1, 1, 1300, documents=(100, 1200), gates=False),
    ],
    ids=lambda case: case.name,
)
def test_three_passes_through_memory(case: Any, device: str) -> None:
    """du takes the pregate, and dpostgate the output's gradient, which a known kernel confuses at this order."""
    assert not verify(case, device).failures


def test_taps_beyond_the_row_have_no_effect(device: str) -> None:
    """Neither those within the transform's points, by their rounding, nor infinite ones beyond."""
    u, _, _, k = _arguments(1, 1, 600, BRAIN, device)
    more = torch.full((1, 2000), float("inf"), device=device)
    more[:, :424] = 1.0
    k = k.requires_grad_()
    y = conv_fft(u, torch.cat([k, more], 1))
    assert relative_error(y, reference.conv_fft(u.double(), k.double())) < 4e-3
    (dk,) = torch.autograd.grad(y, k, torch.ones_like(y))
    assert dk.isfinite().all()


@pytest.mark.usefixtures("three_passes")
def test_channels_in_groups(device: str) -> None:
    u, _, _, k = _arguments(1, 2, 1100, BRAIN, device)
    y = conv_fft(u, k)
    assert relative_error(y, reference.conv_fft(u.double(), k)) < 4e-3


def _arguments(batch: int, channels: int, length: int, dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(length)
    u, pre, post = (torch.randn(batch, channels, length, generator=generator).to(device, dtype) for _ in range(3))
    return u, pre, post, torch.randn(channels, length, generator=generator).to(device) / length**0.5


@pytest.mark.usefixtures("three_passes")
@pytest.mark.parametrize("length", [600, 1500])
def test_the_future_moves_the_past_by_rounding_alone(length: int, device: str) -> None:
    u, _, _, k = _arguments(1, 1, length, HALF, device)
    changed = u.clone()
    cut = length // 2
    changed[..., cut:] = torch.randn(length - cut)
    before, after = conv_fft(u, k)[..., :cut], conv_fft(changed, k)[..., :cut]
    assert relative_error(after, before.double()) < 2e-3


def test_a_loud_row_leaves_a_quiet_one_alone(device: str) -> None:
    u, pre, post, k = _arguments(2, 2, 1000, BRAIN, device)
    alone = conv_fft(u[:1], k, pregate=pre[:1], postgate=post[:1])
    u[1] *= 1e4
    together = conv_fft(u, k, pregate=pre, postgate=post)
    assert torch.equal(together[:1], alone)  # not even by rounding: rows do not share one
    for row in range(2):
        exact = reference.conv_fft(
            u[row : row + 1].double(), k, None, pre[row : row + 1].double(), post[row : row + 1].double()
        )
        assert relative_error(together[row : row + 1], exact) < 4e-3


@pytest.mark.parametrize("last", [216, 220])
def test_packed_documents_are_separate_ones(last: int, device: str) -> None:
    """But for rounding, for they lie elsewhere in a tile; and what is beside a document does not move it at all."""
    lengths = [3, 280, 0, 1, last]
    u, pre, post, k = _arguments(1, 1, sum(lengths), HALF, device)
    cu_seqlens = torch.tensor([0, *lengths], device=device).cumsum(0)
    packed = conv_fft(u, k, pregate=pre, postgate=post, cu_seqlens=cu_seqlens)
    split = [t.split(lengths, 2) for t in (packed, u, pre, post)]
    for i in (0, 1, 3, 4):
        y, x, a, b = (t[i] for t in split)
        assert relative_error(y, conv_fft(x, k, pregate=a, postgate=b).double()) < 1e-3
    u[..., 3:283] = 1e4
    after = conv_fft(u, k, pregate=pre, postgate=post, cu_seqlens=cu_seqlens)
    assert torch.equal(after[..., :3], packed[..., :3])
    assert torch.equal(after[..., 283:], packed[..., 283:])


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_any_scale(scale: float, device: str) -> None:
    u, _, _, k = _arguments(2, 1, 300, BRAIN, device)
    y = conv_fft(u * scale, k)
    exact = reference.conv_fft((u * scale).double(), k)
    assert relative_error(y.double() / (scale or 1), exact / (scale or 1)) < 4e-3


def test_gradients_of_any_strides(device: str) -> None:
    u, pre, post, k = _arguments(2, 2, 300, HALF, device)
    leaves = [t.requires_grad_() for t in (u, pre, post, k)]
    y = conv_fft(u, k, pregate=pre, postgate=post)
    one = torch.ones((), dtype=HALF, device=device)
    for gradient in (one.expand_as(y), torch.randn(300, 2, 2, device=device).to(HALF).permute(2, 1, 0)):
        given = torch.autograd.grad(y, leaves, gradient, retain_graph=True)
        dense = torch.autograd.grad(y, leaves, gradient.contiguous(), retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(given, dense, strict=True))


@pytest.mark.parametrize("dtype", [BRAIN, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0, 2, 300), (2, 0, 300)])
@pytest.mark.parametrize("form", [None, "cu_seqlens", "document_starts"])
def test_no_rows_or_no_channels(form: str | None, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    """In kernels, in the library that float32 takes, and in the reference, which is float64's."""
    batch, channels, length = shape
    u = torch.empty(shape, dtype=dtype, device=device, requires_grad=True)
    k, reverse = (torch.ones(channels, length, device=device, requires_grad=True) for _ in range(2))
    starts = torch.zeros(batch, length, dtype=torch.int32, device=device)
    cu_seqlens = torch.tensor([0, batch * length], device=device)
    documents = {"cu_seqlens": cu_seqlens, "document_starts": starts}
    y = conv_fft(u, k, reverse_filter=reverse, pregate=u, **({form: documents[form]} if form else {}))
    assert y.shape == u.shape
    du, *filters = torch.autograd.grad(y.sum(), (u, k, reverse))
    assert du.shape == u.shape
    assert all(g.shape == k.shape and not g.any() for g in filters)


@pytest.mark.usefixtures("reference_only")
@pytest.mark.parametrize("documents", [False, True])
def test_recomputed_in_a_checkpoint(documents: bool) -> None:
    """Backward looks at what was saved once: a second look would find it gone."""
    u, pre, post, k = _arguments(1, 2, 40, torch.float32, "cpu")
    leaves = [t.requires_grad_() for t in (u, k, pre, post)]
    more = {"cu_seqlens": torch.tensor([0, 17, 40])} if documents else {}

    def step(u: Tensor, k: Tensor, pre: Tensor, post: Tensor) -> Tensor:
        return conv_fft(u, k, pregate=pre, postgate=post, **more).sin()

    again = checkpoint(step, *leaves, use_reentrant=False)
    assert isinstance(again, Tensor)
    given = torch.autograd.grad(again.sum(), leaves)
    plain = torch.autograd.grad(step(*leaves).sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(given, plain, strict=True))


def test_the_reference_is_the_sum() -> None:
    """Against the definition, and against differences."""
    torch.manual_seed(0)
    u, k, r = (torch.randn(1, 2, 11, dtype=torch.float64), *torch.randn(2, 2, 11, dtype=torch.float64))
    y = reference.conv_fft(u, k, r)
    for t in range(11):
        lags = sum(k[:, t - s] * u[0, :, s] for s in range(t + 1)) + sum(r[:, s - t - 1] * u[0, :, s] for s in range(t + 1, 11))
        assert torch.allclose(y[0, :, t], torch.as_tensor(lags))
    starts = torch.tensor([[0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8]], dtype=torch.int32)
    leaves = [t.requires_grad_() for t in (u, k, r)]
    assert torch.autograd.gradcheck(lambda *a: reference.conv_fft(*a, u, u, starts), leaves)


def test_keeping_every_frequency_is_the_convolution() -> None:
    torch.manual_seed(0)
    u, k = torch.randn(1, 1, 700, dtype=torch.float64), torch.randn(1, 700, dtype=torch.float64)
    assert torch.allclose(reference._band_limited(u, k, k, 1.0), reference._convolve(u, k, k, 1.0))


@pytest.mark.usefixtures("reference_only")
def test_one_operator_for_torch() -> None:
    u, pre, post, k = _arguments(2, 2, 40, torch.float32, "cpu")
    leaves = [t.requires_grad_() for t in (u, k, k.clone().detach(), pre, post)]
    torch.library.opcheck(torch.ops.menagerie.conv_fft.default, (*leaves, None, 1.0, 0))

    def step(u: Tensor, k: Tensor) -> Tensor:
        return conv_fft(2 * u, k, pregate=pre.detach()) + 1

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(u, k), step(u, k))
    du = torch.autograd.grad(conv_fft(u, k).sum(), u, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="conv_fft: its gradient cannot be differentiated again"):
        du.sum().backward()
    with torch.autocast("cpu", dtype=BRAIN):
        assert conv_fft(u, k).dtype == BRAIN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": torch.zeros(2, 8)}, "u has shape (2, 8); it must be (batch, channels, length)"),
        ({"filter": torch.zeros(3, 8)}, "filter has shape (3, 8)"),
        ({"pregate": torch.zeros(2, 2, 7)}, "pregate has shape (2, 2, 7)"),
        ({"postgate": torch.zeros(2, 2, 8, dtype=HALF)}, "postgate is float16 and u is float32"),
        ({"skip": torch.zeros(3)}, "skip has shape (3,)"),
        ({"kept_frequencies": 0.3}, "kept_frequencies is 0.3; it may be 1, 0.5 or 0.25"),
        ({"cu_seqlens": torch.tensor([0, 9])}, "it must run from 0 to batch * length = 16"),
        ({"longest_document": 0}, "0 as longest_document"),
        (
            {"cu_seqlens": torch.zeros(2, dtype=torch.int32, device="meta")},
            "cu_seqlens is on meta and the sequences are on cpu",
        ),
    ],
)
def test_errors_say_what_is_wrong(change: dict[str, Any], message: str) -> None:
    arguments = {"u": torch.zeros(2, 2, 8), "filter": torch.zeros(2, 8)} | change
    with pytest.raises(ValueError, match=re.escape(message)):
        conv_fft(**arguments)


def test_a_document_beyond_the_bound_ends_in_zeros(device: str) -> None:
    u, _, _, k = _arguments(1, 1, 1000, HALF, device)
    cu_seqlens = torch.tensor([0, 200, 1000], device=device)
    bounded, right = (conv_fft(u, k, cu_seqlens=cu_seqlens, longest_document=n) for n in (250, None))
    assert torch.equal(bounded[..., :200], right[..., :200])
    assert not bounded[..., 800:].any()


def test_documents_are_rows_by_length(device: str) -> None:
    lengths = [300, 0, 1, 255, 256, 700, 512, 88]
    starts = torch.cat([torch.full((n,), sum(lengths[:i])) for i, n in enumerate(lengths)]).view(2, -1)
    starts = (starts - torch.tensor([[0], [1056]])).clamp_min(0).int()
    rows = document_rows(starts.to(device), 3, 1056, True)
    assert rows.longest == length_classes(1056, True) == (256, 512, 1024, 2048)
    # 700 is cut by the end of the first row: 244 and 456
    table = zip(rows.first.tolist(), rows.shift.tolist(), rows.length.tolist(), strict=True)
    found = list(table)[: int(rows.count[-1])]
    assert all(first % 8 == 0 and first % 3168 + length <= 1056 for first, _, length in found)
    assert sorted((first + shift, length - shift) for first, shift, length in found) == sorted([
        (0, 300), (300, 1), (301, 255), (556, 256), (812, 244), (3 * 1056, 456), (3 * 1056 + 456, 512), (3 * 1056 + 968, 88),
    ])  # fmt: skip
    assert rows.count.tolist() == [0, 3, 8, 8, 8]  # 255 and 256 samples have frames of 260
    assert all(end - begin <= most for begin, end, most in zip(rows.count, rows.count[1:], rows.most, strict=False))


def test_plans_hold_their_rows_and_follow_the_model() -> None:
    for length in (1, 255, 256, 257, 4096, 5000, 8193, 100_000, 1 << 20, 1 << 22):
        for backward, factors in ((False, FORWARD), (True, BACKWARD)):
            p = plan(length, backward=backward)
            assert p.points == p.outer * p.inner >= length
            assert p.factors == (factors if p.order == 2 else INNER)[p.inner]
            assert p.factors[0] * p.factors[1] * p.halves == p.inner
            assert p.halves in ((1,) if p.order == 2 else (1, 2))
    assert plan(256).order == plan(4096).order == 2
    assert plan(1 << 16).order == 3
    assert plan(4096, 0.25).seconds < plan(4096).seconds
    assert plan(4096, 0.5, backward=True) == plan(4096, 0.5)  # a sparse filter means the same both ways


def test_the_check_takes_every_factorisation() -> None:
    def kernels(length: int, fraction: float, backward: bool) -> tuple[Any, ...]:
        p = plan(length, fraction, backward=backward)
        return backward, p.outer, p.inner, p.factors, p.keep

    checked = set()
    for case in cases.cases():
        if case.dtype != torch.float32 and "document_starts" not in case.arguments:
            fraction = case.arguments.get("kept_frequencies", 1.0)
            checked |= {kernels(case.arguments["u"].shape[-1], fraction, backward) for backward in (False, True)}
    lengths = {int(2 ** (i / 4)) for i in range(22 * 4 + 1)} | set(range(9000, 120_000, 4000))
    taken = {kernels(n, kept, backward) for n in lengths for kept in (1.0, 0.5, 0.25) for backward in (False, True)}
    assert taken <= checked, sorted(taken - checked)


def test_what_is_shipped_compiles(compile_gate: Any) -> None:
    lines = compile_gate("conv_fft")
    some = {
        "fused forward 4096",
        "outer inverse 64",
        "inner backward 4096",
        "block product 2048",
        "fused backward documents 8192",
        "short backward 256",
        "short forward documents 256",
    }
    assert some <= {line["configuration"] for line in lines}
