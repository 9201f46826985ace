"""The modal scan's backward without documents on Hopper: what `tiles` computes, with every layout chosen (`hopper_layouts`).

Nothing is exchanged between threads but operands, which products take from shared memory, and what the adjoint scan passes on:
within pairs of chunks in registers, among the pairs of a warp by shuffles, from warp to warp through shared memory.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportAttributeAccessIssue=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportIndexIssue=false, reportOptionalMemberAccess=false
# pyright: reportOperatorIssue=false

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import async_copy, fence_async_shared, warpgroup_mma, warpgroup_mma_wait

from kernels.conv_modal.hopper_layouts import (
    by_token,
    from_tokens,
    part_of,
    scan_layout,
    split_pairs,
    stage_layout,
    states_layout,
    token_of,
    tokens_layout,
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
def _up(x, keep, pairs: gl.constexpr):
    """x of the pair of chunks so many before; zero unless `keep`."""
    before = gl.inline_asm_elementwise(_shuffle(4 * pairs), "=f,f", [x], dtype=gl.float32, is_pure=False, pack=1)
    return gl.where(keep, before, 0.0)


@gluon.jit
def _row(table, k: gl.constexpr, N: gl.constexpr):
    """Row k of a table in shared memory, [1, 1, N]."""
    layout: gl.constexpr = gl.SliceLayout(1, scan_layout(N))
    return gl.expand_dims(table.slice(k, 1, 0).load(layout), 1)


@gluon.jit
def _weighted(mr, mi, pr, pi, weight):
    """Sums over rows of weight p m, complex."""
    ar, ai = _times(pr * weight, pi * weight, mr, mi)
    return gl.sum(ar, axis=0), gl.sum(ai, axis=0)


@gluon.jit
def _gate(x, gate, DTYPE: gl.constexpr):
    return (x.to(gl.float32) * gate.to(gl.float32)).to(DTYPE)


@gluon.jit
def _place(step, tiles, D, h):
    """A step's sequence, its row among all, its tile's number and first token."""
    tile = tiles - 1 - step % tiles
    b64 = gl.program_id(1) + (step // tiles) * gl.num_programs(1) + 0 * h
    return b64, b64 * D + h, tile, tile * 4096


@gluon.jit
def _copy_ahead(
    us, pres, dys, posts, states, p_u, p_pre, p_dy, p_post, p_kept, at, state_at, step, h, D, L, tiles, chunks,
    su_b, su_c, spre_b, spre_c, spost_b, spost_c, N: gl.constexpr, HAS_PRE: gl.constexpr, HAS_POST: gl.constexpr,
):  # fmt: skip
    """Starts a step's copies to shared memory."""
    b64, row, tile, start = _place(step, tiles, D, h)
    async_copy.async_copy_global_to_shared(us, p_u + (b64 * su_b + h * su_c + start) + at)
    async_copy.async_copy_global_to_shared(dys, p_dy + (row * L + start) + at)
    if HAS_PRE:
        async_copy.async_copy_global_to_shared(pres, p_pre + (b64 * spre_b + h * spre_c + start) + at)
    if HAS_POST:
        async_copy.async_copy_global_to_shared(posts, p_post + (b64 * spost_b + h * spost_c + start) + at)
    async_copy.async_copy_global_to_shared(states, p_kept + (row * chunks + tile * 64) * 2 * N + state_at)
    async_copy.commit_group()


