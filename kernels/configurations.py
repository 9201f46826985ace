"""What a kernel promises of its compiled form. Tests compile each configuration that is shipped, without a GPU.

An operator's `triton.py` has `shipped() -> Iterator[Configuration]`; what is not in it is not launched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Shared memory that one program may use on sm_90, in bytes.
SHARED_MEMORY = 227 * 1024


@dataclass(frozen=True)
class Configuration:
    """One kernel with the constants and options that it is launched with, and what the compiler may make of it.

    signature: Triton types of the arguments that are no constants: "*bf16", "*fp32", "i32", "fp32", "tensordesc<bf16[64, 64]>".
    spills: bytes per thread that ptxas may spill. wgmma: whether the tensor cores must be reached by warpgroup instructions.
    warp_specialized: whether the compiler must split the program into producers and consumers.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 2
    spills: int = 0
    wgmma: bool = False
    warp_specialized: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    aligned: bool = True  # pointers and sizes are multiples of 16, as those of torch's tensors of round sizes are

    def broken_promises(self, facts: Mapping[str, Any]) -> list[str]:
        """A line for each promise that the compiled kernel breaks. facts: spills, shared (bytes), wgmma, warp_specialized."""
        wrong = []
        if facts["spills"] > self.spills:
            wrong.append(f"spills {facts['spills']} bytes per thread, allowed {self.spills}")
        if facts["shared"] > SHARED_MEMORY:
            wrong.append(f"uses {facts['shared']} bytes of shared memory, an SM has {SHARED_MEMORY}")
        if self.wgmma and not facts["wgmma"]:
            wrong.append("uses no wgmma")
        if self.warp_specialized and not facts["warp_specialized"]:
            wrong.append("is not warp-specialised")
        return wrong
