"""Complex numbers of two float16 packed in an int32, and powers of two."""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def unpack(z):
    """Real and imaginary part (float16) of complex numbers packed in int32."""
    real = (z & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True)
    imaginary = (z >> 16).to(tl.int16).to(tl.float16, bitcast=True)
    return real, imaginary


@triton.jit
def pack(real, imaginary):
    low = real.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
    high = imaginary.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32) << 16
    return low | high


@triton.jit
def times(ar, ai, packed):
    """(ar + i ai) times packed complex numbers, in float32."""
    br, bi = unpack(packed)
    br = br.to(tl.float32)
    bi = bi.to(tl.float32)
    return ar * br - ai * bi, ar * bi + ai * br


@triton.jit
def times_conjugate(ar, ai, packed):
    """(ar + i ai) times the conjugate of packed complex numbers, in float32."""
    br, bi = unpack(packed)
    br = br.to(tl.float32)
    bi = bi.to(tl.float32)
    return ar * br + ai * bi, ai * br - ar * bi


@triton.jit
def power_of_two(largest):
    """The power of two in (largest / 2, largest], and its inverse: exact to multiply by. 2^-126 for zero, capped at 2^126."""
    bits = largest.to(tl.int32, bitcast=True) & 0x7F800000
    bits = tl.minimum(tl.maximum(bits, 1 << 23), 253 << 23)
    return bits.to(tl.float32, bitcast=True), ((254 << 23) - bits).to(tl.float32, bitcast=True)
