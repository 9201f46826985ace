"""Speed of the kernels on this machine's GPU: `python benchmarks/kernels.py [OPERATOR…] [--json FILE] [--repeat MS]`.

Each operator brings `benchmarks/kernels_<operator>.py` with `rows(bench) -> Iterator[Row]`. A row has the floor (bytes or
operations over what this card reaches, measured first), the time, and the peers' times in the same run. Times are medians with
the L2 cache flushed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))


@dataclass
class Row:
    """One shape, one direction. Times in ms; peers by name, None where one cannot run (then `notes` says why)."""

    operator: str
    shape: str
    direction: str  # "forward", "backward", "forward+backward"
    floor: float
    measured: float
    peers: dict[str, float | None] = field(default_factory=dict)
    notes: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def over_floor(self) -> float:
        return self.measured / self.floor

    @property
    def best_peer(self) -> tuple[str, float] | None:
        """The fastest peer and how many times our time it takes."""
        there = {name: time for name, time in self.peers.items() if time is not None}
        if not there:
            return None
        name = min(there, key=lambda peer: there[peer])
        return name, there[name] / self.measured


@dataclass
class Bench:
    """How to measure here: the card's ceilings and a timer."""

    copy: float  # bytes per ms, read and written
    gemm: float  # operations per ms, bf16
    repeat: int = 200  # ms of measuring for each time

    def time(self, work: Callable[[], Any]) -> float:
        """Median ms of the work, L2 flushed before each run."""
        from triton.testing import do_bench

        return float(do_bench(work, warmup=25, rep=self.repeat, return_mode="median"))

    def graph_time(self, work: Callable[[], Any]) -> float:
        """The same of the work replayed as one CUDA graph: of kernels so short that the host would be what is measured."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return self.time(graph.replay)

    def try_time(self, work: Callable[[], Any], graph: bool = False) -> float | None:
        """The same for a peer, which may be missing or fail: then None, and the reason on stderr."""
        try:
            return self.graph_time(work) if graph else self.time(work)
        except Exception as error:  # a peer's failure is no failure of ours
            print(f"peer failed: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
            return None

    def gradient_time(self, work: Callable[[], torch.Tensor], inputs: Iterable[torch.Tensor]) -> float:
        """Median ms of the backward pass alone of a function that returns one tensor."""
        out, wanted = work(), list(inputs)
        gradient = torch.randn_like(out)
        return self.time(lambda: torch.autograd.grad(out, wanted, gradient, retain_graph=True))

    def gradient_graph_time(self, work: Callable[[], torch.Tensor], inputs: Iterable[torch.Tensor]) -> float:
        """The same replayed as one CUDA graph, without the host's calls."""
        side, wanted = torch.cuda.Stream(), list(inputs)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # backward runs on the stream that forward ran on
            out = work()
            gradient = torch.randn_like(out)
            for _ in range(2):
                torch.autograd.grad(out, wanted, gradient, retain_graph=True)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            torch.autograd.grad(out, wanted, gradient, retain_graph=True)
        return self.time(graph.replay)

    def bytes_floor(self, count: float) -> float:
        return count / self.copy

    def operations_floor(self, count: float) -> float:
        return count / self.gemm


def copy_rate(bench: Bench) -> float:
    source = torch.randn(1 << 30, device="cuda", dtype=torch.float32)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / bench.time(lambda: target.copy_(source))


def ceilings(repeat: int) -> Bench:
    """Copy bandwidth over 4.3 GB and the rate of an 8192^3 bf16 product, measured as the rows are."""
    bench = Bench(1.0, 1.0, repeat)
    bench.copy = copy_rate(bench)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    bench.gemm = 2 * 8192**3 / bench.time(lambda: a @ b)
    return bench


def operators() -> list[str]:
    return sorted(path.stem.removeprefix("kernels_") for path in Path(__file__).parent.glob("kernels_*.py"))


def load(operator: str) -> Any:
    path = Path(__file__).with_name(f"kernels_{operator}.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def show(row: Row) -> str:
    peer = row.best_peer
    against = f"{peer[1]:6.2f}x {peer[0]}" if peer else "no peer"
    ours = f"{row.measured:9.4f} ms  floor {row.floor:9.4f}  {row.over_floor:6.2f}x"
    return f"{row.operator:14} {row.shape:44} {row.direction:17} {ours}  {against}"


# Peers that come with torch: what a user would call instead.
_OF_TORCH = ("torch", "cudnn", "flex", "sdpa", "varlen", "nn.")


def slower_than_torch(rows: Iterable[Row]) -> str:
    """One line for each row that something in torch does faster here; or one that says that there is none."""
    lines = []
    for row in rows:
        times = {n: t for n, t in row.peers.items() if t is not None and any(part in n.lower() for part in _OF_TORCH)}
        if times and (best := min(times, key=lambda name: times[name])) and times[best] < row.measured:
            lines.append(
                f"  {row.operator} {row.shape} {row.direction}: {best} takes {times[best] / row.measured:.2f} of the time"
            )
    return "\n".join(["slower than torch here:", *lines]) if lines else "no row is slower than torch here"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("operators", nargs="*", metavar="OPERATOR", help=f"all by default: {', '.join(operators())}")
    parser.add_argument("--json", type=Path, help="write the rows there, with the card and the versions")
    parser.add_argument("--repeat", type=int, default=200, help="ms of measuring for each time")
    options = parser.parse_args()
    unknown = sorted(set(options.operators) - set(operators()))
    if unknown:
        print(f"error: no operator is called {', '.join(unknown)}; there are {', '.join(operators())}", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("error: torch sees no CUDA device here; kernels can only be timed on a machine with a GPU", file=sys.stderr)
        return 2
    import triton

    sys.modules.setdefault("kernels_bench", sys.modules[__name__])  # what the operators' modules import
    bench = ceilings(options.repeat)
    print(f"{torch.cuda.get_device_name()}: copy {bench.copy / 1e9:.2f} TB/s, bf16 product {bench.gemm / 1e9:.0f} TFLOP/s")
    about = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "copy_tb_per_s": bench.copy / 1e9,
        "gemm_tflop_per_s": bench.gemm / 1e9,
    }
    rows: list[Row] = []
    for operator in options.operators or operators():
        try:
            for row in load(operator).rows(bench):
                rows.append(row)
                print(show(row), flush=True)
                if options.json:  # as far as it got: a table that is stopped keeps its rows
                    table = {"about": about, "rows": [asdict(row) | {"over_floor": row.over_floor} for row in rows]}
                    options.json.write_text(json.dumps(table, indent=1) + "\n")
        except Exception:  # one operator that fails must not hide the others
            print(f"{operator} FAILED", flush=True)
            traceback.print_exc()
    print(slower_than_torch(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
