"""What Triton kernels share: bfloat16 in the interpreter, and the Triton names of torch's dtypes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.dispatch import interpreted

# Triton's interpreter keeps bfloat16 as integers: arithmetic on them is silent nonsense, and casts from float32 truncate.
# So kernels widen what they load with `.to(tl.float32)`, cast what they multiply with `operand`, what they store with `narrow`.
INTERPRET = tl.constexpr(interpreted())

TRITON_TYPES = {
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.int32: tl.int32,
    torch.int64: tl.int64,
}


@triton.jit
def _round_to_bfloat16(x):
    """The float32 nearest to x that bfloat16 holds, ties to even."""
    bits = x.to(tl.float32).to(tl.int32, bitcast=True)
    bits += 0x7FFF + ((bits >> 16) & 1)
    return (bits & -65536).to(tl.float32, bitcast=True)


@triton.jit
def operand(x, dtype: tl.constexpr):
    """`x` in `dtype`, for arithmetic and tl.dot; in the interpreter bfloat16 values are held in float32."""
    if INTERPRET and dtype == tl.bfloat16:
        return _round_to_bfloat16(x.to(tl.float32))
    else:
        return x.to(dtype)


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """`x` in `dtype`, for a store only."""
    if INTERPRET and dtype == tl.bfloat16:
        return _round_to_bfloat16(x.to(tl.float32)).to(tl.bfloat16)
    else:
        return x.to(dtype)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)) of float32 to 4e-7 by two approximate instructions; infinities give 0 and 1, NaN gives NaN.

    The language's division and exponential take care of denormal numbers too, with three times the instructions.
    """
    if INTERPRET:
        return 1.0 / (1.0 + tl.exp(-x))
    else:
        e = tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=r,r", [x * -1.4426950408889634], dtype=tl.float32, is_pure=True, pack=1
        )
        below = 1.0 + e  # type: ignore[operator]
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=r,r", [below], dtype=tl.float32, is_pure=True, pack=1)
