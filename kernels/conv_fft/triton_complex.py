"""Complex numbers of two float16 packed in an int32, and powers of two."""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_support import INTERPRET


@triton.jit
def unpack(z):
    """Real and imaginary part (float16) of complex numbers packed in int32."""
    real = (z & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True)
    imaginary = (z >> 16).to(tl.int16).to(tl.float16, bitcast=True)
    return real, imaginary


# Both halves of a word are converted in one instruction each way, which the compiler does not find: it converts one by one, and
# takes more to put halves together and apart.


@triton.jit
def unpack_wide(z):
    """Real and imaginary part, float32."""
    if INTERPRET:
        real, imaginary = unpack(z)
        return real.to(tl.float32), imaginary.to(tl.float32)
    else:
        return tl.inline_asm_elementwise(
            "{ .reg .b16 low, high; mov.b32 {low, high}, $2; cvt.f32.f16 $0, low; cvt.f32.f16 $1, high; }",
            "=f,=f,r", [z], dtype=(tl.float32, tl.float32), is_pure=True, pack=1,
        )  # fmt: skip


@triton.jit
def pack(real, imaginary):
    if not INTERPRET and real.dtype == tl.float32:
        return tl.inline_asm_elementwise(
            "cvt.rn.f16x2.f32 $0, $1, $2;", "=r,f,f", [imaginary, real], dtype=tl.int32, is_pure=True, pack=1
        )
    low = real.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
    high = imaginary.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32) << 16
    return low | high


@triton.jit
def _wide(z, KEPT: tl.constexpr):
    if KEPT:  # what is converted by an instruction given by hand is moved before a loop, and takes two registers there
        real, imaginary = unpack(z)
        return real.to(tl.float32), imaginary.to(tl.float32)
    else:
        return unpack_wide(z)


@triton.jit
def shrunk(z, factor):
    """Packed complex numbers times a power of two of no more than one, float32, rounded to one: what is too small is lost."""
    if INTERPRET:
        real, imaginary = unpack_wide(z)
        return pack(real * factor, imaginary * factor)
    else:
        both = pack(factor, factor)
        return tl.inline_asm_elementwise("mul.rn.f16x2 $0, $1, $2;", "=r,r,r", [z, both], dtype=tl.int32, is_pure=True, pack=1)


@triton.jit
def times(ar, ai, packed, KEPT: tl.constexpr = False):
    """(ar + i ai) times packed complex numbers, in float32. KEPT: the packed stay in registers through a loop."""
    br, bi = _wide(packed, KEPT)
    return ar * br - ai * bi, ar * bi + ai * br


@triton.jit
def times_conjugate(ar, ai, packed, KEPT: tl.constexpr = False):
    """(ar + i ai) times the conjugate of packed complex numbers, in float32. KEPT: as in `times`."""
    br, bi = _wide(packed, KEPT)
    return ar * br + ai * bi, ai * br - ar * bi


@triton.jit
def plus_times(real, imaginary, ar, ai, packed, CONJUGATE: tl.constexpr):
    """(real + i imaginary) plus (ar + i ai) times packed complex numbers, or their conjugates, in float32."""
    br, bi = unpack_wide(packed)
    if CONJUGATE:
        return real + ar * br + ai * bi, imaginary + ai * br - ar * bi
    else:
        return real + ar * br - ai * bi, imaginary + ar * bi + ai * br


@triton.jit
def largest_of(x):
    """Of numbers that are not negative, in the four dimensions of `triton_tiles`."""
    return tl.max(tl.max(tl.max(tl.max(x, axis=3), axis=2), axis=1), axis=0)


@triton.jit
def power_of_two(largest):
    """The power of two in (largest / 2, largest], and its inverse: exact to multiply by. 2^-126 for zero, capped at 2^126."""
    bits = largest.to(tl.int32, bitcast=True) & 0x7F800000
    bits = tl.minimum(tl.maximum(bits, 1 << 23), 253 << 23)
    return bits.to(tl.float32, bitcast=True), ((254 << 23) - bits).to(tl.float32, bitcast=True)