@gluon.jit
def modal_hopper_kernel(
    p_dy, p_u, p_pow, p_cpow, p_table, p_pre, p_post, p_kept, p_du, p_dpre, p_dpost, p_dstate, p_dk, p_dmode,
    L, B, tiles, su_b, su_c, spre_b, spre_c, spost_b, spost_c,
    C: gl.constexpr, R: gl.constexpr, N: gl.constexpr, HAS_PRE: gl.constexpr, HAS_POST: gl.constexpr,
    HAS_STATE: gl.constexpr, DTYPE: gl.constexpr, WHOLE: gl.constexpr, AHEAD: gl.constexpr,
):  # fmt: skip
    """Grid, arguments and results as `modal_tiles_kernel`'s; C and R are 64, 4 warps.

    WHOLE: L is a multiple of a tile's tokens. AHEAD: a tile is copied to shared memory while the one before is computed; all
    are whole then, and rows aligned.
    """
    gl.static_assert(C == 64)
    gl.static_assert(R == 64)
    TOKENS: gl.constexpr = tokens_layout()
    STATES: gl.constexpr = states_layout(N)
    SCAN: gl.constexpr = scan_layout(N)
    WIDE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    SLIM: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 2 * N, 16])
    TABLE: gl.constexpr = gl.BlockedLayout([1, 2], [2, 16], [4, 1], [1, 0])
    MODES: gl.constexpr = gl.BlockedLayout([1, 2], [8, 4], [4, 1], [1, 0])
    ROWS: gl.constexpr = gl.NVMMASharedLayout(128, 16)
    NARROW: gl.constexpr = gl.NVMMASharedLayout(4 * N, 16)
    PLAIN: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    h = gl.program_id(0).to(gl.int64)
    D = gl.num_programs(0)
    chunks = (L + C - 1) // C
    p_pow += h * (C + 1) * 2 * N
    p_cpow += h * (C + 1) * 2 * N
    p_table += h * 16 * C
    # Operands that stay: T [token in, token out], Q [token, part] in two halves, H and O [part, token]
    i = token_of(gl.arange(0, C, gl.SliceLayout(1, TABLE)))[:, None]
    o = token_of(gl.arange(0, C, gl.SliceLayout(0, TABLE)))[None, :]
    wide = gl.allocate_shared_memory(DTYPE, [3, C, C], ROWS)
    slim = gl.allocate_shared_memory(DTYPE, [4, C, 2 * N], NARROW)
    flat = gl.allocate_shared_memory(DTYPE, [2, 2 * N, C], ROWS)
    wide.index(2).store(gl.load(p_table + ((i % 8) * 2 * C + C + o - (i // 8) * 8)))
    n2 = part_of(gl.arange(0, 2 * N, gl.SliceLayout(0, TABLE)), N)[None, :]
    exact = gl.load(p_pow + (i + 1) * 2 * N + n2)
    rounded = exact.to(DTYPE)
    slim.index(2).store(rounded)
    slim.index(3).store((exact - rounded.to(gl.float32)).to(DTYPE))
    n2 = part_of(gl.arange(0, 2 * N, gl.SliceLayout(1, TABLE)), N)[:, None]
    flat.index(0).store(gl.load(p_cpow + (C - 1 - o) * 2 * N + n2).to(DTYPE))
    flat.index(1).store(gl.load(p_cpow + (o + 1) * 2 * N + n2).to(DTYPE))
    ends_r = gl.allocate_shared_memory(gl.float32, [32, N], PLAIN)
    ends_i = gl.allocate_shared_memory(gl.float32, [32, N], PLAIN)
    # A chunk's step of the recurrence to the powers 1, 2, 4, 8, 16 and 0, 2 … 14
    n = gl.arange(0, N, gl.SliceLayout(0, gl.SliceLayout(0, SCAN)))
    er = gl.load(p_pow + C * 2 * N + 2 * n)[None, :]
    ei = gl.load(p_pow + C * 2 * N + 2 * n + 1)[None, :]
    g = gl.arange(0, 8, gl.SliceLayout(1, gl.SliceLayout(0, SCAN)))[:, None]
    k = g  # a table's row
    steps_r = gl.where(k == 0, er, 0.0)
    steps_i = gl.where(k == 0, ei, 0.0)
    powers_r = gl.where(g >= 0, 1.0, er)
    powers_i = gl.where(g >= 0, 0.0, ei)
    for bit in gl.static_range(4):
        er, ei = _times(er, ei, er, ei)
        steps_r = gl.where(k == bit + 1, er, steps_r)
        steps_i = gl.where(k == bit + 1, ei, steps_i)
        if bit < 3:
            more_r, more_i = _times(powers_r, powers_i, er, ei)
            powers_r = gl.where((g >> bit) & 1 != 0, more_r, powers_r)
            powers_i = gl.where((g >> bit) & 1 != 0, more_i, powers_i)
    step_r = gl.allocate_shared_memory(gl.float32, [8, N], PLAIN, steps_r)
    step_i = gl.allocate_shared_memory(gl.float32, [8, N], PLAIN, steps_i)
    power_r = gl.allocate_shared_memory(gl.float32, [8, N], PLAIN, powers_r)
    power_i = gl.allocate_shared_memory(gl.float32, [8, N], PLAIN, powers_i)
    fence_async_shared()
    gl.thread_barrier()
    dT = gl.zeros([C, C], gl.float32, WIDE)
    dO = gl.zeros([C, 2 * N], gl.float32, SLIM)
    dG = gl.zeros([C, 2 * N], gl.float32, SLIM)
    zr = gl.zeros([4, 8, N], gl.float32, SCAN)
    zi = gl.zeros([4, 8, N], gl.float32, SCAN)
    adjoint_r = gl.zeros([1, 1, N], gl.float32, SCAN)
    adjoint_i = gl.zeros([1, 1, N], gl.float32, SCAN)
    pair = gl.expand_dims(gl.expand_dims(gl.arange(0, 8, gl.SliceLayout(0, gl.SliceLayout(2, SCAN))), 0), 2)
    warp = gl.expand_dims(gl.expand_dims(gl.arange(0, 4, gl.SliceLayout(1, gl.SliceLayout(2, SCAN))), 1), 2)
    # Rows are chunks from a tile's last to its first
    at = (R - 1 - gl.arange(0, R, gl.SliceLayout(1, TOKENS)).to(gl.int64))[:, None] * C
    at = at + gl.arange(0, C, gl.SliceLayout(0, TOKENS)).to(gl.int64)[None, :]
    state_at = (R - 1 - gl.arange(0, R, gl.SliceLayout(1, STATES)).to(gl.int64))[:, None] * 2 * N
    state_at = state_at + gl.arange(0, 2 * N, gl.SliceLayout(0, STATES)).to(gl.int64)[None, :]
    steps = (B - gl.program_id(1) + gl.num_programs(1) - 1) // gl.num_programs(1) * tiles
    if AHEAD:
        staged_us = gl.allocate_shared_memory(DTYPE, [R, C], stage_layout())
        staged_pres = gl.allocate_shared_memory(DTYPE, [R, C], stage_layout())
        staged_dys = gl.allocate_shared_memory(DTYPE, [R, C], stage_layout())
        staged_posts = gl.allocate_shared_memory(DTYPE, [R, C], stage_layout())
        staged_states = gl.allocate_shared_memory(DTYPE, [R, 2 * N], PLAIN)
        _copy_ahead(
            staged_us, staged_pres, staged_dys, staged_posts, staged_states, p_u, p_pre, p_dy, p_post, p_kept, at, state_at,
            0, h, D, L, tiles, chunks, su_b, su_c, spre_b, spre_c, spost_b, spost_c, N, HAS_PRE, HAS_POST,
        )  # fmt: skip
    for step in range(0, steps):
        tile = tiles - 1 - step % tiles
        b64 = gl.program_id(1) + (step // tiles) * gl.num_programs(1) + 0 * h
        row = b64 * D + h
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
        start = tile * (R * C)
        here = row * L + start
        mask = None if WHOLE else at < L - start
        state_mask = None if WHOLE else state_at < (chunks - tile * R) * 2 * N
        if AHEAD:
            async_copy.wait_group(0)
            u = staged_us.load(TOKENS)
            x = u
            if HAS_PRE:
                pre = staged_pres.load(TOKENS)
                x = _gate(u, pre, DTYPE)
            dy = staged_dys.load(TOKENS)
            dz = dy
            if HAS_POST:
                dz = _gate(dy, staged_posts.load(TOKENS), DTYPE)
            before = staged_states.load(STATES)
        else:
            u = gl.load(p_u + (b64 * su_b + h * su_c + start) + at, mask=mask, other=None if WHOLE else 0.0)
            x = u
            if HAS_PRE:
                pre = gl.load(p_pre + (b64 * spre_b + h * spre_c + start) + at, mask=mask, other=None if WHOLE else 0.0)
                x = _gate(u, pre, DTYPE)
            dy = gl.load(p_dy + here + at, mask=mask, other=None if WHOLE else 0.0)
            dz = dy
            if HAS_POST:
                p_here = p_post + (b64 * spost_b + h * spost_c + start)
                dz = _gate(dy, gl.load(p_here + at, mask=mask, other=None if WHOLE else 0.0), DTYPE)
            p_here = p_kept + (row * chunks + tile * R) * 2 * N
            before = gl.load(p_here + state_at, mask=state_mask, other=None if WHOLE else 0.0)
        xs.store(from_tokens(x, WIDE))
        zs.store(from_tokens(dz, WIDE))
        by_column = gl.permute(gl.reshape(before, (4, 8, 2, 4, N // 4, 2)), (0, 2, 1, 4, 3, 5))
        befores.store(gl.convert_layout(gl.reshape(by_column, (R, 2 * N)), SLIM))
        fence_async_shared()
        gl.thread_barrier()
        if AHEAD:
            following = gl.minimum(step + 1, steps - 1)
            _copy_ahead(
                staged_us, staged_pres, staged_dys, staged_posts, staged_states, p_u, p_pre, p_dy, p_post, p_kept, at,
                state_at, following, h, D, L, tiles, chunks, su_b, su_c, spre_b, spre_c, spost_b, spost_c, N,
                HAS_PRE, HAS_POST,
            )  # fmt: skip
        q = warpgroup_mma(zs, Q, gl.zeros([R, 2 * N], gl.float32, SLIM), use_acc=False, is_async=True)
        q = warpgroup_mma(zs, Q_rest, q, is_async=True)
        if HAS_POST:
            y = warpgroup_mma(befores, O, gl.zeros([R, C], gl.float32, WIDE), use_acc=False, is_async=True)
            y = warpgroup_mma(xs, T, y, is_async=True)
            q, y = warpgroup_mma_wait(0, deps=[q, y])
            y = by_token(y) * dy.to(gl.float32)
            gl.store(p_dpost + here + at, y.to(DTYPE), mask=mask)
        else:
            q = warpgroup_mma_wait(0, deps=[q])
        dT = warpgroup_mma(xs.permute((1, 0)), zs, dT, is_async=True)
        dO = warpgroup_mma(zs.permute((1, 0)), befores, dO, is_async=True)
        # Adjoint states after each chunk: within pairs of chunks, within warps, from warp to warp
        pairs = gl.permute(gl.reshape(q, (4, 2, 8, N // 4, 4, 2)), (0, 2, 4, 3, 1, 5))
        q0r, q0i, q1r, q1i = split_pairs(gl.reshape(pairs, (4, 8, N, 2, 2)), N)
        fr = _row(step_r, 0, N)
        fi = _row(step_i, 0, N)
        tr, ti = _plus(q1r, q1i, fr, fi, q0r, q0i)
        for bit in gl.static_range(3):
            fr = _row(step_r, bit + 1, N)
            fi = _row(step_i, bit + 1, N)
            far = pair >= (1 << bit)
            tr, ti = _plus(tr, ti, fr, fi, _up(tr, far, 1 << bit), _up(ti, far, 1 << bit))
        ends_r.store(gl.reshape(tr, (32, N)))
        ends_i.store(gl.reshape(ti, (32, N)))
        tr = _up(tr, pair >= 1, 1)
        ti = _up(ti, pair >= 1, 1)
        adjoint_r = gl.where(tile == tiles - 1, 0.0, adjoint_r)
        adjoint_i = gl.where(tile == tiles - 1, 0.0, adjoint_i)
        into_r = adjoint_r
        into_i = adjoint_i
        fr = _row(step_r, 4, N)
        fi = _row(step_i, 4, N)
        gl.thread_barrier()
        for w in gl.static_range(4):
            end_r, end_i = _row(ends_r, 8 * w + 7, N), _row(ends_i, 8 * w + 7, N)
            adjoint_r, adjoint_i = _plus(end_r, end_i, fr, fi, adjoint_r, adjoint_i)
            if w < 3:
                into_r = gl.where(warp > w, adjoint_r, into_r)
                into_i = gl.where(warp > w, adjoint_i, into_i)
        fr = gl.expand_dims(power_r.load(gl.SliceLayout(0, SCAN)), 0)
        fi = gl.expand_dims(power_i.load(gl.SliceLayout(0, SCAN)), 0)
        a0r, a0i = _plus(tr, ti, fr, fi, into_r, into_i)
        a1r, a1i = _plus(q0r, q0i, _row(step_r, 0, N), _row(step_i, 0, N), a0r, a0i)
        # What they give
        after = gl.join(gl.join(a0r, a1r), gl.join(a0i, a1i))  # [4, 8, N, chunk of the pair, part]
        after = gl.permute(gl.reshape(after, (4, 8, 4, N // 4, 2, 2)), (0, 4, 1, 3, 2, 5))
        afters.store(gl.convert_layout(gl.reshape(after, (R, 2 * N)).to(DTYPE), SLIM))
        fence_async_shared()
        gl.thread_barrier()
        dv = warpgroup_mma(afters, H, gl.zeros([R, C], gl.float32, WIDE), use_acc=False, is_async=True)
        dv = warpgroup_mma(zs, T.permute((1, 0)), dv, is_async=True)
        dG = warpgroup_mma(xs.permute((1, 0)), afters, dG, is_async=True)
        states = gl.permute(gl.reshape(before.to(gl.float32), (4, 8, 2, N, 2)), (0, 1, 3, 2, 4))
        s0r, s0i, s1r, s1i = split_pairs(states, N)
        zr, zi = _plus(zr, zi, a0r, a0i, s0r, s0i)
        zr, zi = _plus(zr, zi, a1r, a1i, s1r, s1i)
        dv, dT, dO = warpgroup_mma_wait(1, deps=[dv, dT, dO])
        dv = by_token(dv)
        if HAS_PRE:
            gl.store(p_dpre + here + at, (dv * u.to(gl.float32)).to(DTYPE), mask=mask)
            dv *= pre.to(gl.float32)
        gl.store(p_du + here + at, dv.to(DTYPE), mask=mask)
        if HAS_STATE:  # the last tile's stays
            p_end = p_dstate + row * 2 * N
            m = gl.expand_dims(gl.expand_dims(n, 0), 0)
            gl.store(p_end + 2 * m, adjoint_r)
            gl.store(p_end + 2 * m + 1, adjoint_i)
        dG = warpgroup_mma_wait(0, deps=[dG])
        gl.thread_barrier()  # all warps' products have read what the next tile overwrites
    if AHEAD:
        async_copy.wait_group(0)
    part = h * gl.num_programs(1) + gl.program_id(1)
    # Diagonals of dT by tokens
    GATHER: gl.constexpr = gl.BlockedLayout([1, 2], [1, 32], [4, 1], [1, 0])
    dT = gl.permute(gl.reshape(dT, (2, 4, 4, 2, 2, 4, 4, 2)), (0, 2, 1, 3, 4, 6, 5, 7))
    dT = gl.convert_layout(gl.reshape(dT, (C, C)), GATHER)
    i = gl.arange(0, C, gl.SliceLayout(1, GATHER))[:, None]
    d = gl.arange(0, C, gl.SliceLayout(0, GATHER))[None, :]
    turned = gl.gather(dT, (i + d) % C, axis=1)
    taps = gl.sum(gl.where(i + d < C, turned, 0.0), axis=0)
    gl.store(p_dk + part * C + gl.arange(0, C, gl.SliceLayout(0, GATHER)), taps)
    # The poles' and residues' factors
    i = gl.arange(0, C, gl.SliceLayout(1, MODES))[:, None]
    n = gl.arange(0, N, gl.SliceLayout(0, MODES))[None, :]
    rising = i.to(gl.float32)
    dO = gl.permute(gl.reshape(dO, (2, 4, 4, 2, N // 4, 4, 2)), (0, 2, 1, 3, 5, 4, 6))
    mr, mi = gl.split(gl.reshape(dO, (C, N, 2)))
    mr = gl.convert_layout(mr, MODES)
    mi = gl.convert_layout(mi, MODES)
    pr = gl.load(p_pow + (i + 1) * 2 * N + 2 * n)
    pi = gl.load(p_pow + (i + 1) * 2 * N + 2 * n + 1)
    wr, wi = _weighted(mr, mi, pr, pi, 1.0)
    vr, vi = _weighted(mr, mi, pr, pi, 1.0 + rising)
    dG = gl.permute(gl.reshape(dG, (2, 4, 4, 2, N // 4, 4, 2)), (0, 2, 1, 3, 5, 4, 6))
    mr, mi = gl.split(gl.reshape(dG, (C, N, 2)))
    mr = gl.convert_layout(mr, MODES)
    mi = gl.convert_layout(mi, MODES)
    pr = gl.load(p_pow + (C - 1 - i) * 2 * N + 2 * n)
    pi = gl.load(p_pow + (C - 1 - i) * 2 * N + 2 * n + 1)
    gr, gi = _weighted(mr, mi, pr, pi, C - 1 - rising)
    vr += gr
    vi += gi
    zr = gl.convert_layout(gl.sum(gl.sum(zr, axis=0), axis=0), gl.SliceLayout(0, MODES))
    zi = gl.convert_layout(gl.sum(gl.sum(zi, axis=0), axis=0), gl.SliceLayout(0, MODES))
    n = gl.arange(0, N, gl.SliceLayout(0, MODES))
    zr, zi = _times(gl.load(p_pow + C * 2 * N + 2 * n), gl.load(p_pow + C * 2 * N + 2 * n + 1), zr, zi)
    p_dmode += part * 4 * N
    gl.store(p_dmode + 2 * n, wr)
    gl.store(p_dmode + 2 * n + 1, wi)
    gl.store(p_dmode + 2 * N + 2 * n, vr + C * zr)
    gl.store(p_dmode + 2 * N + 2 * n + 1, vi + C * zi)
