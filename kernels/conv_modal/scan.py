"""The chunked scan: convolution with sums of exponentials in one read and one write of the sequence.

A tile is R chunks of C tokens of one sequence, chunks as rows. With x_r the chunks, S_r the modes' states before each and T
the Toeplitz block of the filter's first C taps: y_r = x_r T + Re(S_r O), O[n, o] = residue_n pole_n^(o+1), and S_{r+1} =
pole^C S_r + x_r G, G[i, n] = pole_n^(C-1-i): a scan over the tile's rows, in float32; its last state is carried to the next
tile.

Backward runs the tiles from the last to the first with the adjoint states P_r = dz_r Q + pole^C P_{r+1}, Q[o, n] =
pole_n^(o+1), and here makes S_r again from the state that forward left at each tile. Documents: as in conv_toeplitz inside a
chunk; a chunk in which a document begins passes no state on, takes the state only up to there, and gives only what comes after.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_toeplitz.product import diagonals, load_toeplitz, starts_of
from kernels.triton_support import narrow, operand


@triton.jit
def _then(ar, ai, br, bi, cr, ci, dr, di):
    """First x -> a x + b, then x -> c x + d, complex."""
    return ar * cr - ai * ci, ar * ci + ai * cr, cr * br - ci * bi + dr, cr * bi + ci * br + di


@triton.jit
def _times(ar, ai, br, bi, APART: tl.constexpr):
    """a b, complex; APART: nothing of b, not even what is no number, where a is zero."""
    cr = ar * br - ai * bi
    ci = ar * bi + ai * br
    if APART:
        cut = (ar == 0.0) & (ai == 0.0)
        cr = tl.where(cut, 0.0, cr)
        ci = tl.where(cut, 0.0, ci)
    return cr, ci


@triton.jit
def _then_apart(ar, ai, br, bi, cr, ci, dr, di):
    """`_then` where zero cuts."""
    er, ei = _times(cr, ci, br, bi, True)
    return ar * cr - ai * ci, ar * ci + ai * cr, er + dr, ei + di


@triton.jit
def _scan(ar, ai, gr, gi, carry_r, carry_i, R: tl.constexpr, REVERSE: tl.constexpr, APART: tl.constexpr):
    """Of S_{r+1} = a_r S_r + g_r: S before each row, [R, N], and the carry after the tile; REVERSE: from the last row. APART: a
    is zero where documents begin."""
    first: tl.constexpr = R - 1 if REVERSE else 0
    r = tl.arange(0, R)[:, None]
    hr = gr
    hi = gi
    carried_r, carried_i = _times(ar, ai, carry_r, carry_i, APART)
    gr += tl.where(r == first, carried_r, 0.0)
    gi += tl.where(r == first, carried_i, 0.0)
    if APART:
        _, _, er, ei = tl.associative_scan((ar, ai, gr, gi), 0, _then_apart, reverse=REVERSE)
    else:
        _, _, er, ei = tl.associative_scan((ar, ai, gr, gi), 0, _then, reverse=REVERSE)
    before = (r + (1 if REVERSE else R - 1)) % R + tl.zeros(gr.shape, tl.int32)
    sr = tl.where(r == first, carry_r, tl.gather(er, before, 0))
    si = tl.where(r == first, carry_i, tl.gather(ei, before, 0))
    last = r == R - 1 - first
    ends_r, ends_i = _times(ar, ai, sr, si, APART)
    ends_r += hr
    ends_i += hi
    carry_r = tl.sum(tl.where(last, ends_r, 0.0), axis=0)[None, :]
    carry_i = tl.sum(tl.where(last, ends_i, 0.0), axis=0)[None, :]
    return sr, si, carry_r, carry_i


@triton.jit
def _load(p, t, L):
    return tl.load(p + t, mask=t < L, other=0.0).to(tl.float32)


@triton.jit
def _powers(p, m, N: tl.constexpr):
    """Rows m of a table of powers, [len(m), 2N] pairs."""
    return tl.load(p + m[:, None] * 2 * N + tl.arange(0, 2 * N)[None, :])


@triton.jit
def _halves(table, DTYPE: tl.constexpr):
    """A table as an operand, and what rounding left of it as another: the same error in every chunk does not average out."""
    first = operand(table, DTYPE)
    return first, operand(table - first.to(tl.float32), DTYPE)


@triton.jit
def _dot_halves(x, first, rest, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """x times what `_halves` made."""
    y = tl.dot(x, first, input_precision=PRECISION)
    if DTYPE != tl.float32:  # noqa: SIM300
        y = tl.dot(x, rest, y, input_precision=PRECISION)
    return y


@triton.jit
def _pairs(x, R: tl.constexpr, N: tl.constexpr):
    """[R, 2N] of pairs -> real and imaginary parts, [R, N]."""
    return tl.split(tl.reshape(x, (R, N, 2)))


@triton.jit
def _paired(real, imaginary, R: tl.constexpr, N: tl.constexpr):
    return tl.reshape(tl.join(real, imaginary), (R, 2 * N))


@triton.jit
def _within(y, x, T, segment, HAS_DOCS: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """y + x T, documents apart."""
    if HAS_DOCS:
        for s in range(0, tl.max(segment) + 1):
            one = tl.dot(operand(tl.where(segment == s, x, 0.0), DTYPE), T, input_precision=PRECISION)
            y += tl.where(segment == s, one, 0.0)
    else:
        y = tl.dot(operand(x, DTYPE), T, y, input_precision=PRECISION)
    return y


@triton.jit
def _between_chunks(p_pow, C: tl.constexpr, R: tl.constexpr, N: tl.constexpr):
    """The poles' powers from chunk to chunk, for each of R chunks; real and imaginary parts, [R, N]."""
    p = p_pow + C * 2 * N + 2 * tl.arange(0, N)
    rows = tl.zeros((R, N), tl.float32)
    return tl.load(p)[None, :] + rows, tl.load(p + 1)[None, :] + rows


