"""The modal scan's backward without documents on Hopper: what `tiles` computes, with every layout chosen (`hopper_layouts`).

Nothing is exchanged between threads but operands, which products take from shared memory, and what the adjoint scan passes on:
within pairs of chunks in registers, among the pairs of a warp by shuffles, from warp to warp through shared memory.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportAttributeAccessIssue=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportIndexIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import async_copy, fence_async_shared, warpgroup_mma, warpgroup_mma_wait

from kernels.conv_modal.hopper_layouts import (
    by_token,
    from_pairs,
    from_states,
    from_tokens,
    modes_by_token,
    pairs_of_product,
    pairs_of_states,
    part_of,
    scan_layout,
    slim_layout,
    stage_layout,
    states_layout,
    taps_by_token,
    token_of,
    tokens_layout,
    wide_layout,
)


@gluon.constexpr_function
def _shuffle(lanes):
    return f"shfl.sync.up.b32 $0, $1, {lanes}, 0, 0xffffffff;"


@gluon.jit
def _times(ar, ai, br, bi):
    return ar * br - ai * bi, ar * bi + ai * br


@gluon.jit
def _plus(cr, ci, ar, ai, br, bi):
    """c + a b, complex."""
    return gl.fma(ar, br, gl.fma(-ai, bi, cr)), gl.fma(ar, bi, gl.fma(ai, br, ci))


@gluon.jit
def _up(x, pair, pairs: gl.constexpr):
    """x of the pair of chunks so many before, of the same warp; zero where there is none."""
    before = gl.inline_asm_elementwise(_shuffle(4 * pairs), "=f,f", [x], dtype=gl.float32, is_pure=False, pack=1)
    return gl.where(pair >= pairs, before, 0.0)


@gluon.jit
def _row(table, k: gl.constexpr, N: gl.constexpr):
    """Row k of a table in shared memory, [1, 1, N]."""
    layout: gl.constexpr = gl.SliceLayout(1, scan_layout(N))
    return gl.expand_dims(table.slice(k, 1, 0).load(layout), 1)


@gluon.jit
def _powers_between_chunks(p_pow, C: gl.constexpr, N: gl.constexpr):
    """Tables of the poles' powers C, 2C, 4C, 8C, 16C (`steps`) and 0, 2C … 14C (`pairs`) in shared memory, [8, N], real and
    imaginary parts."""
    SCAN: gl.constexpr = scan_layout(N)
    PLAIN: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    n = gl.arange(0, N, gl.SliceLayout(0, gl.SliceLayout(0, SCAN)))
    k = gl.arange(0, 8, gl.SliceLayout(1, gl.SliceLayout(0, SCAN)))[:, None]
    er = gl.load(p_pow + C * 2 * N + 2 * n)[None, :]
    ei = gl.load(p_pow + C * 2 * N + 2 * n + 1)[None, :]
    steps_r = gl.where(k == 0, er, 0.0)
    steps_i = gl.where(k == 0, ei, 0.0)
    pairs_r = gl.where(k >= 0, 1.0, er)
    pairs_i = gl.where(k >= 0, 0.0, ei)
    for bit in gl.static_range(4):
        er, ei = _times(er, ei, er, ei)
        steps_r = gl.where(k == bit + 1, er, steps_r)
        steps_i = gl.where(k == bit + 1, ei, steps_i)
        if bit < 3:
            more_r, more_i = _times(pairs_r, pairs_i, er, ei)
            pairs_r = gl.where((k >> bit) & 1 != 0, more_r, pairs_r)
            pairs_i = gl.where((k >> bit) & 1 != 0, more_i, pairs_i)
    step_r = gl.allocate_shared_memory(gl.float32, [8, N], PLAIN, steps_r)
    step_i = gl.allocate_shared_memory(gl.float32, [8, N], PLAIN, steps_i)
    pair_r = gl.allocate_shared_memory(gl.float32, [8, N], PLAIN, pairs_r)
    pair_i = gl.allocate_shared_memory(gl.float32, [8, N], PLAIN, pairs_i)
    return step_r, step_i, pair_r, pair_i


@gluon.jit
def _adjoint_scan(
    q0r, q0i, q1r, q1i, carry_r, carry_i, step_r, step_i, pairs_r, pairs_i, ends_r, ends_i, N: gl.constexpr
):  # fmt: skip
    """Of P_{c+1} = pole^C P_c + q_c along the tile's 64 chunks, in pairs: P before each, and after the last."""
    SCAN: gl.constexpr = scan_layout(N)
    pair = gl.expand_dims(gl.expand_dims(gl.arange(0, 8, gl.SliceLayout(0, gl.SliceLayout(2, SCAN))), 0), 2)
    warp = gl.expand_dims(gl.expand_dims(gl.arange(0, 4, gl.SliceLayout(1, gl.SliceLayout(2, SCAN))), 1), 2)
    tr, ti = _plus(q1r, q1i, _row(step_r, 0, N), _row(step_i, 0, N), q0r, q0i)
    for bit in gl.static_range(3):
        er = _row(step_r, bit + 1, N)
        ei = _row(step_i, bit + 1, N)
        tr, ti = _plus(tr, ti, er, ei, _up(tr, pair, 1 << bit), _up(ti, pair, 1 << bit))
    ends_r.store(gl.reshape(tr, (32, N)))
    ends_i.store(gl.reshape(ti, (32, N)))
    tr = _up(tr, pair, 1)
    ti = _up(ti, pair, 1)
    into_r = carry_r
    into_i = carry_i
    er = _row(step_r, 4, N)
    ei = _row(step_i, 4, N)
    gl.thread_barrier()
    for w in gl.static_range(4):
        carry_r, carry_i = _plus(_row(ends_r, 8 * w + 7, N), _row(ends_i, 8 * w + 7, N), er, ei, carry_r, carry_i)
        if w < 3:
            into_r = gl.where(warp > w, carry_r, into_r)
            into_i = gl.where(warp > w, carry_i, into_i)
    er = gl.expand_dims(pairs_r.load(gl.SliceLayout(0, SCAN)), 0)
    ei = gl.expand_dims(pairs_i.load(gl.SliceLayout(0, SCAN)), 0)
    p0r, p0i = _plus(tr, ti, er, ei, into_r, into_i)
    p1r, p1i = _plus(q0r, q0i, _row(step_r, 0, N), _row(step_i, 0, N), p0r, p0i)
    return p0r, p0i, p1r, p1i, carry_r, carry_i


