"""What `python -m kernels.check monarch` runs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kernels.monarch import block_diagonal, block_diagonal_glu, monarch, reference
from kernels.verification import Case


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def product_case(name: str, tokens: int, blocks: int, rows: int, columns: int, dtype: torch.dtype) -> Case:
    arguments = {"x": _random(3, tokens, blocks * columns), "weight": _random(blocks, rows, columns) / columns**0.5}
    return Case("monarch", f"block-diagonal, {name}", block_diagonal, reference.block_diagonal, arguments, dtype)


def monarch_case(name: str, tokens: int, first: tuple[int, int, int], second: tuple[int, int, int], dtype: torch.dtype) -> Case:
    arguments = {
        "x": _random(tokens, first[0] * first[2]),
        "first": _random(*first) / first[2] ** 0.5,
        "second": _random(*second) / second[2] ** 0.5,
    }
    return Case("monarch", f"monarch, {name}", monarch, reference.monarch, arguments, dtype)


def glu_case(name: str, tokens: int, blocks: int, rows: int, columns: int, activation: str, dtype: torch.dtype) -> Case:
    weights = {w: _random(blocks, rows + i, columns)[:, :rows] / columns**0.5 for i, w in enumerate(("gate", "value"))}
    arguments = {"x": _random(tokens, blocks * columns), **weights, "activation": activation}
    return Case("monarch", f"GLU {activation}, {name}", block_diagonal_glu, reference.block_diagonal_glu, arguments, dtype)


def cases() -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        yield product_case("4 blocks", 700, 4, 192, 256, dtype)
        yield monarch_case("32 x 32", 1000, (32, 32, 32), (32, 32, 32), dtype)
        yield glu_case("4 blocks", 1000, 4, 512, 192, "gelu", dtype)
    for columns in (64, 128, 256, 320):
        yield glu_case(f"{columns} columns", 200 + columns, 2, 192, columns, "gelu", torch.bfloat16)
        yield glu_case(f"{columns} columns", 200 + columns, 3, 256, columns, "silu", torch.float16)
    yield product_case("wide", 300, 2, 384, 512, torch.bfloat16)
    yield product_case("odd sizes", 61, 3, 37, 45, torch.bfloat16)
    yield monarch_case("odd sizes", 99, (4, 30, 17), (6, 11, 20), torch.bfloat16)
    yield glu_case("odd sizes", 77, 3, 50, 33, "silu", torch.bfloat16)
    yield glu_case("one token", 1, 2, 64, 64, "sigmoid", torch.bfloat16)
