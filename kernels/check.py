"""Verify every operator on this machine: `python -m kernels.check [OPERATOR…] [--device cuda|cpu]`.

Each case runs forward and backward, twice, and is compared with the reference in float64; the table gives the largest
relative error and its limit. An operator's cases are dealt to several processes, side by side, since most of the time goes into
compiling.
Exits with 1 if any case fails, with 2 and one line if it cannot start. `--device cpu` needs no GPU: it checks the references in
each dtype, or with TRITON_INTERPRET=1 the kernels in Triton's interpreter, which is slow.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from importlib import import_module
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import torch

from kernels.verification import Case, verify

# Processes at most: each has a context on the GPU, half a gigabyte.
_PROCESSES = 16


def operators() -> list[str]:
    """The operators that have cases, by name."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/cases.py"))


def cases(operator: str) -> Iterator[Case]:
    """What an operator is checked with: `kernels/<operator>/cases.py` has `cases() -> Iterator[Case]`, for a real device."""
    return import_module(f"kernels.{operator}.cases").cases()


# Whether a case of this process left its GPU in an error that stays.
_spoilt = False


def check(operator: str, device: str, share: int = 0, shares: int = 1) -> list[tuple[str, bool]] | None:
    """A line of the table for each of an operator's cases, and whether it is right; every `shares`-th from `share` on.

    After a case that leaves the GPU in error no other is run; None if that was before.
    """
    global _spoilt
    if _spoilt:
        return None
    lines = []
    for case in islice(cases(operator), share, None, shares):
        if _spoilt:
            lines.append((f"{case.operator:22} {case.name:44} FAILED, not run: the case before left the GPU in error", False))
            continue
        lines.append(_check(case, device))
        if not lines[-1][1] and device.startswith("cuda"):
            try:
                torch.cuda.synchronize(device)
            except Exception:
                _spoilt = True
    return lines


def _pool(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,))


def _found(future: Future[list[tuple[str, bool]] | None], *task: Any) -> list[tuple[str, bool]]:
    """What a share's task came to; once more, in a process of its own, where the first died or had been spoilt."""
    with suppress(BrokenProcessPool):
        if (lines := future.result()) is not None:
            return lines
    with suppress(BrokenProcessPool), _pool(1) as alone:
        if (lines := alone.submit(check, *task).result()) is not None:
            return lines
    return [(f"{task[0]:22} share {task[2] + 1} of {task[3]} FAILED: its process died", False)]


def _dealt(parts: list[list[tuple[str, bool]]]) -> Iterator[tuple[str, bool]]:
    """The lines of all shares of an operator in the order of its cases."""
    return (line for lines in zip_longest(*parts) for line in lines if line is not None)


def _check(case: Case, device: str) -> tuple[str, bool]:
    begun = time.perf_counter()
    label = f"{case.operator:22} {case.name:44} {str(case.dtype).removeprefix('torch.'):9}"
    try:
        report = verify(case, device)
    except Exception as error:  # one operator that crashes must not hide the others
        traceback.print_exc(file=sys.stderr)
        return f"{label} FAILED {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", False
    worst = max(report.errors, key=lambda name: report.errors[name] / report.limits[name])
    numbers = f"{report.errors[worst]:9.1e} {report.limits[worst]:9.1e} {worst:12} {time.perf_counter() - begun:6.2f}"
    return f"{label} {numbers}" + (f"  FAILED {'; '.join(report.failures)}" if report.failures else ""), not report.failures


def _cannot_start(chosen: list[str], device: str) -> str:
    """Why not, in one line; empty if it can."""
    unknown = sorted(set(chosen) - set(operators()))
    if unknown:
        return f"no operator is called {', '.join(unknown)}; there are {', '.join(operators())}"
    kind, _, index = device.partition(":")
    if kind not in ("cuda", "cpu") or (index and not index.isdigit()):
        return f"--device is {device!r}; it may be cuda, cuda:1 and so on, or cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        return (
            "torch sees no CUDA device here, so no kernel can run; on a machine with a GPU this checks them, and "
            "`--device cpu` checks the references they are compared with"
        )
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        return f"--device is {device}; the last one here is cuda:{torch.cuda.device_count() - 1}"
    return ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kernels.check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "operators", nargs="*", metavar="OPERATOR", help=f"which to check; all by default: {', '.join(operators())}"
    )
    parser.add_argument("--device", default="cuda", help="cuda (the default), cuda:1, ..., or cpu")
    options = parser.parse_args(arguments)
    wrong = _cannot_start(options.operators, options.device)
    if wrong:
        print(f"error: kernels.check: {wrong}", file=sys.stderr)
        return 2
    on_gpu = options.device.startswith("cuda")
    where = (
        torch.cuda.get_device_name(options.device)
        if on_gpu
        else "the CPU: the reference, or the interpreter with TRITON_INTERPRET=1"
    )
    print(f"torch {torch.__version__} on {where}")
    print(f"{'operator':22} {'case':44} {'dtype':9} {'error':>9} {'limit':>9} {'worst':12} {'s':>6}", flush=True)
    chosen, outcomes = options.operators or operators(), []
    processes = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _PROCESSES)
    shares = max(1, processes // 2)
    with _pool(min(len(chosen) * shares, processes)) as pool:
        tasks = [[(name, options.device, share, shares) for share in range(shares)] for name in chosen]
        futures = [[(pool.submit(check, *task), *task) for task in operator] for operator in tasks]
        for operator in futures:
            for line, right in _dealt([_found(*share) for share in operator]):
                print(line, flush=True)
                outcomes.append(right)
    failed = outcomes.count(False)
    print(f"{outcomes.count(True)} of {len(outcomes)} cases are right" + (f"; {failed} FAILED" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
