"""What every convolution promises beside its values: isolation, causality, torch.compile, refusals, odd inputs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.conv_fir import conv_fir, conv_fir_state
from kernels.conv_modal import conv_modal, conv_modal_state, conv_modal_step, modal_filter
from kernels.conv_modal.cases import modes
from kernels.conv_modal.reference import conv_modal as modal_reference
from kernels.conv_toeplitz import conv_toeplitz
from kernels.verification import relative_error

LENGTH = 45
DOCUMENTS = torch.tensor([0, 7, 7, 8, 30, LENGTH], dtype=torch.int32)

Convolution = Callable[..., Tensor]


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _modes(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [tensor.to(dtype) for tensor in modes(2, 3).values()]


def _state() -> Tensor:
    return torch.zeros(1, 2, 3, 2)


def _convolutions(device: str, dtype: torch.dtype = torch.float32) -> dict[str, Convolution]:
    """Each convolution of (1, 2, length) as a function of u and keywords, parameters fixed."""
    short, long = _random(2, 3, dtype=dtype).to(device), _random(1, 20, dtype=dtype).to(device)
    parts = [tensor.to(device) for tensor in _modes(torch.float64 if dtype == torch.float64 else torch.float32)]
    return {
        "conv_fir": lambda u, **k: conv_fir(u, short, layout="bdl", **k),
        "conv_fir bld": lambda u, **k: conv_fir(u.transpose(1, 2), short, **k).transpose(1, 2),
        "conv_toeplitz": lambda u, **k: conv_toeplitz(u, long, **k),
        "conv_modal": lambda u, **k: conv_modal(u, *parts, **k),
    }


NAMES = ["conv_fir", "conv_fir bld", "conv_toeplitz", "conv_modal"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_before_or_in_another_document_moves(name: str, device: str) -> None:
    convolve = _convolutions(device)[name]
    documents = DOCUMENTS.to(device)
    u = _random(1, 2, LENGTH).to(device)
    changed = u.clone()
    changed[:, :, 20:30] += 100.0  # inside the document 8 … 29
    before, after = convolve(u, cu_seqlens=documents), convolve(changed, cu_seqlens=documents)
    same = [*range(20), *range(30, LENGTH)]
    assert torch.equal(before[..., same], after[..., same])
    assert not torch.equal(before[..., 20:30], after[..., 20:30])
    gradient = _random(1, 2, LENGTH, seed=1).to(device)
    moved = gradient.clone()
    moved[:, :, 10:20] += 100.0
    found = []
    for dy in (gradient, moved):
        leaf = u.clone().requires_grad_()
        found.append(torch.autograd.grad(convolve(leaf, cu_seqlens=documents), leaf, dy)[0])
    same = [*range(8), *range(20, LENGTH)]
    assert torch.equal(found[0][..., same], found[1][..., same])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_stays_in_its_document(name: str, value: float, device: str) -> None:
    convolve = _convolutions(device)[name]
    documents = DOCUMENTS.to(device)
    others = [*range(8), *range(30, LENGTH)]

    def run(u: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        leaf = u.clone().requires_grad_()
        y = convolve(leaf, cu_seqlens=documents)
        return y.detach(), torch.autograd.grad(y, leaf, dy)[0]

    given = [_random(1, 2, LENGTH, seed=seed).to(device) for seed in (0, 1)]
    healthy = run(*given)
    for which in (0, 1):
        broken = [x.clone() for x in given]
        broken[which][:, :, 15] = value
        results = run(*broken)
        assert not torch.isfinite(results[which]).all()
        for before, after in zip(healthy, results, strict=True):
            assert torch.equal(before[..., others], after[..., others])


@pytest.mark.parametrize("name", NAMES)
def test_packed_documents_are_what_separate_ones_are(name: str, reference_only: None) -> None:
    convolve = _convolutions("cpu", torch.float64)[name]
    u = _random(1, 2, LENGTH, dtype=torch.float64)
    packed = convolve(u, cu_seqlens=DOCUMENTS)
    ends = DOCUMENTS.tolist()
    separate = [convolve(u[..., a:b]) for a, b in pairwise(ends)]
    torch.testing.assert_close(packed, torch.cat(separate, dim=2))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_that_are_expanded_and_inputs_that_are_slices(name: str, device: str) -> None:
    convolve = _convolutions(device)[name]
    whole = _random(2, 3, 2 * LENGTH).to(device)
    sliced = whole[1:, 1:, ::2]  # no axis is dense
    results = []
    for u in (sliced, sliced.contiguous()):
        leaf = u.detach().requires_grad_()
        y = convolve(leaf)
        results.append((y.detach(), *torch.autograd.grad(y.sum(), leaf)))  # sum's gradient has stride 0
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_zeros_and_large_scales(name: str, device: str) -> None:
    convolve = _convolutions(device)[name]
    u = _random(1, 2, 20).to(device)
    assert not convolve(torch.zeros_like(u)).any()
    torch.testing.assert_close(convolve(u * 2.0**40) / 2.0**40, convolve(u), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 2, 5), (2, 2, 0)])
@pytest.mark.parametrize("name", NAMES)
def test_no_sequences_and_no_tokens_give_nothing(name: str, shape: tuple[int, int, int], device: str) -> None:
    u = torch.zeros(shape, device=device, requires_grad=True)
    y = _convolutions(device)[name](u)
    assert y.shape == shape
    assert torch.autograd.grad(y.sum(), u)[0].shape == shape


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_graph_breaks_and_refuses_a_second_derivative(name: str, reference_only: None) -> None:
    convolve = _convolutions("cpu")[name]
    u = _random(1, 2, 12).requires_grad_()

    def step(u: Tensor) -> Tensor:
        return 2 * convolve(u, document_starts=torch.zeros(1, 12, dtype=torch.int32))

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(u), step(u))
    (first,) = torch.autograd.grad(compiled(u).sum(), u)
    torch.testing.assert_close(first, torch.autograd.grad(step(u).sum(), u)[0])
    (gradient,) = torch.autograd.grad(convolve(u).sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        gradient.sum().backward()


def test_operators_are_registered_right(reference_only: None) -> None:
    u, short = _random(1, 2, 6).requires_grad_(), _random(2, 3).requires_grad_()
    parts = [tensor.requires_grad_() for tensor in _modes()]
    starts = torch.zeros(1, 6, dtype=torch.int32)
    nothing = (None, None, None, None)
    torch.library.opcheck(torch.ops.menagerie.conv_fir.default, (u, short, *nothing, starts, True, False))
    torch.library.opcheck(torch.ops.menagerie.conv_toeplitz.default, (u, short, *nothing, starts, True))
    torch.library.opcheck(torch.ops.menagerie.conv_modal.default, (u, *parts, *nothing, starts, True, True))
    torch.library.opcheck(torch.ops.menagerie.modal_filter.default, (*parts, 6))


def test_shapes_are_known_before_the_kernels_run(device: str) -> None:
    u, short = _random(1, 2, 6).to(device), _random(2, 3).to(device)
    parts = [tensor.to(device) for tensor in _modes()]
    nothing = (None, None, None, None, None)
    for operator, inputs in (
        (torch.ops.menagerie.conv_fir.default, (u, short, *nothing, True, False)),
        (torch.ops.menagerie.conv_toeplitz.default, (u, short, *nothing, True)),
        (torch.ops.menagerie.conv_modal.default, (u, *parts, *nothing, True, False)),
        (torch.ops.menagerie.conv_modal.default, (u.bfloat16(), *parts, *nothing, False, True)),
    ):
        torch.library.opcheck(operator, inputs, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("name", NAMES)
def test_autocast_casts_the_sequence(name: str, reference_only: None) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _convolutions("cpu")[name](_random(1, 2, 5)).dtype == torch.bfloat16


def test_references_have_the_gradients_of_their_values(reference_only: None) -> None:
    u, gate = (
        _random(1, 2, 9, dtype=torch.float64).requires_grad_(),
        _random(1, 2, 9, seed=2, dtype=torch.float64).requires_grad_(),
    )
    parts = [tensor.requires_grad_() for tensor in _modes(torch.float64)]
    weight = _random(2, 3, dtype=torch.float64).requires_grad_()
    starts = torch.tensor([[0, 0, 0, 3, 3, 5, 5, 5, 5]], dtype=torch.int32)
    assert torch.autograd.gradcheck(
        lambda u, w, g: conv_fir(u, w, pregate=g, silu=True, layout="bdl", document_starts=starts), (u, weight, gate)
    )
    assert torch.autograd.gradcheck(
        lambda u, *m: conv_modal(u, *m, postgate=gate.detach(), document_starts=starts), (u, *parts)
    )
    assert torch.autograd.gradcheck(lambda *m: modal_filter(*m, 11), parts)


@pytest.mark.parametrize("layout", ["bld", "bdl"])
def test_a_sequence_in_two_pieces_is_the_sequence(layout: str, reference_only: None) -> None:
    time = 1 if layout == "bld" else 2
    u = _random(2, 4, 4, dtype=torch.float64)
    weight = _random(4, 7, dtype=torch.float64)  # more taps than a piece has tokens
    whole = conv_fir(u, weight, layout=layout)
    state, pieces = None, []
    for piece in u.split(1, dim=time):
        pieces.append(conv_fir(piece, weight, layout=layout, state=state))
        state = conv_fir_state(piece, 7, layout=layout, state=state)
    torch.testing.assert_close(torch.cat(pieces, dim=time), whole)


def test_steps_are_the_convolution(device: str) -> None:
    parts = [tensor.to(device) for tensor in _modes()]
    u = _random(1, 2, 40).to(device)
    y, state = conv_modal_state(u[..., :35], *parts, skip=torch.ones(2, device=device))
    outputs = [y]
    for t in range(35, 40):
        out, state = conv_modal_step(u[..., t], *parts, state, skip=torch.ones(2, device=device))
        outputs.append(out[..., None])
    exact, _ = modal_reference(u.double(), *(tensor.double() for tensor in parts), skip=torch.ones(2, device=device).double())
    assert relative_error(torch.cat(outputs, dim=2), exact) < 1e-5


def test_the_filter_is_the_response_to_an_impulse(reference_only: None) -> None:
    parts = _modes(torch.float64)
    impulse = torch.zeros(1, 2, 50, dtype=torch.float64)
    impulse[..., 0] = 1
    torch.testing.assert_close(conv_modal(impulse, *parts)[0], modal_filter(*parts, 50))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u: conv_fir(u, torch.zeros(2, 200), layout="bdl"), "200 taps; it takes 2 to 128: conv_toeplitz"),
        (lambda u: conv_fir(u, torch.zeros(3, 4), layout="bdl"), r"weight has shape \(3, 4\); it must be \(channels, taps\)"),
        (lambda u: conv_fir(u, torch.zeros(2, 4), layout="lbd"), "layout is 'lbd'; it may be \"bld\""),
        (lambda u: conv_fir(u.int(), torch.zeros(2, 4), layout="bdl"), "u is int32; it may be float32"),
        (lambda u: conv_fir(u, torch.zeros(2, 4), layout="bdl", pregate=u.half()), "pregate is float16 and u is float32"),
        (lambda u: conv_toeplitz(u, torch.zeros(1, 3000)), "3000 taps; it takes 2 to 2048: conv_fft"),
        (lambda u: conv_toeplitz(torch.zeros(1, 3, 5), torch.zeros(2, 5)), "3 channels and 2 filters"),
        (lambda u: conv_modal(u, *(t.half() for t in _modes())), "decay is float16; it may be float32, float64"),
        (lambda u: conv_modal(u, *(t.to("meta") for t in _modes())), "decay is on meta"),
        (lambda u: conv_modal(u, torch.zeros(2, 65), torch.zeros(2, 65), torch.zeros(2, 65, 2)), "65 modes; it takes 1 to 64"),
        (
            lambda u: conv_modal_step(u, *_modes(), _state()),
            r"conv_modal_step: u has shape \(1, 2, 5\); it must be \(batch, channels",
        ),
        (
            lambda u: conv_modal_step(u[..., 0], *_modes(), _state()[:, :1]),
            r"state has shape \(1, 1, 3, 2\); it must be \(batch",
        ),
        (
            lambda u: conv_modal_step(u[..., 0], *_modes(), _state(), skip=u),
            r"skip has shape \(1, 2, 5\); it must be \(channels",
        ),
        (lambda u: conv_modal_step(u[..., 0], *_modes(), _state(), postgate=u), r"postgate has shape \(1, 2, 5\); it must be"),
        (lambda u: conv_modal_step(u[:, :1, 0], *_modes(), _state()), r"u has shape \(1, 1\); it must be \(batch, channels"),
        (lambda u: conv_modal_step(u[..., 0], *_modes()[:2], _state(), _state()), "residue has shape"),
        (lambda u: conv_modal(u, *_modes(), document_starts=torch.zeros(1, 5, device="meta")), "document_starts is on meta"),
        (lambda u: conv_toeplitz(u, torch.zeros(2, 5), cu_seqlens=torch.tensor([0, 3])), "from 0 to 3; it must run from 0 to"),
        (lambda u: conv_toeplitz(u, torch.zeros(2, 5), cu_seqlens=torch.tensor([0, 4, 3, 5])), "cu_seqlens decreases"),
        (lambda u: conv_toeplitz(u, torch.zeros(2, 5), document_starts=torch.zeros(1, 5)), "document_starts is float32"),
    ],
)
def test_what_is_not_supported_is_said(call: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 2, 5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_more_than_two_to_the_31_elements(name: str) -> None:
    convolve = _convolutions("cuda")[name]
    length = 2**30 + 64
    u = torch.zeros(1, 2, length, device="cuda", dtype=torch.bfloat16)
    u[..., -100:] = _random(1, 2, 100).cuda()
    small = torch.zeros(1, 2, 8192, device="cuda", dtype=torch.bfloat16)
    small[..., -100:] = u[..., -100:]
    torch.testing.assert_close(convolve(u)[..., -100:], convolve(small)[..., -100:], rtol=1e-2, atol=1e-2)
