"""What every operator does with arguments that it cannot take, and with layouts, devices and modes that are unusual."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kernels.attention import attention
from kernels.conv_fir import conv_fir, conv_fir_state
from kernels.conv_toeplitz import conv_toeplitz
from kernels.decode import decode_attention
from kernels.documents import document_starts_of, resolve_documents
from kernels.gelu import gelu
from kernels.linear_cross_entropy import linear_cross_entropy
from kernels.long_conv import Modes, choose, long_conv
from kernels.monarch import block_diagonal, block_diagonal_glu, monarch
from kernels.norm import add_layer_norm, rms_norm
from kernels.rope import rope
from kernels.swiglu import swiglu
from kernels.verification import relative_error


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


_Q, _U, _W = _random(1, 2, 4, 16), _random(2, 2, 9), _random(2, 4)
_HIDDEN, _VOCABULARY, _TARGETS = _random(5, 8), _random(11, 8), torch.arange(5)
_STARTS = torch.tensor([[0, 0, 1, 3]], dtype=torch.int32)


@pytest.mark.parametrize(
    "error, message, call",
    [
        (ValueError, "head_dim 0; .* the nearest is 8, pad", lambda: attention(*[_Q[..., :0]] * 3)),
        (ValueError, "scale inf; it must be positive and finite", lambda: attention(_Q, _Q, _Q, scale=math.inf)),
        (ValueError, "2.5 keys in the window; it must be a whole number", lambda: attention(_Q, _Q, _Q, window=2.5)),  # type: ignore[call-overload]
        (TypeError, "q is a list; it must be a tensor", lambda: attention([1], _Q, _Q)),  # type: ignore[call-overload]
        (ValueError, "q is on meta; there are kernels for cuda", lambda: attention(*[_Q.to("meta")] * 3)),
        (TypeError, "cu_seqlens is a list", lambda: attention(_Q, _Q, _Q, cu_seqlens=[0, 4])),  # type: ignore[call-overload]
        (
            ValueError,
            "cu_seqlens is on meta and the sequences are on cpu",
            lambda: attention(_Q, _Q, _Q, cu_seqlens=torch.tensor([0, 4], device="meta")),
        ),
        (ValueError, r"document_starts\[0, 2\] is 1; where", lambda: attention(_Q, _Q, _Q, document_starts=_STARTS)),
        (ValueError, "head_dim 300; .* is 256; split the head", lambda: decode_attention(*[_random(1, 2, 1, 300)] * 3)),
        (
            ValueError,
            "lengths are 9 to 9; they must be 0 to the capacity, 4",
            lambda: decode_attention(_Q[:, :, :1], _Q, _Q, torch.tensor([9], dtype=torch.int32)),
        ),
        (ValueError, "conv_fir_state: layout is 'x'", lambda: conv_fir_state(_U, 3, layout="x")),
        (ValueError, "conv_fir_state: 0 taps; it takes 2 to 2048", lambda: conv_fir_state(_U, 0)),
        (ValueError, "conv_fir_state: state has shape", lambda: conv_fir_state(_U, 4, state=_U, layout="bdl")),
        (ValueError, "conv_fir_state: pregate has shape", lambda: conv_fir_state(_U, 4, pregate=_U[:, :1], layout="bdl")),
        (TypeError, r"modes go in as long_conv.Modes", lambda: long_conv(_U, (_W, _W, _W))),  # type: ignore[arg-type]
        (ValueError, r"long_conv: reverse_filter has shape \(3, 4\)", lambda: long_conv(_U, _W, reverse_filter=_random(3, 4))),
        (ValueError, "rms_norm: eps is -1", lambda: rms_norm(_HIDDEN, _HIDDEN[0], eps=-1.0)),
        (ValueError, "dtype is torch.int32; the result may be", lambda: rms_norm(_HIDDEN, _HIDDEN[0], dtype=torch.int32)),
        (TypeError, "targets is a list", lambda: linear_cross_entropy(_HIDDEN, _VOCABULARY, [1])),  # type: ignore[arg-type]
        (
            ValueError,
            "targets is on meta and hidden on cpu",
            lambda: linear_cross_entropy(_HIDDEN, _VOCABULARY, _TARGETS.to("meta")),
        ),
        (
            ValueError,
            r"weight has shape \(0, 8\); .* 1 or more",
            lambda: linear_cross_entropy(_HIDDEN, _VOCABULARY[:0], _TARGETS),
        ),
        (
            ValueError,
            "2.5 tokens in a chunk; it must be a whole",
            lambda: linear_cross_entropy(_HIDDEN, _VOCABULARY, _TARGETS, chunk=2.5),  # type: ignore[arg-type]
        ),
        (
            ValueError,
            "documents is torch.float32; it must be integer labels",
            lambda: linear_cross_entropy(_HIDDEN, _VOCABULARY, _TARGETS, documents=_TARGETS.float()),
        ),
        (
            ValueError,
            r"by_document\(3\) of labels from 0 to 4",
            lambda: linear_cross_entropy(_HIDDEN, _VOCABULARY, _TARGETS, documents=_TARGETS).by_document(3),
        ),
    ],
)
def test_one_line_names_the_argument_and_the_limit(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


_LAYOUTS: dict[str, tuple[Callable[..., Any], list[Tensor]]] = {
    "attention": (
        lambda q, k, v: attention(q, k, v, window=3, return_lse=True),
        [_random(2, 2, 9, 16), _random(2, 1, 9, 16), _random(2, 1, 9, 16, seed=1)],
    ),
    "conv_fir": (lambda u, w, b: conv_fir(u, w, bias=b, layout="bdl"), [_U, _W, _random(2)]),
    "conv_toeplitz": (lambda u, w, b: conv_toeplitz(u, w, bias=b), [_U, _random(1, 12), _random(2)]),
    "linear_cross_entropy": (lambda h, w: linear_cross_entropy(h, w, _TARGETS).loss, [_HIDDEN, _VOCABULARY]),
    "norm": (lambda x, r, w, b: add_layer_norm(x, r, w, b), [_HIDDEN, _random(5, 8, seed=1), _random(8), _random(8, seed=1)]),
    "gelu": (gelu, [_HIDDEN, _random(8)]),
    "swiglu": (swiglu, [_HIDDEN]),
    "monarch": (block_diagonal, [_HIDDEN, _random(2, 3, 4)]),
    "rope": (lambda q, k: rope(q, k, _Q[0, :1], _Q[0, :1], interleaved=True), [_random(1, 2, 4, 32), _random(1, 1, 4, 32)]),
}


@pytest.mark.parametrize("name", _LAYOUTS)
@pytest.mark.parametrize("layout", ["last axis strided", "last axes swapped"])
def test_inputs_and_gradients_of_any_layout(name: str, layout: str, device: str) -> None:
    function, inputs = _LAYOUTS[name]

    def laid_out(x: Tensor) -> Tensor:
        if layout == "last axes swapped" and x.ndim > 1:
            return x.transpose(-1, -2).contiguous().transpose(-1, -2)
        return torch.stack([x, torch.full_like(x, math.nan)], -1)[..., 0]

    results = []
    for change in (laid_out, torch.clone):
        leaves = [change(x.to(device)).requires_grad_() for x in inputs]
        outputs = function(*leaves)
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        given = [_random(*o.shape).to(device) for o in outputs]
        gradients = torch.autograd.grad(outputs, leaves, [change(g) if g.ndim else g for g in given])
        results.append([*outputs, *gradients])
    for one, other in zip(*results, strict=True):
        assert relative_error(one, other) < 1e-6


@pytest.mark.parametrize("name", _LAYOUTS)
def test_checkpointed_activations_give_the_same_gradients(name: str, device: str) -> None:
    function, inputs = _LAYOUTS[name]
    results = []
    for run in (function, lambda *x: checkpoint(function, *x, use_reentrant=False)):
        leaves = [x.to(device).clone().requires_grad_() for x in inputs]
        outputs = run(*leaves)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        results.append(torch.autograd.grad(outputs, leaves, [torch.ones_like(o) for o in outputs]))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "call, shape",
    [
        (lambda d: block_diagonal(torch.zeros(2, 0, 8, device=d), torch.zeros(2, 3, 4, device=d)), (2, 0, 6)),
        (
            lambda d: monarch(torch.zeros(0, 8, device=d), torch.zeros(2, 3, 4, device=d), torch.zeros(3, 5, 2, device=d)),
            (0, 15),
        ),
        (lambda d: block_diagonal_glu(torch.zeros(0, 8, device=d), *[torch.zeros(2, 3, 4, device=d)] * 2), (0, 6)),
        (lambda d: swiglu(torch.zeros(3, 0, device=d)), (3, 0)),
        (lambda d: long_conv(torch.zeros(2, 2, 0, device=d), torch.zeros(2, 5, device=d)), (2, 2, 0)),
    ],
)
def test_nothing_in_gives_nothing_out(call: Callable[[str], Tensor], shape: tuple[int, ...], device: str) -> None:
    assert call(device).shape == shape
    assert choose(5, 0, torch.bfloat16, two_sided=True).operator == "conv_fft"


def test_no_tokens_give_weights_a_gradient_of_zero(device: str) -> None:
    weight = torch.ones(2, 3, 4, device=device, requires_grad=True)
    for product in (block_diagonal, lambda x, w: block_diagonal_glu(x, w, w)):
        (gradient,) = torch.autograd.grad(product(torch.zeros(0, 8, device=device), weight).sum(), weight)
        assert not gradient.any()


def test_rows_that_share_memory_are_documents_too(device: str) -> None:
    """document_starts of one row seen as many: kernels read it row by row."""
    starts = document_starts_of(torch.tensor([0, 4, 9]), 1, 9).to(device).expand(2, 9)
    u, w = _U.to(device), _W.to(device)
    assert resolve_documents("op", None, starts, 2, 9).is_contiguous()  # type: ignore[union-attr]
    expected = conv_fir(u, w, layout="bdl", document_starts=starts.contiguous())
    assert torch.equal(conv_fir(u, w, layout="bdl", document_starts=starts), expected)


def test_lengths_beyond_a_cache_read_no_further(device: str) -> None:
    """On a GPU lengths are not looked at before the kernel runs; what it reads beyond would be another tensor's."""
    memory = torch.full((1, 1, 64, 16), math.nan, device=device)
    memory[:, :, :4] = _random(1, 1, 4, 16).to(device)
    cache, q = memory[:, :, :4], _random(1, 1, 1, 16).to(device)
    lengths = torch.tensor([9], dtype=torch.int32, device=device)
    o, _ = torch.ops.menagerie.decode_attention(q, cache, cache, lengths, None, None, 0, 0.25)
    assert torch.equal(o, decode_attention(q, cache, cache, scale=0.25))