@triton.jit
def _documents(p_start, p_segment, b64, begin, t, L, C: tl.constexpr):
    """Of chunks that begin at `begin` [R, 1] and their tokens t [R, C]: ranks of the tokens' documents in the chunk and those
    documents' starts; the start of the document at the chunk's end, [R, 1]."""
    segment = tl.load(p_segment + b64 * L + t, mask=t < L, other=0)
    own = starts_of(p_start, b64, t, t < L, L, 1)
    return segment, own, starts_of(p_start, b64, tl.minimum(begin + C - 1, L - 1), begin < L, L, 1)


@triton.jit
def modal_fwd_kernel(
    p_u, p_pow, p_cpow, p_table, p_pre, p_post, p_state, p_start, p_segment, p_y, p_kept, p_after,
    L, B, tiles, su_b, su_c, spre_b, spre_c, spost_b, spost_c,
    C: tl.constexpr, R: tl.constexpr, N: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr,
    HAS_STATE: tl.constexpr, HAS_DOCS: tl.constexpr, AFTER: tl.constexpr, KEEP: tl.constexpr, DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (channels, splits of the batch). p_state, p_after: (B, D, N, 2) float32. p_kept: what backward goes on from, with
    KEEP "tiles" the states before each tile, (B, D, tiles, N, 2) float32, with "chunks" those before each chunk, (B, D, chunks,
    N, 2) of DTYPE, with "" nothing."""
    h = tl.program_id(0).to(tl.int64)
    D = tl.num_programs(0)
    i = tl.arange(0, C)
    n = tl.arange(0, N)
    r = tl.arange(0, R)
    p_pow += h * (C + 1) * 2 * N
    p_cpow += h * (C + 1) * 2 * N
    T = load_toeplitz(p_table + h * 16 * C, 0, C, 2 * C, DTYPE)
    G, G_rest = _halves(_powers(p_pow, C - 1 - i, N), DTYPE)
    O = tl.trans(operand(_powers(p_cpow, i + 1, N), DTYPE))  # noqa: E741
    lr, li = _between_chunks(p_pow, C, R, N)
    carry_r = tl.zeros((1, N), tl.float32)
    carry_i = tl.zeros((1, N), tl.float32)
    # One loop over the tiles of all sequences, so that a sequence's first loads run while the one before ends
    mine = (B - tl.program_id(1) + tl.num_programs(1) - 1) // tl.num_programs(1)
    for step in range(0, mine * tiles):
        tile = step % tiles
        b64 = tl.program_id(1) + (step // tiles) * tl.num_programs(1) + 0 * h  # int64
        row = b64 * D + h
        if HAS_STATE:
            p_before = p_state + row * 2 * N + 2 * n[None, :]
            carry_r = tl.where(tile == 0, tl.load(p_before), carry_r)
            carry_i = tl.where(tile == 0, tl.load(p_before + 1), carry_i)
        else:
            carry_r = tl.where(tile == 0, 0.0, carry_r)
            carry_i = tl.where(tile == 0, 0.0, carry_i)
        if KEEP == "tiles":
            p_here = p_kept + (row * tiles + tile) * 2 * N + 2 * n[None, :]
            tl.store(p_here, carry_r)
            tl.store(p_here + 1, carry_i)
        begin = ((tile * R + r) * C)[:, None]
        t = begin + i[None, :]
        x = _load(p_u + b64 * su_b + h * su_c, t, L)
        if HAS_PRE:
            x *= _load(p_pre + b64 * spre_b + h * spre_c, t, L)
        given = x
        ar = lr
        ai = li
        segment = t
        if HAS_DOCS:
            segment, own, end = _documents(p_start, p_segment, b64, begin, t, L, C)
            given = tl.where(t >= end, x, 0.0)
            ar = tl.where(end < begin, lr, 0.0)
            ai = tl.where(end < begin, li, 0.0)
        gr, gi = _pairs(_dot_halves(operand(given, DTYPE), G, G_rest, DTYPE, PRECISION), R, N)
        sr, si, carry_r, carry_i = _scan(ar, ai, gr, gi, carry_r, carry_i, R, False, HAS_DOCS)
        before = operand(_paired(sr, si, R, N), DTYPE)
        if KEEP == "chunks":
            chunks = (L + C - 1) // C
            at = (tile * R + r)[:, None] * 2 * N + tl.arange(0, 2 * N)[None, :]
            tl.store(p_kept + row * chunks * 2 * N + at, narrow(before, DTYPE), mask=at < chunks * 2 * N)
        y = tl.dot(before, O, input_precision=PRECISION)
        if HAS_DOCS:
            y = tl.where(own < begin, y, 0.0)
        y = _within(y, x, T, segment, HAS_DOCS, DTYPE, PRECISION)
        if HAS_POST:
            y *= _load(p_post + b64 * spost_b + h * spost_c, t, L)
        tl.store(p_y + row * L + t, narrow(y, DTYPE), mask=t < L)
        if AFTER:  # noqa: SIM102  (one is decided when compiling, the other when running)
            if tile == tiles - 1:  # the state after the last token, anywhere in its chunk
                last = (L - 1) // C
                count = L - last * C
                left = count - 1 - i
                F = tl.where((left >= 0)[:, None], _powers(p_pow, tl.maximum(left, 0), N), 0.0)
                fr, fi = _pairs(tl.dot(given, F, input_precision="tf32x3"), R, N)
                kr = tl.load(p_pow + count * 2 * N + 2 * n)[None, :]
                ki = tl.load(p_pow + count * 2 * N + 2 * n + 1)[None, :]
                if HAS_DOCS:
                    fr += tl.where(end < begin, kr * sr - ki * si, 0.0)
                    fi += tl.where(end < begin, kr * si + ki * sr, 0.0)
                else:
                    fr += kr * sr - ki * si
                    fi += kr * si + ki * sr
                here = (tile * R + r == last)[:, None]
                tl.store(p_after + row * 2 * N + 2 * n, tl.sum(tl.where(here, fr, 0.0), axis=0))
                tl.store(p_after + row * 2 * N + 2 * n + 1, tl.sum(tl.where(here, fi, 0.0), axis=0))


@triton.jit
def modal_bwd_kernel(
    p_dy, p_u, p_pow, p_cpow, p_table, p_pre, p_post, p_start, p_segment, p_kept,
    p_du, p_dpre, p_dpost, p_dstate, p_dk, p_dmode,
    L, B, tiles, su_b, su_c, spre_b, spre_c, spost_b, spost_c,
    C: tl.constexpr, R: tl.constexpr, N: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr,
    HAS_STATE: tl.constexpr, HAS_DOCS: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid as forward's. p_dstate: (B, D, N, 2), the adjoint state at the first token, without the residue.

    p_dk: (D, splits, C), the gradient of the first C taps from pairs of tokens in one chunk; p_dmode: (D, splits, 2, N, 2),
    that of the residue and of the pole's logarithm over the residue from pairs in different chunks, as complex factors. All
    float32.
    """
    h = tl.program_id(0).to(tl.int64)
    D = tl.num_programs(0)
    i = tl.arange(0, C)
    n = tl.arange(0, N)
    r = tl.arange(0, R)
    p_pow += h * (C + 1) * 2 * N
    p_cpow += h * (C + 1) * 2 * N
    T = load_toeplitz(p_table + h * 16 * C, 0, C, 2 * C, DTYPE)
    rising = i[:, None].to(tl.float32)
    before = _powers(p_pow, C - 1 - i, N)
    after = _powers(p_pow, i + 1, N)
    G = operand(before, DTYPE)
    G1 = operand(before * (C - 1 - rising), DTYPE)
    Q = operand(after, DTYPE)
    Q1 = operand(after * (1 + rising), DTYPE)
    H = tl.trans(operand(_powers(p_cpow, C - 1 - i, N), DTYPE))
    if HAS_POST:
        O = tl.trans(operand(_powers(p_cpow, i + 1, N), DTYPE))  # noqa: E741
    lr, li = _between_chunks(p_pow, C, R, N)
    dT = tl.zeros((C, C), tl.float32)
    wr = tl.zeros((R, N), tl.float32)
    wi = tl.zeros((R, N), tl.float32)
    zr = tl.zeros((R, N), tl.float32)
    zi = tl.zeros((R, N), tl.float32)
    adjoint_r = tl.zeros((1, N), tl.float32)
    adjoint_i = tl.zeros((1, N), tl.float32)
    mine = (B - tl.program_id(1) + tl.num_programs(1) - 1) // tl.num_programs(1)
    for step in range(0, mine * tiles):
        tile = tiles - 1 - step % tiles
        b64 = tl.program_id(1) + (step // tiles) * tl.num_programs(1) + 0 * h  # int64
        row = b64 * D + h
        adjoint_r = tl.where(tile == tiles - 1, 0.0, adjoint_r)
        adjoint_i = tl.where(tile == tiles - 1, 0.0, adjoint_i)
        begin = ((tile * R + r) * C)[:, None]
        t = begin + i[None, :]
        x = _load(p_u + b64 * su_b + h * su_c, t, L)
        if HAS_PRE:
            x *= _load(p_pre + b64 * spre_b + h * spre_c, t, L)
        dz = _load(p_dy + row * L, t, L)
        if HAS_POST:
            dy = dz
            dz *= _load(p_post + b64 * spost_b + h * spost_c, t, L)
        given = x
        taken = dz
        ar = lr
        ai = li
        segment = t
        if HAS_DOCS:
            segment, own, end = _documents(p_start, p_segment, b64, begin, t, L, C)
            given = tl.where(t >= end, x, 0.0)
            taken = tl.where(own < begin, dz, 0.0)
            ar = tl.where(end < begin, lr, 0.0)
            ai = tl.where(end < begin, li, 0.0)
        # States before each chunk, as forward had them, and adjoint states after each
        p_here = p_kept + (row * tiles + tile) * 2 * N + 2 * n[None, :]
        gr, gi = _pairs(tl.dot(operand(given, DTYPE), G, input_precision=PRECISION), R, N)
        sr, si, _, _ = _scan(ar, ai, gr, gi, tl.load(p_here), tl.load(p_here + 1), R, False, HAS_DOCS)
        qr, qi = _pairs(tl.dot(operand(taken, DTYPE), Q, input_precision=PRECISION), R, N)
        pr, pi, adjoint_r, adjoint_i = _scan(ar, ai, qr, qi, adjoint_r, adjoint_i, R, True, HAS_DOCS)
        # Residues and poles
        wr += qr * sr - qi * si
        wi += qr * si + qi * sr
        hr, hi = _pairs(tl.dot(operand(taken, DTYPE), Q1, input_precision=PRECISION), R, N)
        zr += hr * sr - hi * si
        zi += hr * si + hi * sr
        hr, hi = _pairs(tl.dot(operand(given, DTYPE), G1, input_precision=PRECISION), R, N)
        hr += C * (ar * sr - ai * si)
        hi += C * (ar * si + ai * sr)
        zr += pr * hr - pi * hi
        zi += pr * hi + pi * hr
        # Taps within a chunk
        if HAS_DOCS:
            for s in range(0, tl.max(segment) + 1):
                xs = operand(tl.where(segment == s, x, 0.0), DTYPE)
                dT = tl.dot(tl.trans(xs), operand(tl.where(segment == s, dz, 0.0), DTYPE), dT, input_precision=PRECISION)
        else:
            dT = tl.dot(tl.trans(operand(x, DTYPE)), operand(dz, DTYPE), dT, input_precision=PRECISION)
        if HAS_POST:
            y = tl.dot(operand(_paired(sr, si, R, N), DTYPE), O, input_precision=PRECISION)
            if HAS_DOCS:
                y = tl.where(own < begin, y, 0.0)
            y = _within(y, x, T, segment, HAS_DOCS, DTYPE, PRECISION)
            tl.store(p_dpost + row * L + t, narrow(dy * y, DTYPE), mask=t < L)
        dv = tl.dot(operand(_paired(pr, pi, R, N), DTYPE), H, input_precision=PRECISION)
        if HAS_DOCS:
            dv = tl.where(t >= end, dv, 0.0)
        dv = _within(dv, dz, tl.trans(T), segment, HAS_DOCS, DTYPE, PRECISION)
        if HAS_PRE:
            u = _load(p_u + b64 * su_b + h * su_c, t, L)
            tl.store(p_dpre + row * L + t, narrow(dv * u, DTYPE), mask=t < L)
            dv *= _load(p_pre + b64 * spre_b + h * spre_c, t, L)
        tl.store(p_du + row * L + t, narrow(dv, DTYPE), mask=t < L)
        if HAS_STATE:  # the last tile's stays
            tl.store(p_dstate + row * 2 * N + 2 * n[None, :], adjoint_r)
            tl.store(p_dstate + row * 2 * N + 2 * n[None, :] + 1, adjoint_i)
    part = h * tl.num_programs(1) + tl.program_id(1)
    causal, _ = diagonals(dT, C)
    tl.store(p_dk + part * C + i, causal)
    p_dmode += part * 4 * N
    tl.store(p_dmode + 2 * n, tl.sum(wr, axis=0))
    tl.store(p_dmode + 2 * n + 1, tl.sum(wi, axis=0))
    tl.store(p_dmode + 2 * N + 2 * n, tl.sum(zr, axis=0))
    tl.store(p_dmode + 2 * N + 2 * n + 1, tl.sum(zi, axis=0))
