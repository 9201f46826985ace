"""Activations of the GLU with their derivatives, in Triton."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_support import INTERPRET, sigmoid


@triton.jit
def activated(z, ACTIVATION: tl.constexpr):
    """The activation of z and its derivative, float32."""
    if ACTIVATION == "gelu":
        distribution, density = _normal(z)
        return z * distribution, distribution + z * density
    else:
        s = sigmoid(z)
        if ACTIVATION == "silu":
            return z * s, s + z * s * (1 - s)
        else:
            return s, s * (1 - s)


@triton.jit
def _normal(z):
    """The normal distribution's cumulative function and its density at z.

    The tail is a polynomial of 1 / (1 + 0.327 |z| / sqrt 2) times the density (Abramowitz & Stegun, 7.1.26): 3e-7 at most from
    the exact one in float32, and both share an exponential.
    """
    size = tl.abs(z)
    if INTERPRET:
        e = tl.exp2(z * z * -0.7213475204444817)
        t = 1.0 / (1.0 + 0.23164189375 * size)
    else:
        e = tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=r,r", [z * z * -0.7213475204444817], dtype=tl.float32, is_pure=True, pack=1
        )
        below = 1.0 + 0.23164189375 * size
        t = tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=r,r", [below], dtype=tl.float32, is_pure=True, pack=1)
    tail = t * (0.127414796 + t * (-0.142248368 + t * (0.7107068705 + t * (-0.7265760135 + t * 0.5307027145)))) * e
    return tl.where(z < 0, tail, 1.0 - tail), 0.3989422804014327 * e


@triton.jit
def halves(x, BM: tl.constexpr, BN: tl.constexpr):
    """The left and the right half of a tile of 2 BN columns; of a product's result, in the registers where they are."""
    return tl.split(tl.permute(tl.reshape(x, (BM, 2, BN)), (0, 2, 1)))


@triton.jit
def joined(left, right, BM: tl.constexpr, BN: tl.constexpr):
    """Two tiles of BN columns side by side."""
    return tl.reshape(tl.permute(tl.join(left, right), (0, 2, 1)), (BM, 2 * BN))


@triton.jit
def settled(x):
    """A product's result when it is there. Of products under way when a loop starts over, the assembler makes one at a time."""
    if INTERPRET:
        return x
    else:
        return tl.inline_asm_elementwise("", "=f,0", [x], dtype=tl.float32, is_pure=True, pack=1)
