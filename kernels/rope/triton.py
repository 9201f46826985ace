"""Rotary positions in Triton: queries and keys in one launch, each program a few positions of some heads."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.configurations import Configuration
from kernels.triton_support import narrow

# Elements of one half that a program holds, and its warps.
_ELEMENTS, _WARPS = 2048, 4


@triton.jit
def _rotate(
    p_x, p_out, p_cos, p_sin, i_b, t, h, H, T, x_b, x_h, x_t, o_b, o_h, o_t, c_b, c_t,
    D: tl.constexpr, HALF: tl.constexpr, BHALF: tl.constexpr, BREST: tl.constexpr,
    INTERLEAVED: tl.constexpr, INVERSE: tl.constexpr,
):  # fmt: skip
    """t: [BT, 1, 1], h: [1, BH, 1]."""
    i = tl.arange(0, BHALF)[None, None, :]
    here = (t < T) & (h < H)
    inside = here & (i < HALF)
    cos = tl.load(p_cos + i_b * c_b + t * c_t + i, mask=(t < T) & (i < HALF), other=0.0).to(tl.float32)  # [BT, 1, BHALF]
    sin = tl.load(p_sin + i_b * c_b + t * c_t + i, mask=(t < T) & (i < HALF), other=0.0).to(tl.float32)
    if INVERSE:
        sin = -sin
    x = p_x + i_b * x_b + t * x_t + h * x_h
    out = p_out + i_b * o_b + t * o_t + h * o_h
    if INTERLEAVED:  # loaded and stored as they lie: strided accesses are ten times slower
        both = tl.arange(0, 2 * BHALF)[None, None, :]
        within = here & (both < 2 * HALF)
        pairs = tl.load(x + both, mask=within, other=0.0).to(tl.float32)
        a, b = tl.split(pairs.reshape(pairs.shape[0], pairs.shape[1], BHALF, 2))
        turned = tl.interleave(a * cos - b * sin, b * cos + a * sin)
        tl.store(out + both, narrow(turned, p_out.dtype.element_ty), mask=within)
    else:
        a = tl.load(x + i, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(x + i + HALF, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + i, narrow(a * cos - b * sin, p_out.dtype.element_ty), mask=inside)
        tl.store(out + i + HALF, narrow(b * cos + a * sin, p_out.dtype.element_ty), mask=inside)
    if BREST > 0:
        j = 2 * HALF + tl.arange(0, BREST)[None, None, :]
        rest = here & (j < D)
        tl.store(out + j, tl.load(x + j, mask=rest), mask=rest)


@triton.jit
def rope_kernel(
    p_q, p_k, p_q_out, p_k_out, p_cos, p_sin, HQ, HK, T, tiles,
    q_b, q_h, q_t, k_b, k_h, k_t, qo_b, qo_h, qo_t, ko_b, ko_h, ko_t, c_b, c_t,
    D: tl.constexpr, HALF: tl.constexpr, BHALF: tl.constexpr, BREST: tl.constexpr, BT: tl.constexpr, BH: tl.constexpr,
    INTERLEAVED: tl.constexpr, INVERSE: tl.constexpr,
):  # fmt: skip
    """Grid (batch * tiles of BT positions, blocks of BH heads: the queries', then the keys')."""
    i_b = (tl.program_id(0) // tiles).to(tl.int64)
    t = ((tl.program_id(0) % tiles).to(tl.int64) * BT + tl.arange(0, BT))[:, None, None]
    i_h = tl.program_id(1)
    blocks = tl.cdiv(HQ, BH)
    heads = tl.arange(0, BH)[None, :, None].to(tl.int64)
    if i_h < blocks:
        _rotate(
            p_q, p_q_out, p_cos, p_sin, i_b, t, heads + i_h * BH, HQ, T, q_b, q_h, q_t, qo_b, qo_h, qo_t, c_b, c_t,
            D, HALF, BHALF, BREST, INTERLEAVED, INVERSE,
        )  # fmt: skip
    else:
        _rotate(
            p_k, p_k_out, p_cos, p_sin, i_b, t, heads + (i_h - blocks) * BH, HK, T, k_b, k_h, k_t, ko_b, ko_h, ko_t, c_b, c_t,
            D, HALF, BHALF, BREST, INTERLEAVED, INVERSE,
        )  # fmt: skip


def blocks(heads: int, half: int) -> tuple[int, int, int]:
    """(positions, heads, components of a half) of a program."""
    components = triton.next_power_of_2(half)
    block_heads = min(triton.next_power_of_2(heads), max(_ELEMENTS // components, 1))
    return max(_ELEMENTS // (components * block_heads), 1), block_heads, components


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, inverse: bool) -> tuple[Tensor, Tensor]:
    """As the operator menagerie::rope."""
    outputs = torch.empty_like(q), torch.empty_like(k)
    q_out, k_out = (x if x.stride(-1) == 1 else torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in outputs)
    q, k, cos, sin = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, cos, sin))
    if cos.stride() != sin.stride():
        cos, sin = cos.contiguous(), sin.contiguous()
    batch, _, length, dim = q.shape
    half = cos.shape[-1]
    block_tokens, block_heads, components = blocks(max(q.shape[1], k.shape[1]), half)
    tiles = triton.cdiv(length, block_tokens)
    head_blocks = triton.cdiv(q.shape[1], block_heads) + triton.cdiv(k.shape[1], block_heads)
    if batch * tiles * head_blocks:
        with torch.cuda.device_of(q):
            rope_kernel[(batch * tiles, head_blocks)](
                q, k, q_out, k_out, cos, sin, q.shape[1], k.shape[1], length, tiles,
                *q.stride()[:3], *k.stride()[:3], *q_out.stride()[:3], *k_out.stride()[:3],
                cos.stride(0) if cos.shape[0] > 1 else 0, cos.stride(1),
                D=dim, HALF=half, BHALF=components, BREST=triton.next_power_of_2(dim - 2 * half) if dim > 2 * half else 0,
                BT=block_tokens, BH=block_heads, INTERLEAVED=interleaved, INVERSE=inverse, num_warps=_WARPS,
            )  # fmt: skip
    for out, made in zip(outputs, (q_out, k_out), strict=True):
        if made is not out:
            out.copy_(made)
    return outputs


def shipped() -> Iterator[Configuration]:
    pointers = dict.fromkeys(("p_q", "p_k", "p_q_out", "p_k_out"), "*bf16") | dict.fromkeys(("p_cos", "p_sin"), "*fp32")
    strides = [f"{x}_{axis}" for x in ("q", "k", "qo", "ko") for axis in "bht"] + ["c_b", "c_t"]
    sizes = dict.fromkeys(("HQ", "HK", "T", "tiles", *strides), "i32")
    for dim, half, interleaved in ((128, 64, False), (256, 64, False), (128, 64, True)):
        block_tokens, block_heads, components = blocks(16, half)
        constants = {
            "D": dim, "HALF": half, "BHALF": components, "BREST": dim - 2 * half, "BT": block_tokens, "BH": block_heads,
            "INTERLEAVED": interleaved, "INVERSE": True,
        }  # fmt: skip
        kind = " interleaved" if interleaved else ""
        yield Configuration(f"dim {dim}, {2 * half} rotated{kind}", rope_kernel, pointers | sizes, constants, _WARPS)
