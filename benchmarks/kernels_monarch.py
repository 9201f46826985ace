"""Block-diagonal and Monarch products in bfloat16 against torch's einsum, and the GLU against it compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kernels.monarch import block_diagonal, block_diagonal_glu, monarch, reference

if TYPE_CHECKING:
    from kernels_bench import Bench, Row

TOKENS = 32768


def _random(*shape: int) -> Tensor:
    return (torch.randn(*shape, device="cuda") / shape[-1] ** 0.5).to(torch.bfloat16).requires_grad_()


def glu(x: Tensor, gate: Tensor, value: Tensor) -> Tensor:
    return torch.nn.functional.gelu(reference.block_diagonal(x, gate)) * reference.block_diagonal(x, value)


def rows(bench: Bench) -> Iterator[Row]:
    from kernels_bench import Row

    compiled = torch.compile(glu, dynamic=False)  # kernels for any sizes, made for the second shape, take 2.6 times as long
    for name, width, hidden, blocks in (("Monarch Mixer BERT", 768, 3072, 4), ("wide", 2048, 8192, 4)):
        x, gate, value = _random(TOKENS, width), *(_random(blocks, hidden // blocks, width // blocks) for _ in range(2))
        operations = 2 * TOKENS * width * hidden // blocks
        shape = f"{name}: {TOKENS} tokens, {width} to {hidden}, {blocks} blocks"
        yield from _both(
            bench, Row, f"block-diagonal, {shape}", block_diagonal, reference.block_diagonal, [x, gate], operations
        )
        yield from _both(bench, Row, f"GLU, {shape}", block_diagonal_glu, compiled, [x, gate, value], 2 * operations)
    for width, blocks in ((1024, 32), (4096, 64)):
        weights = [_random(blocks, width // blocks, width // blocks) for _ in range(2)]
        operations = 4 * TOKENS * width * width // blocks
        shape = f"Monarch, {TOKENS} tokens, {width}, {blocks} blocks"
        yield from _both(bench, Row, shape, monarch, reference.monarch, [_random(TOKENS, width), *weights], operations)


def _both(bench, row, shape, work, peer, arguments, operations):
    """Forward, and forward and backward, of a product and its peer."""
    moved = sum(2 * t.numel() for t in (*arguments, work(*arguments)))
    gradient = torch.randn_like(work(*arguments))
    for direction, times in (("forward", 1), ("forward+backward", 3)):
        if times == 1:
            found = [bench.try_time(lambda f=f: f(*arguments), graph=True) for f in (work, peer)]
        else:
            found = [
                bench.try_time(lambda f=f: torch.autograd.grad(f(*arguments), arguments, gradient), graph=True)
                for f in (work, peer)
            ]
        floor = max(bench.bytes_floor(times * moved), bench.operations_floor(times * operations))
        yield row("monarch", shape, direction, floor, found[0], {"torch": found[1]})