def test_a_target_that_outweighs_all_others_has_no_loss(device: str) -> None:
    """The sum of exponentials is the target's own, which is exchanged for an exact one that may be far smaller."""
    hidden, weight = (1e30 * _random(64, 8)).to(device).requires_grad_(), _random(11, 8).to(device)
    result = linear_cross_entropy(hidden, weight, (hidden @ weight.T).argmax(1))
    assert torch.isfinite(result.token_loss).all()
    assert (result.token_loss >= 0).all()
    assert torch.isfinite(torch.autograd.grad(result.loss, hidden)[0]).all()


def test_tangents_are_refused_rather_than_lost(reference_only: None) -> None:
    for call in (lambda u: conv_fir(u, _W, layout="bdl"), lambda u: long_conv(u, _W), gelu):
        with pytest.raises(RuntimeError, match="has a tangent; it has no forward-mode derivative"):
            torch.func.jvp(call, (_U,), (_U,))


def test_float64_stays_float64_under_autocast(reference_only: None) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv_fir(_U.double(), _W.double(), layout="bdl").dtype == torch.float64
        assert attention(*[_Q.double()] * 3).dtype == torch.float64
        assert conv_fir(_U, _W, layout="bdl").dtype == torch.bfloat16


def test_autocast_narrows_inputs_and_nothing_inside(reference_only: None) -> None:
    q = _random(2, 2, 40, 64).bfloat16()
    product, weight = _random(9, 64).bfloat16(), _random(2, 16, 32).bfloat16()
    calls = (lambda: attention(q, q, q, return_lse=True), lambda: block_diagonal_glu(product, weight, weight))
    for call in calls:
        plain = call()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(call(), plain, rtol=0, atol=0)


def test_tables_are_made_under_autocast_too(device: str) -> None:
    """float16 and float64 tables that the first call makes, with products in bfloat16 around it."""
    code = (
        "import torch; from kernels.conv_fft import conv_fft; u = torch.ones(1, 1, 9, device={0!r})\n"
        "with torch.autocast({0!r}, dtype=torch.bfloat16): assert conv_fft(u, u[0]).dtype == torch.bfloat16"
    )
    subprocess.run([sys.executable, "-c", code.format(device)], check=True)


def test_shapes_may_be_unknown_when_compiling(reference_only: None) -> None:
    """One graph for every length and width, without breaks."""
    modes = Modes(-torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3, 2))
    for function, inputs in (
        (lambda q: attention(q, q, q), [_Q]),
        (lambda u: long_conv(u, _W), [_U]),
        (lambda u: long_conv(u, modes), [_U]),
    ):
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), function(*inputs))


def test_cosines_get_no_gradient_on_any_device(reference_only: None) -> None:
    q, angle = _random(1, 2, 4, 32).requires_grad_(), _Q[0, :1].clone().requires_grad_()
    rope(q, q, angle, angle)[0].sum().backward()
    assert angle.grad is None
