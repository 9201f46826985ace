"""Compile what operators ship for sm_90, without a GPU: `python tests/kernels/compile_gate.py OPERATOR…`.

Prints one JSON line for each configuration and exits with 1 if any
breaks its promise: register spills beyond its allowance, no wgmma or warp specialisation where claimed, more shared memory
than an SM gives one program. A process of its own: kernels that were imported for the interpreter cannot be compiled.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)
sys.path.insert(0, str(Path(__file__).parents[2]))

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource

from kernels.configurations import Configuration

_CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def compiled(configuration: Configuration) -> dict[str, Any]:
    """Registers, stack bytes (spills), shared memory, and which instructions are there."""
    names = configuration.kernel.arg_names
    constants = dict(configuration.constants)
    signature = {name: "constexpr" if name in constants else configuration.signature[name] for name in names}
    divisible = [["tt.divisibility", 16]]
    attributes: dict[Any, Any] = {}
    if configuration.aligned:
        attributes = {(i,): divisible for i, name in enumerate(names) if signature[name][0] in "*i" and name not in constants}
    of_language = GluonASTSource if configuration.kernel.is_gluon() else ASTSource
    source = of_language(fn=configuration.kernel, signature=signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": configuration.num_warps, "num_stages": configuration.num_stages, **configuration.options}
    result: Any = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(result.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [_CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return {
        "registers": found["REG"],
        "spills": found["STACK"] + found.get("LOCAL", 0),
        "shared": result.metadata.shared,
        "wgmma": result.asm["ptx"].count("wgmma.mma_async"),
        "mma": result.asm["ptx"].count("mma.sync"),
        "warp_specialized": "ttg.warp_specialize" in result.asm["ttgir"],
    }


def main(operators: list[str]) -> int:
    failures = 0
    for operator in operators:
        for configuration in import_module(f"kernels.{operator}.triton").shipped():
            try:
                facts = compiled(configuration)
                wrong = configuration.broken_promises(facts)
            except Exception as error:  # one configuration that does not compile must not hide the others
                facts, wrong = {}, [f"does not compile: {type(error).__name__}: {error}"]
            failures += bool(wrong)
            print(json.dumps({"operator": operator, "configuration": configuration.name, **facts, "broken": wrong}), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