@gluon.jit
def _tile(
    step, p_u, p_pre, p_dy, p_post, p_kept, tiles, chunks, L, D, h, su_b, su_c, spre_b, spre_c, spost_b, spost_c,
    N: gl.constexpr, HAS_PRE: gl.constexpr, HAS_POST: gl.constexpr,
):  # fmt: skip
    """A step's tile, its sequence's row, and where it begins in each tensor; in dy for a gate that is not there."""
    tile = tiles - 1 - step % tiles
    b64 = gl.program_id(1) + (step // tiles) * gl.num_programs(1) + 0 * h
    row = b64 * D + h
    start = tile * 4096
    p_dy += row * L + start
    of_pre = p_dy
    of_post = p_dy
    if HAS_PRE:
        of_pre = p_pre + (b64 * spre_b + h * spre_c + start)
    if HAS_POST:
        of_post = p_post + (b64 * spost_b + h * spost_c + start)
    return tile, row, p_u + (b64 * su_b + h * su_c + start), of_pre, p_dy, of_post, p_kept + (row * chunks + tile * 64) * 2 * N


@gluon.jit
def _copy(
    us, pres, dys, posts, states, p_u, p_pre, p_dy, p_post, p_kept, at, state_at, left, left_states, WHOLE, HAS_PRE, HAS_POST
):  # fmt: skip
    """Starts the copies of a tile to shared memory, zeros where it is beyond the sequence's end."""
    mask = None if WHOLE else at < left
    async_copy.async_copy_global_to_shared(us, p_u + at, mask=mask)
    async_copy.async_copy_global_to_shared(dys, p_dy + at, mask=mask)
    if HAS_PRE:
        async_copy.async_copy_global_to_shared(pres, p_pre + at, mask=mask)
    if HAS_POST:
        async_copy.async_copy_global_to_shared(posts, p_post + at, mask=mask)
    async_copy.async_copy_global_to_shared(states, p_kept + state_at, mask=None if WHOLE else state_at < left_states)
    async_copy.commit_group()


@gluon.jit
def _gate(x, gate, DTYPE: gl.constexpr):
    return (x.to(gl.float32) * gate.to(gl.float32)).to(DTYPE)


@gluon.jit
def _weighted(mr, mi, p_pow, m, weight, n, N: gl.constexpr):
    """Sums over rows of weight pole^m M, M complex; real and imaginary parts, [N]."""
    ar, ai = _times(gl.load(p_pow + m * 2 * N + 2 * n) * weight, gl.load(p_pow + m * 2 * N + 2 * n + 1) * weight, mr, mi)
    return gl.sum(ar, axis=0), gl.sum(ai, axis=0)


@gluon.jit
def modal_hopper_kernel(
    p_dy, p_u, p_pow, p_cpow, p_table, p_pre, p_post, p_kept, p_du, p_dpre, p_dpost, p_dstate, p_dk, p_dmode,
    L, B, tiles, su_b, su_c, spre_b, spre_c, spost_b, spost_c,
    C: gl.constexpr, R: gl.constexpr, N: gl.constexpr, HAS_PRE: gl.constexpr, HAS_POST: gl.constexpr,
    HAS_STATE: gl.constexpr, DTYPE: gl.constexpr, WHOLE: gl.constexpr, AHEAD: gl.constexpr,
):  # fmt: skip
    """Grid, arguments and results as `modal_tiles_kernel`'s; C and R are 64, 4 warps.

    WHOLE: L is a multiple of a tile's tokens. AHEAD: a tile is copied to shared memory while the one before is computed; rows
    are aligned then.
    """
    gl.static_assert(C == 64)
    gl.static_assert(R == 64)
    TOKENS: gl.constexpr = tokens_layout()
    STATES: gl.constexpr = states_layout(N)
    SCAN: gl.constexpr = scan_layout(N)
    WIDE: gl.constexpr = wide_layout()
    SLIM: gl.constexpr = slim_layout(N)
    TABLE: gl.constexpr = gl.BlockedLayout([1, 2], [2, 16], [4, 1], [1, 0])
    ROWS: gl.constexpr = gl.NVMMASharedLayout(128, 16)
    NARROW: gl.constexpr = gl.NVMMASharedLayout(4 * N, 16)
    PLAIN: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    h = gl.program_id(0).to(gl.int64)
    D = gl.num_programs(0)
    chunks = (L + C - 1) // C
    p_pow += h * (C + 1) * 2 * N
    p_cpow += h * (C + 1) * 2 * N
    p_table += h * 16 * C
    # Operands of 64 x 64: a tile's gated inputs and gated gradients, and T; of 64 x 2N: states before and after, Q in two
    # halves; of 2N x 64: H and O
    wide = gl.allocate_shared_memory(DTYPE, [3, R, C], ROWS)
    slim = gl.allocate_shared_memory(DTYPE, [4, C, 2 * N], NARROW)
    flat = gl.allocate_shared_memory(DTYPE, [2, 2 * N, C], ROWS)
    i = token_of(gl.arange(0, C, gl.SliceLayout(1, TABLE)))[:, None]
    o = token_of(gl.arange(0, C, gl.SliceLayout(0, TABLE)))[None, :]
    wide.index(2).store(gl.load(p_table + ((i % 8) * 2 * C + C + o - (i // 8) * 8)))
    powers = gl.load(p_pow + (i + 1) * 2 * N + part_of(gl.arange(0, 2 * N, gl.SliceLayout(0, TABLE)), N)[None, :])
    rounded = powers.to(DTYPE)
    slim.index(2).store(rounded)
    slim.index(3).store((powers - rounded.to(gl.float32)).to(DTYPE))
    p_part = p_cpow + part_of(gl.arange(0, 2 * N, gl.SliceLayout(1, TABLE)), N)[:, None]
    flat.index(0).store(gl.load(p_part + (C - 1 - o) * 2 * N).to(DTYPE))
    flat.index(1).store(gl.load(p_part + (o + 1) * 2 * N).to(DTYPE))
    step_r, step_i, pairs_r, pairs_i = _powers_between_chunks(p_pow, C, N)
    ends_r = gl.allocate_shared_memory(gl.float32, [32, N], PLAIN)
    ends_i = gl.allocate_shared_memory(gl.float32, [32, N], PLAIN)
    fence_async_shared()
    gl.thread_barrier()
    dT = gl.zeros([C, C], gl.float32, WIDE)
    dO = gl.zeros([C, 2 * N], gl.float32, SLIM)
    dG = gl.zeros([C, 2 * N], gl.float32, SLIM)
    zr = gl.zeros([4, 8, N], gl.float32, SCAN)
    zi = gl.zeros([4, 8, N], gl.float32, SCAN)
    adjoint_r = gl.zeros([1, 1, N], gl.float32, SCAN)
    adjoint_i = gl.zeros([1, 1, N], gl.float32, SCAN)
    # Rows are chunks from a tile's last to its first
    at = (R - 1 - gl.arange(0, R, gl.SliceLayout(1, TOKENS)).to(gl.int64))[:, None] * C
    at = at + gl.arange(0, C, gl.SliceLayout(0, TOKENS)).to(gl.int64)[None, :]
    state_at = (R - 1 - gl.arange(0, R, gl.SliceLayout(1, STATES)).to(gl.int64))[:, None] * 2 * N
    state_at = state_at + gl.arange(0, 2 * N, gl.SliceLayout(0, STATES)).to(gl.int64)[None, :]
    steps = (B - gl.program_id(1) + gl.num_programs(1) - 1) // gl.num_programs(1) * tiles
    if AHEAD:
        us = gl.allocate_shared_memory(DTYPE, [R, C], stage_layout())
        pres = gl.allocate_shared_memory(DTYPE, [R, C], stage_layout())
        dys = gl.allocate_shared_memory(DTYPE, [R, C], stage_layout())
        posts = gl.allocate_shared_memory(DTYPE, [R, C], stage_layout())
        states = gl.allocate_shared_memory(DTYPE, [R, 2 * N], PLAIN)
        tile, _, of_u, of_pre, of_dy, of_post, of_kept = _tile(
            0, p_u, p_pre, p_dy, p_post, p_kept, tiles, chunks, L, D, h, su_b, su_c, spre_b, spre_c, spost_b, spost_c,
            N, HAS_PRE, HAS_POST,
        )  # fmt: skip
        _copy(
            us, pres, dys, posts, states, of_u, of_pre, of_dy, of_post, of_kept, at, state_at, L - tile * (R * C),
            (chunks - tile * R) * 2 * N, WHOLE, HAS_PRE, HAS_POST,
        )  # fmt: skip
    for step in range(0, steps):
        tile, row, p_u_here, p_pre_here, p_dy_here, p_post_here, p_kept_here = _tile(
            step, p_u, p_pre, p_dy, p_post, p_kept, tiles, chunks, L, D, h, su_b, su_c, spre_b, spre_c, spost_b, spost_c,
            N, HAS_PRE, HAS_POST,
        )  # fmt: skip
        here = row * L + tile * (R * C)
        # Zero, but only here: descriptors of shared memory that are made where they are used take no registers
        zero = tile >> 31
        xs = wide.index(zero)
        zs = wide.index(zero + 1)
        T = wide.index(zero + 2)
        befores = slim.index(zero)
        afters = slim.index(zero + 1)
        Q = slim.index(zero + 2)
        Q_rest = slim.index(zero + 3)
        H = flat.index(zero)
        O = flat.index(zero + 1)  # noqa: E741
        mask = None if WHOLE else at < L - tile * (R * C)
        if AHEAD:
            async_copy.wait_group(0)
            u = us.load(TOKENS)
            pre = pres.load(TOKENS) if HAS_PRE else u
            dy = dys.load(TOKENS)
            post = posts.load(TOKENS) if HAS_POST else dy
            before = states.load(STATES)
        else:
            u = gl.load(p_u_here + at, mask=mask, other=None if WHOLE else 0.0)
            pre = gl.load(p_pre_here + at, mask=mask, other=None if WHOLE else 0.0) if HAS_PRE else u
            dy = gl.load(p_dy_here + at, mask=mask, other=None if WHOLE else 0.0)
            post = gl.load(p_post_here + at, mask=mask, other=None if WHOLE else 0.0) if HAS_POST else dy
            there = state_at < (chunks - tile * R) * 2 * N
            before = gl.load(p_kept_here + state_at, mask=None if WHOLE else there, other=None if WHOLE else 0.0)
        xs.store(from_tokens(_gate(u, pre, DTYPE) if HAS_PRE else u))
        zs.store(from_tokens(_gate(dy, post, DTYPE) if HAS_POST else dy))
        befores.store(from_states(before, N))
        fence_async_shared()
        gl.thread_barrier()
        if AHEAD:
            following, _, of_u, of_pre, of_dy, of_post, of_kept = _tile(
                gl.minimum(step + 1, steps - 1), p_u, p_pre, p_dy, p_post, p_kept, tiles, chunks, L, D, h,
                su_b, su_c, spre_b, spre_c, spost_b, spost_c, N, HAS_PRE, HAS_POST,
            )  # fmt: skip
            _copy(
                us, pres, dys, posts, states, of_u, of_pre, of_dy, of_post, of_kept, at, state_at, L - following * (R * C),
                (chunks - following * R) * 2 * N, WHOLE, HAS_PRE, HAS_POST,
            )  # fmt: skip
        q = warpgroup_mma(zs, Q, gl.zeros([R, 2 * N], gl.float32, SLIM), use_acc=False, is_async=True)
        q = warpgroup_mma(zs, Q_rest, q, is_async=True)
        if HAS_POST:
            y = warpgroup_mma(befores, O, gl.zeros([R, C], gl.float32, WIDE), use_acc=False, is_async=True)
            y = warpgroup_mma(xs, T, y, is_async=True)
            q, y = warpgroup_mma_wait(0, deps=[q, y])
            gl.store(p_dpost + here + at, (by_token(y) * dy.to(gl.float32)).to(DTYPE), mask=mask)
        else:
            q = warpgroup_mma_wait(0, deps=[q])
        dT = warpgroup_mma(xs.permute((1, 0)), zs, dT, is_async=True)
        dO = warpgroup_mma(zs.permute((1, 0)), befores, dO, is_async=True)
        # Adjoint states after each chunk, and what they give
        adjoint_r = gl.where(tile == tiles - 1, 0.0, adjoint_r)
        adjoint_i = gl.where(tile == tiles - 1, 0.0, adjoint_i)
        q0r, q0i, q1r, q1i = pairs_of_product(q, N)
        a0r, a0i, a1r, a1i, adjoint_r, adjoint_i = _adjoint_scan(
            q0r, q0i, q1r, q1i, adjoint_r, adjoint_i, step_r, step_i, pairs_r, pairs_i, ends_r, ends_i, N
        )
        afters.store(from_pairs(a0r, a0i, a1r, a1i, N).to(DTYPE))
        fence_async_shared()
        gl.thread_barrier()
        dv = warpgroup_mma(afters, H, gl.zeros([R, C], gl.float32, WIDE), use_acc=False, is_async=True)
        dv = warpgroup_mma(zs, T.permute((1, 0)), dv, is_async=True)
        dG = warpgroup_mma(xs.permute((1, 0)), afters, dG, is_async=True)
        s0r, s0i, s1r, s1i = pairs_of_states(before.to(gl.float32), N)
        zr, zi = _plus(zr, zi, a0r, a0i, s0r, s0i)
        zr, zi = _plus(zr, zi, a1r, a1i, s1r, s1i)
        dv, dT, dO = warpgroup_mma_wait(1, deps=[dv, dT, dO])
        dv = by_token(dv)
        if HAS_PRE:
            gl.store(p_dpre + here + at, (dv * u.to(gl.float32)).to(DTYPE), mask=mask)
            dv *= pre.to(gl.float32)
        gl.store(p_du + here + at, dv.to(DTYPE), mask=mask)
        if HAS_STATE:  # the last tile's stays
            n = gl.arange(0, N, gl.SliceLayout(0, gl.SliceLayout(0, SCAN)))
            p_end = p_dstate + row * 2 * N + 2 * gl.expand_dims(gl.expand_dims(n, 0), 0)
            gl.store(p_end, adjoint_r)
            gl.store(p_end + 1, adjoint_i)
        dG = warpgroup_mma_wait(0, deps=[dG])
        gl.thread_barrier()  # all warps' products have read what the next tile overwrites
    if AHEAD:
        async_copy.wait_group(0)
    # Diagonals of dT
    part = h * gl.num_programs(1) + gl.program_id(1)
    TAPS: gl.constexpr = gl.BlockedLayout([1, 2], [1, 32], [4, 1], [1, 0])
    i = gl.arange(0, C, gl.SliceLayout(1, TAPS))[:, None]
    delay = gl.arange(0, C, gl.SliceLayout(0, TAPS))
    turned = gl.gather(taps_by_token(dT, TAPS), (i + delay[None, :]) % C, axis=1)
    gl.store(p_dk + part * C + delay, gl.sum(gl.where(i + delay[None, :] < C, turned, 0.0), axis=0))
    # The factors of residues and poles
    MODES: gl.constexpr = gl.BlockedLayout([1, 2], [8, 4], [4, 1], [1, 0])
    m = gl.arange(0, C, gl.SliceLayout(1, MODES))[:, None]
    n = gl.arange(0, N, gl.SliceLayout(0, MODES))
    rising = m.to(gl.float32)
    mr, mi = modes_by_token(dO, N, MODES)
    wr, wi = _weighted(mr, mi, p_pow, m + 1, 1.0, n[None, :], N)
    ur, ui = _weighted(mr, mi, p_pow, m + 1, 1.0 + rising, n[None, :], N)
    mr, mi = modes_by_token(dG, N, MODES)
    vr, vi = _weighted(mr, mi, p_pow, C - 1 - m, C - 1 - rising, n[None, :], N)
    zr = gl.convert_layout(gl.sum(gl.sum(zr, axis=0), axis=0), gl.SliceLayout(0, MODES))
    zi = gl.convert_layout(gl.sum(gl.sum(zi, axis=0), axis=0), gl.SliceLayout(0, MODES))
    zr, zi = _times(gl.load(p_pow + C * 2 * N + 2 * n), gl.load(p_pow + C * 2 * N + 2 * n + 1), zr, zi)
    p_dmode += part * 4 * N + 2 * n
    gl.store(p_dmode, wr)
    gl.store(p_dmode + 1, wi)
    gl.store(p_dmode + 2 * N, ur + vr + C * zr)
    gl.store(p_dmode + 2 * N + 1, ui + vi + C * zi)
