"""Kernels are tested on a GPU where there is one, and in Triton's interpreter otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

_INTERPRET = not torch.cuda.is_available()

with pytest.MonkeyPatch.context() as patch:
    if _INTERPRET:  # Triton's own library is made for the interpreter, or not, when it is imported
        patch.setenv("TRITON_INTERPRET", "1")
    pytest.importorskip("triton.language")


@pytest.fixture(autouse=True)
def _kernels_run_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    if _INTERPRET:
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def device() -> str:
    """Where the Triton kernels run: the GPU, or the CPU through the interpreter."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def reference_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU tensors take the reference, as they do for users."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture(autouse=True)
def _fresh_memory_holds_nan() -> Iterator[None]:
    """A kernel that does not write all of its output gives NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def compile_gate() -> Callable[..., list[dict[str, Any]]]:
    """Compile an operator's shipped configurations for sm_90 in a process of its own; fails with every broken promise."""

    def gate(*operators: str) -> list[dict[str, Any]]:
        script = Path(__file__).with_name("compile_gate.py")
        done = subprocess.run([sys.executable, str(script), *operators], capture_output=True, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        broken = [f"{line['operator']} {line['configuration']}: {what}" for line in lines for what in line["broken"]]
        assert not broken, "\n".join(broken)
        assert done.returncode == 0, done.stderr[-2000:]
        assert lines, "nothing is shipped"
        return lines

    return gate
