"""The discrete weighted transforms that convolve, and which factorisation of them is taken for a length.

A causal (or two-sided) convolution of a real row of length L is one *right-angle* cyclic convolution of length N >= L (Crandall
and Fagin, Discrete weighted transforms and large-integer arithmetic, 1994): weight sample n by w^n, w = exp(i pi / 2N), so that
what would wrap around comes back multiplied by w^N = i, that is, in the imaginary part. The real part of the unweighted result
is the linear convolution, without zero padding: half the points of an FFT of length 2L, one row at a time, and real matrices
at both ends.

The transform of N = N1 N2 points, n = n1 N2 + n2 and k = k1 + N1 k2, in matrix form (Bailey 1990; Monarch, Dao et al. 2022):
    A[k1, n2] = sum_n1 F1[k1, n1] x[n1, n2]      F1[k1, n1] = exp(-2 pi i n1 (k1 - 1/4) / N1) / sqrt(N1): weights included
    B[k1, n2] = A[k1, n2] T[k1, n2]              T[k1, n2]  = exp(-2 pi i n2 (k1 - 1/4) / N)
    X[k1, k2] = sum_n2 B[k1, n2] F2[n2, k2]      F2[n2, k2] = exp(-2 pi i n2 k2 / N2) / sqrt(N2)
Every matrix is unitary, so nothing leaves float16's range and the filter alone carries the scale.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Points that one program transforms, and their factors N1 x N2, forward and in the inner passes; and backward in one program,
# which needs more registers.
FORWARD = {256: (16, 16), 512: (32, 16), 1024: (32, 32), 2048: (64, 32), 4096: (64, 64), 8192: (128, 64)}
BACKWARD = FORWARD | {1024: (64, 16), 4096: (128, 32)}
# Documents, whose rows side by side in a tile each need masks of their own: one at a time, where that is possible.
DOCUMENTS = FORWARD | {1024: (64, 16)}
# The inner transforms of long convolutions, NA x NB, and twice as many points where there are: see `triton_inner`.
INNER = {1024: (32, 32), 2048: (32, 32), 4096: (64, 32)}

# Outer transforms that are done in two factors, and the first of those whose second factor, of 16, is done in registers.
OUTER = {1024: (32, 32)}
RADIX = {256: 16, 512: 32}

# For the cost model. Rows in one program: what the kernels reach, bytes per second, and float16 operations per second of
# products so wide that width does not matter. Three passes: picoseconds per point, forward and backward, measured on an H200
# (gated, bfloat16; 1024 points estimated), of both outer passes by the points of the outer transform, and of the inner pass.
_BANDWIDTH = 2.7e12
_OPERATIONS = 4.0e14
_OUTER_TIMES = {
    16: (5.8, 13.1),
    32: (7.4, 17.9),
    64: (6.2, 14.8),
    128: (8.3, 19.4),
    256: (5.7, 14.6),
    512: (8.1, 19.2),
    1024: (20.0, 50.0),
}
_INNER_TIMES = {1024: (3.0, 7.4), 2048: (3.6, 10.8), 4096: (5.2, 15.9)}

_HOST = torch.device("cpu")
"""Where cached constants are made, whole: what a stream's kernels finish could be read by another stream before."""


