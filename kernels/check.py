"""Verify every operator on this machine: `python -m kernels.check [OPERATOR…] [--device cuda|cpu]`.

Each case runs forward and backward, twice, and is compared with the reference in float64; the table gives the largest
relative error and its limit. Exits with 1 if any case fails.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import torch

from kernels.verification import Case, verify


def operators() -> list[str]:
    """The operators that have cases, by name."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/cases.py"))


def cases(operator: str) -> Iterator[Case]:
    """What an operator is checked with: `kernels/<operator>/cases.py` has `cases() -> Iterator[Case]`, for a real device."""
    return import_module(f"kernels.{operator}.cases").cases()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kernels.check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "operators", nargs="*", metavar="OPERATOR", help=f"which to check; all by default: {', '.join(operators())}"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.operators) - set(operators()))
    if unknown:
        parser.error(f"no operator is called {', '.join(unknown)}; there are {', '.join(operators())}")
    where = (
        torch.cuda.get_device_name()
        if options.device.startswith("cuda")
        else "the CPU: the reference, or the interpreter with TRITON_INTERPRET=1"
    )
    print(f"torch {torch.__version__} on {where}")
    print(f"{'operator':22} {'case':44} {'dtype':9} {'error':>9} {'limit':>9} {'worst':12} {'s':>6}")
    failed = total = 0
    for operator in options.operators or operators():
        for case in cases(operator):
            begun, total = time.perf_counter(), total + 1
            label = f"{case.operator:22} {case.name:44} {str(case.dtype).removeprefix('torch.'):9}"
            try:
                report = verify(case, options.device)
            except Exception as error:  # one operator that crashes must not hide the others
                failed += 1
                print(f"{label} FAILED {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
                traceback.print_exc(file=sys.stderr)
                continue
            worst = max(report.errors, key=lambda name: report.errors[name] / report.limits[name])
            print(
                f"{label} {report.errors[worst]:9.1e} {report.limits[worst]:9.1e} {worst:12} {time.perf_counter() - begun:6.2f}"
                + ("" if not report.failures else f"  FAILED {'; '.join(report.failures)}")
            )
            failed += bool(report.failures)
    print(f"{total - failed} of {total} cases are right" + (f"; {failed} FAILED" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
