"""Complex tiles whose products need one instruction chain each, and no exchange between threads from one to the next.

A complex product is a real one of twice the size, [Fr -Fi; Fi Fr], in any order of its rows and columns. The order here is that
of the tensor cores' results, in which a thread has rows g and g + 8 and columns 2q, 2q + 1 (and 8 more, ...): real and
imaginary parts are eight rows apart in a *standing* tile, eight columns apart in a *lying* one, and so in one thread.

    standing: rows (a/8, part, a%8), columns (d, b)       after and before products from the left, which transform over a
    lying: rows (a/8, d, a%8), columns (b/8, part, b%8)   after and before products from the right, which transform over b

d: two rows of data (D = 2). With one (D = 1), the upper and the lower half of a take their place in the lying tile. A thread
has the same numbers of both tiles; as tensors they are (W, 8, 2, NB), W = BM D / 16, BM the tile's a, P rows of data one after
the other. Tables of complex numbers (a, b) lie in memory in the order in which threads have them, *thread order*: (half of a if
D = 1, b/16, a, b%8/2, b/8%2, b%2); see `transforms.thread_order`.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place(a, b, NA: tl.constexpr, NB: tl.constexpr, D: tl.constexpr):
    """Where in a table of thread order, of NA by NB numbers, the one of a and b is."""
    ROWS: tl.constexpr = NA * D // 2
    return a // ROWS * (ROWS * NB) + b // 16 * (ROWS * 16) + a % ROWS * 16 + b % 8 // 2 * 4 + b // 8 % 2 * 2 + b % 2


@triton.jit
def _places(NA: tl.constexpr, NB: tl.constexpr, P: tl.constexpr):
    """Of a tile's numbers in thread order: whose row of data they are, and where they are in a table (NA, NB)."""
    at = tl.arange(0, P * NA * NB)
    if P == 1:
        return at * 0, at
    else:
        return at % (P * NA * 16) // (NA * 16), at // (P * NA * 16) * (NA * 16) + at % (NA * 16)


@triton.jit
def table(
    pointer, NA: tl.constexpr, NB: tl.constexpr, D: tl.constexpr, P: tl.constexpr = 1, TIME: tl.constexpr = 0
):  # fmt: skip
    """(W, 8, 2, NB), or (W, 8, 1, NB) if D = 2, of a table in thread order, loaded for the TIME-th time (0 to 2)."""
    _, at = _places(NA, NB, P)
    if TIME == 0:
        values = tl.load(pointer + at)
    elif TIME == 1:
        values = tl.load(pointer + at, cache_modifier=".ca")
    else:
        values = tl.load(pointer + at, eviction_policy="evict_last")
    H: tl.constexpr = 2 // D
    values = tl.reshape(values, (H, NB // 16, P * NA // (8 * H), 8, 4, 2, 2))
    return tl.reshape(tl.permute(values, (2, 3, 0, 1, 5, 4, 6)), (P * NA // (8 * H), 8, H, NB))


@triton.jit
def store_table(pointer, values, NA: tl.constexpr, NB: tl.constexpr, D: tl.constexpr, P: tl.constexpr = 1, STEP=0):
    """(W, 8, 2, NB), or (W, 8, 1, NB) if D = 2, in thread order; each of P rows of data STEP further on."""
    H: tl.constexpr = 2 // D
    values = tl.reshape(values, (P * NA // (8 * H), 8, H, NB // 16, 2, 4, 2))
    p, at = _places(NA, NB, P)
    tl.store(pointer + p * STEP + at, tl.reshape(tl.permute(values, (2, 3, 0, 1, 5, 4, 6)), (P * NA * NB,)))


@triton.jit
def of_standing(tile, BM: tl.constexpr, NB: tl.constexpr, D: tl.constexpr):
    """Real and imaginary part."""
    H: tl.constexpr = 2 // D
    tile = tl.reshape(tile, (H, BM // (8 * H), 2, 8, D, NB))
    real, imaginary = tl.split(tl.permute(tile, (1, 3, 0, 4, 5, 2)))
    return tl.reshape(real, (BM // (8 * H), 8, 2, NB)), tl.reshape(imaginary, (BM // (8 * H), 8, 2, NB))


@triton.jit
def standing(real, imaginary, BM: tl.constexpr, NB: tl.constexpr, D: tl.constexpr):
    """(2 BM, D NB) float16."""
    H: tl.constexpr = 2 // D
    both = tl.reshape(tl.join(real.to(tl.float16), imaginary.to(tl.float16)), (BM // (8 * H), 8, H, D, NB, 2))
    return tl.reshape(tl.permute(both, (2, 0, 5, 1, 3, 4)), (2 * BM, D * NB))


@triton.jit
def of_lying(tile, BM: tl.constexpr, NB: tl.constexpr, D: tl.constexpr):
    """Real and imaginary part."""
    W: tl.constexpr = BM * D // 16
    real, imaginary = tl.split(tl.permute(tl.reshape(tile, (W, 2, 8, NB // 8, 2, 8)), (0, 2, 1, 3, 5, 4)))
    return tl.reshape(real, (W, 8, 2, NB)), tl.reshape(imaginary, (W, 8, 2, NB))


@triton.jit
def lying(real, imaginary, BM: tl.constexpr, NB: tl.constexpr, D: tl.constexpr):
    """(BM D, 2 NB) float16."""
    W: tl.constexpr = BM * D // 16
    both = tl.reshape(tl.join(real.to(tl.float16), imaginary.to(tl.float16)), (W, 8, 2, NB // 8, 8, 2))
    return tl.reshape(tl.permute(both, (0, 2, 1, 3, 5, 4)), (BM * D, 2 * NB))