@dataclass(frozen=True)
class Plan:
    """How a convolution of rows of some length is computed.

    points: N, the transform's length. outer: 1 when one program holds a row, else the number of points of the outer transform,
    which goes through memory (three passes). inner: the points that one program transforms, factors[0] x factors[1], or twice
    that after an outer transform. keep: columns of the last factor that are kept (frequency-sparse filters). seconds: the cost
    model's estimate for one row, forward.
    """

    points: int
    outer: int
    inner: int
    factors: tuple[int, int]
    keep: int
    seconds: float

    @property
    def rows_per_tile(self) -> int:
        return max(1, 64 // self.factors[0])

    @property
    def side_by_side(self) -> int:
        """Rows of data in the columns of a tile, D of `triton_tiles`."""
        return 2 if self.factors[0] < 64 else 1

    @property
    def halves(self) -> int:
        """C of `triton_inner`."""
        return self.inner // (self.factors[0] * self.factors[1])

    @property
    def order(self) -> int:
        return 2 if self.outer == 1 else 3


@functools.lru_cache(maxsize=4096)
def plan(length: int, fraction: float = 1.0, gated: bool = True, backward: bool = False, documents: bool = False) -> Plan:
    """The cheapest factorisation for rows of `length` samples.

    The model: a row in one program (order 2) costs the larger of its bytes over the bandwidth and its products' operations,
    8 N1 + 16 N2 for a sample (real matrices at both ends), over the tensor cores' rate, which falls with the products' width n
    as n / (n + 16). Factors under 64 count as 64. Three passes (order 3) cost what was measured. Lengths that are no power of
    two take the next one in one program; the outer transform is any multiple of 16, above 64 a power of two.
    A frequency-sparse filter is defined by the factors: those of the gated forward pass, then, always.
    Causal rows of up to 256 samples are not transformed (`triton_short`), in less time than a transform takes.
    """
    if fraction < 1:
        gated, backward = True, False
    io = (8 if gated else 4) * length
    found = []
    for points, (n1, n2) in (BACKWARD if backward else DOCUMENTS if documents else FORWARD).items():
        if length <= points:
            keep = max(16, int(n2 * fraction))
            work = points * (8 * max(n1, 64) + 16 * keep)
            found.append(Plan(points, 1, points, (n1, n2), keep, max(io / _BANDWIDTH, work / _rate(n2))))
    for inner in INNER if length > 4096 else ():
        outer = 16 * math.ceil(length / inner / 16)
        if outer > 64:
            outer = 1 << (outer - 1).bit_length()
        if outer > max(_OUTER_TIMES):
            continue
        n1, n2 = INNER[inner]
        keep = max(16, int(n2 * fraction))
        points = outer * inner
        direction = 1 if backward else 0
        middle = _INNER_TIMES[inner][direction] * (n1 + keep) / (n1 + n2)
        found.append(Plan(points, outer, inner, (n1, n2), keep, (_outer_time(outer, direction) + middle) * points * 1e-12))
    return min(found, key=lambda p: p.seconds)


def _rate(width: int) -> float:
    return _OPERATIONS * width / (width + 16)


def _outer_time(outer: int, direction: int) -> float:
    """Picoseconds per point; numbers of points that are no power of two fill the next one's tiles."""
    block = 1 << (outer - 1).bit_length()
    return _OUTER_TIMES[block][direction] * block / outer


def _phases(rows: Tensor, columns: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """cos and sin of -2 pi rows columns / period, rows in quarters, exactly reduced before the float64 functions."""
    turns = torch.remainder(rows[:, None] * columns[None, :], 4 * period).double() / (4 * period)
    return torch.cos(2 * math.pi * turns), -torch.sin(2 * math.pi * turns)


def _quarters(count: int) -> Tensor:
    """4 (k - 1/4) for k in 0 ... count - 1."""
    return 4 * torch.arange(count) - 1


@functools.lru_cache(maxsize=64)
def weighted_matrix(points: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """F1 (real, imaginary), float16. Its inverse's real part is F1r^T z_r + F1i^T z_i."""
    real, imaginary = (m.to(device, torch.float16).contiguous() for m in _weighted(points))
    return real, imaginary


@functools.lru_cache(maxsize=64)
def plain_matrix(points: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The unitary DFT of `points` points (real, imaginary), float16. Symmetric."""
    real, imaginary = (m.to(device, torch.float16).contiguous() for m in _plain(points, torch.arange(points)))
    return real, imaginary


def _weighted(points: int) -> tuple[Tensor, Tensor]:
    real, imaginary = _phases(_quarters(points), torch.arange(points), points)
    return real / math.sqrt(points), imaginary / math.sqrt(points)


def _plain(points: int, columns: Tensor) -> tuple[Tensor, Tensor]:
    real, imaginary = _phases(4 * torch.arange(points), columns, points)
    return real / math.sqrt(points), imaginary / math.sqrt(points)


@functools.lru_cache(maxsize=64)
def inner_twiddles(na: int, c: int, nb: int, device: torch.device) -> Tensor:
    """Those of `triton_inner`, after the transform over a: packed, in thread order; if c is 2, those of halves behind them."""
    t = torch.complex(*_phases(4 * torch.arange(na), torch.arange(c * nb), na * c * nb)) / math.sqrt(c)
    t = t.view(na, c, nb).transpose(0, 1).reshape(c * na, nb)
    parts = [thread_order(pack(t), 2 // c)]
    if c == 2:
        turns = torch.complex(*_phases(torch.full((na,), 4), torch.arange(nb), 2 * nb))
        parts.append(thread_order(pack(turns)))
    return torch.cat(parts).to(device)


def _real_form(real: Tensor, imaginary: Tensor) -> Tensor:
    """[Fr -Fi; Fi Fr] of a complex matrix F (n, m): (2n, 2m), its parts in turn, eight rows and columns of each."""
    n, m = real.shape
    parts = torch.stack([torch.stack([real, -imaginary], 1), torch.stack([imaginary, real], 1)], 1)  # (n, 2, 2, m)
    return parts.view(n // 8, 8, 2, 2, m // 8, 8).permute(0, 2, 1, 4, 3, 5).reshape(2 * n, 2 * m)


@functools.lru_cache(maxsize=64)
def inner_matrices(na: int, nb: int, keep: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What transforms `triton_tiles` from the left, over a, and from the right, over b: (2 na, 2 na), (2 nb, 2 keep)."""
    first = _real_form(*_plain(na, torch.arange(na)))
    real, imaginary = _plain(nb, _kept(nb, keep))
    return first.to(device, torch.float16), _real_form(real, -imaginary).to(device, torch.float16)


@functools.lru_cache(maxsize=64)
def fused_matrices(n1: int, n2: int, keep: int, copies: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """F1, weights included, `copies` times along the diagonal, of real samples, (2 copies n1, copies n1); F2 as above."""
    first, second = _fused_matrices(n1, n2, keep, copies)
    return first.to(device, torch.float16), second.to(device, torch.float16)


def _fused_matrices(n1: int, n2: int, keep: int, copies: int) -> tuple[Tensor, Tensor]:
    real, imaginary = (torch.block_diag(*[m] * copies).view(copies * n1 // 8, 8, copies * n1) for m in _weighted(n1))
    first = torch.stack([real, imaginary], 1).reshape(2 * copies * n1, copies * n1)
    real, imaginary = _plain(n2, _kept(n2, keep))
    return first, _real_form(real, -imaginary)


def _kept(points: int, keep: int) -> Tensor:
    return torch.arange(keep) - (keep // 2 if keep < points else 0)


def thread_order(values: Tensor, d: int = 2) -> Tensor:
    """(..., na, nb) to (..., na nb), in the order in which threads hold them: see `triton_tiles`."""
    *before, na, nb = values.shape
    values = values.reshape(-1, 2 // d, na * d // 2, nb // 16, 2, 4, 2)
    return values.permute(0, 1, 3, 2, 5, 4, 6).reshape(*before, na * nb)


def in_order(values: Tensor, na: int, nb: int, d: int = 2) -> Tensor:
    """The inverse of `thread_order`."""
    before = values.shape[:-1]
    values = values.reshape(-1, 2 // d, nb // 16, na * d // 2, 4, 2, 2)
    return values.permute(0, 1, 3, 2, 5, 4, 6).reshape(*before, na, nb)


@functools.lru_cache(maxsize=64)
def twiddles(n1: int, n2: int, weighted: bool, device: torch.device) -> Tensor:
    """T (n1, n2), complex numbers of two float16 packed in an int32. Weighted: the quarter bin of a right-angle transform."""
    rows = _quarters(n1) if weighted else 4 * torch.arange(n1)
    return pack(torch.complex(*_phases(rows, torch.arange(n2), n1 * n2))).to(device)


@functools.lru_cache(maxsize=64)
def exact_constants(factors: tuple[int, int], keep: int, device: torch.device) -> tuple[Tensor, ...]:
    """F1, F2 (real, imaginary), each (2, ...) float16: its rounding and what that leaves out.

    T's real and imaginary part, float32.
    """
    n1, n2 = factors
    matrices = *_weighted(n1), *_plain(n2, _kept(n2, keep))
    halves = [torch.stack([m.half(), (m - m.half().double()).half()]) for m in matrices]
    return tuple(
        m.to(device).contiguous() for m in (*halves, *(t.float() for t in _phases(_quarters(n1), torch.arange(n2), n1 * n2)))
    )


@functools.lru_cache(maxsize=64)
def exact_tiles(factors: tuple[int, int], keep: int, device: torch.device) -> tuple[Tensor, ...]:
    """The same in tiles: both of `fused_matrices`, (2, ...); T's parts in thread order. No row of data beside another."""
    n1, n2 = factors
    halves = [torch.stack([m.half(), (m - m.half().double()).half()]) for m in _fused_matrices(n1, n2, keep, 1)]
    parts = [thread_order(t.float(), 1) for t in _phases(_quarters(n1), torch.arange(n2), n1 * n2)]
    return tuple(m.to(device).contiguous() for m in (*halves, *parts))


@functools.lru_cache(maxsize=16)
def twiddles_in_two(factors: tuple[int, int], n2: int, device: torch.device) -> Tensor:
    """T of an outer transform of two factors, n2 columns: (Na, n2, Nb), packed."""
    n_a, n_b = factors
    return twiddles(n_a * n_b, n2, True, _HOST).view(n_b, n_a, n2).permute(1, 2, 0).contiguous().to(device)


@functools.lru_cache(maxsize=16)
def radix_constants(
    na: int, n2: int, columns: int, ka: int, device: torch.device
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What the kernels of `triton_radix` take for n2 columns, `columns` at a time, the second of them ka by ka.

    Of each: the matrix of the first factor, by eight (or ka) their real parts and then the imaginary ones, float16; what makes
    the second unitary is in it. The twiddles between the factors, (na, 16) packed. Those after both, packed: in the order of
    the threads, (tiles, na / 8, 128 columns), and by lines, (tiles, na / ka, 16, ka, columns).
    """
    parts = [m / 4 for m in _weighted(na)]
    matrices = (torch.stack([m.view(na // k, k, na) for m in parts], 1).half().to(device) for k in (8, ka))
    between = twiddles(na, 16, True, device)
    after = twiddles(16 * na, n2, True, _HOST)
    threads = after.view(16, na // 8, 8, n2 // columns, columns).permute(3, 1, 0, 2, 4)
    threads = threads.reshape(n2 // columns, na // 8, 8, 2, 8, columns // 8, 4, 2).permute(0, 1, 2, 5, 4, 6, 3, 7)
    lines = after.view(16, na // ka, ka, n2 // columns, columns).permute(3, 1, 0, 2, 4)
    first, second = ((m, between, t.contiguous().to(device)) for m, t in zip(matrices, (threads, lines), strict=True))
    return first, second


def pack(values: Tensor) -> Tensor:
    """Complex numbers as int32: float16 real part in the low half, imaginary part in the high half."""
    halves = torch.view_as_real(values).to(torch.float16)
    return halves.view(torch.int32).squeeze(-1).contiguous()


def weights(points: int, device: torch.device, dtype: torch.dtype = torch.complex64) -> Tensor:
    """w^n, n = 0 ... points - 1."""
    return _weights(points, device).to(dtype)


@functools.lru_cache(maxsize=32)
def _weights(points: int, device: torch.device) -> Tensor:
    angle = torch.arange(points, dtype=torch.float64) * (math.pi / (2 * points))
    return torch.polar(torch.ones_like(angle), angle).to(device, torch.complex64)
