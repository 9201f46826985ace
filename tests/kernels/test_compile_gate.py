"""The convolutions' kernels compile for sm_90 as they promise: no spills, warpgroup products, shared memory within an SM's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kernels.configurations import Configuration


@pytest.mark.parametrize("operator", ["conv_fir", "conv_toeplitz", "conv_modal"])
def test_what_is_shipped_compiles_as_promised(operator: str, compile_gate: Callable[..., list[dict[str, Any]]]) -> None:
    compile_gate(operator)


def test_a_broken_promise_is_told() -> None:
    facts = {"registers": 255, "spills": 100, "shared": 300_000, "wgmma": 0, "mma": 8, "warp_specialized": False}
    promised = Configuration("x", None, {}, {}, spills=8, wgmma=True, warp_specialized=True)
    wrong = "; ".join(promised.broken_promises(facts))
    assert "spills 100 bytes per thread, allowed 8" in wrong
    assert "300000 bytes of shared memory" in wrong
    assert "uses no wgmma" in wrong
    assert "is not warp-specialised" in wrong
    assert not Configuration("x", None, {}, {}).broken_promises({**facts, "spills": 0, "shared": 1024})
