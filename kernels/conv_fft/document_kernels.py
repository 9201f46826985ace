"""What the kernels for documents promise of their compiled forms, bfloat16."""

# Triton's decorators hide from type checkers what a kernel is.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from kernels.configurations import Configuration
from kernels.conv_fft.launch_blocks import STAGES, TILE, block_options, block_plan
from kernels.conv_fft.launch_fused import options
from kernels.conv_fft.launch_short import LONGEST
from kernels.conv_fft.launch_short import TILE as SHORT_TILE
from kernels.conv_fft.launch_short import options as short_options
from kernels.conv_fft.rows import BLOCKS, length_classes
from kernels.conv_fft.transforms import BACKWARD, DOCUMENTS, Plan
from kernels.conv_fft.triton_blocks import (
    block_filter_gradient_kernel,
    block_items_kernel,
    block_product_kernel,
    block_spectra_kernel,
)
from kernels.conv_fft.triton_filter_tiles import tile_gradient_kernel, tile_spectrum_kernel
from kernels.conv_fft.triton_fused import fused_bwd_kernel, fused_fwd_kernel
from kernels.conv_fft.triton_short import short_bwd_kernel, short_fwd_kernel, short_taps_kernel
from kernels.conv_fft.triton_table import count_kernel, place_kernel, zero_tails_kernel
from kernels.triton_support import TRITON_TYPES

# Bytes of registers that a thread may spill, by (kernel, factors), or samples and one for short rows.
SPILLS: dict[tuple[str, int, int], int] = {
    ("short forward documents", 256, 1): 64,
    ("short backward", 256, 1): 32,
    ("short backward documents", 256, 1): 144,
    ("fused forward", 64, 32): 8,
    ("fused backward", 64, 32): 312,
    ("fused backward", 128, 32): 56,
    ("fused backward", 128, 64): 920,
    ("filter spectrum exact", 64, 64): 144,
    ("filter gradient exact", 64, 64): 112,
}
_POINTERS = (
    dict.fromkeys(("U", "PRE", "POST", "Y", "DY", "DU", "DPRE", "DPOST", "A", "OUT_A", "B", "OUT_B"), "*bf16")
    | dict.fromkeys(("F1R", "F1I", "F2R", "F2I", "G1", "G2", "SHIFTS"), "*fp16")
    | dict.fromkeys(("K", "T", "SHIFT", "LENGTH", "COUNT", "Z", "ZX", "ZG", "STARTS", "BOUNDS", "ITEMS", "STEPS"), "*i32")
    | dict.fromkeys(("K_SCALE", "Z_SCALE", "X_SCALE", "G_SCALE", "DK", "SUMS", "TAPS", "DTAPS", "COS", "SIN"), "*fp32")
    | {"FIRST": "*i64", "REVERSE": "*fp32"}
)
_NUMBERS = (
    *("WHICH", "row_length", "first_channel", "channels", "slots", "blocks", "each", "parts", "limit"),
    *("taps", "reverse_taps"),
)
_SIGNATURE = _POINTERS | dict.fromkeys(_NUMBERS, "i32")
_COMMON = {"FULL": False, "FRAMED": True, "ALIGN": 8, "TYPE": TRITON_TYPES[torch.bfloat16]}
_GATED = {"HAS_PRE": True, "HAS_POST": True, "HAS_A": True}


def document_configurations() -> Iterator[Configuration]:
    """The kernels that only documents take, and those of rows in frames, which are others' with more masks."""
    classes = len(length_classes(1 << 16, False))
    table = _SIGNATURE | {"PARTS": "*i32", "tokens": "i32", "length": "i32"}
    constants = {"BLOCK": 1024, "CLASSES": classes, "ALIGNED": True}
    yield Configuration("count documents", count_kernel, table, constants)
    yield Configuration("place documents", place_kernel, table, constants)
    constants = {"ROWS": 1024, "BLOCK": 1024}
    yield Configuration("zero tails", zero_tails_kernel, table | {"OUT": "*bf16"}, constants)
    yield from _fused()
    yield from short_configurations(False)
    for _, _, block in BLOCKS:
        yield from _blocks(block)
    for n1, n2 in ((64, 16), (64, 32), (64, 64), (128, 32), (128, 64)):
        for exact in (False, True)[: 1 + (n1 == 64)]:
            constants = {"N1": n1, "N2": n2, "C2": n2, "EXACT": exact}
            for name, kernel in (("filter spectrum", tile_spectrum_kernel), ("filter gradient", tile_gradient_kernel)):
                name += " exact" * exact
                allowed = SPILLS.get((name, n1, n2), 0)
                label = f"{name} in tiles {n1} x {n2}"
                yield Configuration(label, kernel, _SIGNATURE, constants, n1 // 16, spills=allowed, wgmma=True)


def _fused() -> Iterator[Configuration]:
    for points in (1024, 2048, 4096, 8192):
        for name, kernel, factors in (
            ("fused forward", fused_fwd_kernel, DOCUMENTS[points]),
            ("fused backward", fused_bwd_kernel, BACKWARD[points]),
        ):
            p = Plan(points, 1, points, factors, factors[1], 0.0)
            yield _configuration(f"{name} documents {points}", (name, *factors), kernel, _COMMON | _GATED, options(name, p))


def short_configurations(full: bool) -> Iterator[Configuration]:
    """The kernels for causal rows of up to 256 samples: whole tiles of whole rows, or rows in frames."""
    kind = "" if full else " documents"
    constants = _GATED | {"FULL": full, "FRAMED": not full, "ALIGN": 8, "TYPE": _COMMON["TYPE"]}
    for name, kernel in (("short forward", short_fwd_kernel), ("short backward", short_bwd_kernel)):
        launch = short_options(name, LONGEST)
        key = (name + kind, LONGEST, 1)
        yield _configuration(f"{name}{kind} {LONGEST}", key, kernel, constants, launch)
    if full:
        sums = _SIGNATURE | {"parts": "i32"}
        yield Configuration("short taps", short_taps_kernel, sums, {"N": LONGEST, "TILE": SHORT_TILE}, 1)


def _blocks(block: int) -> Iterator[Configuration]:
    p = block_plan(block)
    yield Configuration(f"block items {block}", block_items_kernel, _SIGNATURE, {"N": block, "ROWS": 256})
    for name, kernel, more in (
        ("block spectra", block_spectra_kernel, {}),
        ("block product", block_product_kernel, {"CONJUGATE": False, "HAS_B": False, "B": None, "OUT_B": None}),
        ("block product transposed", block_product_kernel, {"CONJUGATE": True, "HAS_B": True}),
    ):
        key = name.removesuffix(" transposed")
        constants = _COMMON | _GATED | {"TERMS": 16} | more
        yield _configuration(f"{name} {block}", (key, *p.factors), kernel, constants, block_options(key, p))
    constants = {"POINTS": block, "TILE": min(TILE, block), "STAGES": STAGES}
    yield Configuration(f"block filter gradient {block}", block_filter_gradient_kernel, _SIGNATURE, constants)


def _configuration(
    name: str, key: tuple[str, int, int], kernel: Any, constants: dict[str, Any], launch: dict[str, Any]
) -> Configuration:
    warps, stages, limit = launch.pop("num_warps"), launch.pop("num_stages"), launch.pop("maxnreg", None)
    constants = {n: v for n, v in (constants | launch).items() if n in kernel.arg_names}
    options = {"maxnreg": limit} if limit else {}
    return Configuration(name, kernel, _SIGNATURE, constants, warps, stages, SPILLS.get(key, 0), True, options=options)
