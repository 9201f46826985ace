"""What `python -m kernels.check` runs of the norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from kernels.norm import add_layer_norm, add_rms_norm, layer_norm, reference, rms_norm
from kernels.verification import Case

_KINDS: dict[str, tuple[Callable[..., Any], bool, bool]] = {
    # name: (function, centred, with the addition before it)
    "rms_norm": (rms_norm, False, False),
    "add_rms_norm": (add_rms_norm, False, True),
    "layer_norm": (layer_norm, True, False),
    "add_layer_norm": (add_layer_norm, True, True),
}


def case(kind: str, shape: tuple[int, ...], dtype: torch.dtype, scale: float = 1.0, wide_residual: bool = False) -> Case:
    """A norm of normal rows, with every argument that it takes. wide_residual: the residual stays float32."""
    function, centred, adds = _KINDS[kind]
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    arguments: dict[str, Any] = {"x": scale * normal(*shape) + 0.5 * scale, "weight": 1 + 0.5 * normal(shape[-1])}
    arguments |= {"residual": scale * normal(*shape), "x_bias": scale * normal(shape[-1])} if adds else {}
    arguments |= {"bias": normal(shape[-1])} if centred else {}

    def exact(x: Tensor, weight: Tensor, residual: Any = None, x_bias: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
        y, total = reference.norm(x, residual, x_bias, weight, bias, eps, centred, x.dtype)
        return (y, total) if adds else y

    name = f"{kind} {' x '.join(map(str, shape))}" + (f", scale {scale:g}" if scale != 1 else "")
    keep = ("residual",) if wide_residual else ()
    return Case("norm", name + (", float32 residual" if keep else ""), function, exact, arguments, dtype, keep_float32=keep)


def cases() -> Iterator[Case]:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for kind in _KINDS:
            yield case(kind, (2, 501, 2048), dtype)
        for width in (1, 63, 768, 1024, 4096, 5000, 8192, 9000):
            yield case("add_layer_norm", (257, width), dtype)
    yield case("add_layer_norm", (2, 1024, 768), torch.bfloat16, wide_residual=True)
    yield case("add_rms_norm", (511, 2048), torch.bfloat16, scale=1e4)
    yield case("rms_norm", (511, 2048), torch.bfloat16, scale=0.0)
