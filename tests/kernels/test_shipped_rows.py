"""The row-wise operators compile for sm_90 as they promise: no spills beyond their allowance."""

from __future__ import annotations

from collections.abc import Callable


def test_every_shipped_configuration_compiles(compile_gate: Callable[..., object]) -> None:
    compile_gate("norm", "rope", "swiglu", "gelu", "linear_cross_entropy")
