"""Which thread has what in the modal scan's kernel for Hopper, and the way from a product's order to a sequence's and back.

Of a product's result, [64, columns] on four warps, a thread has two rows 8 apart and pairs of columns 8 apart. Which row is
which chunk, and which column which token or part of a mode, is free as long as all products agree. Here a thread's two rows are
neighbouring chunks, and its columns runs of tokens, or neighbouring modes: bits of their numbers (w of a warp, g and q of a
thread, b, j and e of a register) are

    row     w1 w0 b g2 g1 g0    chunk, from the tile's last   w1 w0 g2 g1 g0 b
    column  j2 j1 j0 q1 q0 e    token of the chunk            j2 q1 q0 j1 j0 e
                                part of a mode                q1 q0 j.. e

so that whole vectors go from memory to registers and back, and no element from one thread to another.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.constexpr_function
def tokens_layout():
    """[64 chunks, 64 tokens]: two runs of 8 tokens in each of two chunks."""
    return gl.DistributedLinearLayout(
        [[0, 1], [0, 2], [0, 4], [0, 32], [1, 0]],
        [[0, 8], [0, 16], [2, 0], [4, 0], [8, 0]],
        [[16, 0], [32, 0]],
        [],
        [64, 64],
    )


@gluon.constexpr_function
def states_layout(N):
    """[64 chunks, 2N parts of modes]: N / 4 modes in each of two chunks."""
    registers = [[0, 1 << k] for k in range(N.bit_length() - 2)]
    lanes = [[0, N // 2], [0, N], [2, 0], [4, 0], [8, 0]]
    return gl.DistributedLinearLayout([*registers, [1, 0]], lanes, [[16, 0], [32, 0]], [], [64, 2 * N])


@gluon.constexpr_function
def scan_layout(N):
    """[4 warps, 8 pairs of chunks, N modes]: N / 4 modes."""
    registers = [[0, 0, 1 << k] for k in range(N.bit_length() - 3)]
    lanes = [[0, 0, N // 4], [0, 0, N // 2], [0, 1, 0], [0, 2, 0], [0, 4, 0]]
    return gl.DistributedLinearLayout(registers, lanes, [[1, 0, 0], [2, 0, 0]], [], [4, 8, N])


@gluon.constexpr_function
def stage_layout():
    """Shared [64 chunks, 64 tokens]: every other pair of chunks with its halves swapped: threads read from different banks."""
    return gl.SharedLinearLayout([*([0, 1 << k] for k in range(6)), [1, 0], [2, 32], *([1 << k, 0] for k in range(2, 6))])


@gluon.jit
def token_of(c):
    """Of a product's column: its token."""
    return (c & 1) | ((c >> 2) & 6) | ((c << 2) & 24) | (c & 32)


@gluon.jit
def part_of(c, N: gl.constexpr):
    """Of a product's column: its mode's part, 2n for the real, 2n + 1 for the imaginary one."""
    return (c & 1) | ((c >> 3) << 1) | (((c >> 1) & 3) * (N // 2))


@gluon.jit
def by_token(x):
    """A product's result [64, 64] by chunks and tokens."""
    x = gl.permute(gl.reshape(x, (4, 2, 8, 2, 4, 4, 2)), (0, 2, 1, 3, 5, 4, 6))
    return gl.convert_layout(gl.reshape(x, (64, 64)), tokens_layout())


@gluon.jit
def from_tokens(x, layout: gl.constexpr):
    """The other way: as a product's operand."""
    x = gl.permute(gl.reshape(x, (4, 8, 2, 2, 4, 4, 2)), (0, 2, 1, 3, 5, 4, 6))
    return gl.convert_layout(gl.reshape(x, (64, 64)), layout)


@gluon.jit
def split_pairs(x, N: gl.constexpr):
    """[4, 8, N, chunk of the pair, part] -> real and imaginary parts of the first chunk, of the second."""
    layout: gl.constexpr = scan_layout(N)
    real, imaginary = gl.split(x)
    r0, r1 = gl.split(real)
    i0, i1 = gl.split(imaginary)
    r0 = gl.convert_layout(r0, layout)
    i0 = gl.convert_layout(i0, layout)
    r1 = gl.convert_layout(r1, layout)
    i1 = gl.convert_layout(i1, layout)
    return r0, i0, r1, i1
