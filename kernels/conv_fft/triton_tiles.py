"""Complex tiles whose products need one instruction chain each, and no exchange between threads from one to the next.

A complex product is a real one of twice the size, [Fr -Fi; Fi Fr], in any order of its rows and columns. The order here is that
of the tensor cores' results, in which a thread has rows g and g + 8 and columns 2q, 2q + 1 (and 8 more, ...): real and
imaginary parts are eight rows apart in a *standing* tile, eight columns apart in a *lying* one, and so in one thread.

    standing: rows (a/8, part, a%8), columns (d, b)       after and before products from the left, which transform over a
    lying: rows (a/8, d, a%8), columns (b/8, part, b%8)   after and before products from the right, which transform over b

d: two rows of data. A thread holds the same numbers of a standing and of the lying tile. Tables of complex numbers (a, b) lie in
memory in the order in which threads hold them, *thread order*, (b/16, a, b%8/2, b/8%2, b%2): see `transforms.thread_order`.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def table(pointer, NA: tl.constexpr, NB: tl.constexpr, TIME: tl.constexpr):
    """(NA / 8, 8, 1, NB) of a table in thread order, for the TIME-th time (0 to 2; see `load_table` of `triton_fused`)."""
    at = pointer + tl.arange(0, NA * NB)
    if TIME == 0:
        values = tl.load(at)
    elif TIME == 1:
        values = tl.load(at, cache_modifier=".ca")
    else:
        values = tl.load(at, eviction_policy="evict_last")
    values = tl.permute(tl.reshape(values, (NB // 16, NA // 8, 8, 4, 2, 2)), (1, 2, 0, 4, 3, 5))
    return tl.expand_dims(tl.reshape(values, (NA // 8, 8, NB)), 2)


@triton.jit
def in_thread_order(values, NA: tl.constexpr, NB: tl.constexpr):
    """(NA / 8, 8, NB) to (NA NB,)."""
    values = tl.permute(tl.reshape(values, (NA // 8, 8, NB // 16, 2, 4, 2)), (2, 0, 1, 4, 3, 5))
    return tl.reshape(values, (NA * NB,))


@triton.jit
def of_standing(tile, NA: tl.constexpr, NB: tl.constexpr):
    """Real and imaginary part, (NA / 8, 8, 2, NB)."""
    return tl.split(tl.permute(tl.reshape(tile, (NA // 8, 2, 8, 2, NB)), (0, 2, 3, 4, 1)))


@triton.jit
def of_lying(tile, NA: tl.constexpr, NB: tl.constexpr):
    """Real and imaginary part, (NA / 8, 8, 2, NB)."""
    real, imaginary = tl.split(tl.permute(tl.reshape(tile, (NA // 8, 2, 8, NB // 8, 2, 8)), (0, 2, 1, 3, 5, 4)))
    return tl.reshape(real, (NA // 8, 8, 2, NB)), tl.reshape(imaginary, (NA // 8, 8, 2, NB))


@triton.jit
def standing(real, imaginary, NA: tl.constexpr, NB: tl.constexpr):
    """(2 NA, 2 NB) float16."""
    both = tl.join(real.to(tl.float16), imaginary.to(tl.float16))
    return tl.reshape(tl.permute(both, (0, 4, 1, 2, 3)), (2 * NA, 2 * NB))


@triton.jit
def lying(real, imaginary, NA: tl.constexpr, NB: tl.constexpr):
    """(2 NA, 2 NB) float16."""
    both = tl.reshape(tl.join(real.to(tl.float16), imaginary.to(tl.float16)), (NA // 8, 8, 2, NB // 8, 8, 2))
    return tl.reshape(tl.permute(both, (0, 2, 1, 3, 5, 4)), (2 * NA, 2 * NB))
