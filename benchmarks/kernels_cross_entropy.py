"""Linear cross entropy, forward and backward: against torch.compile over whole logits and Liger-Kernel; time and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from kernels.linear_cross_entropy import linear_cross_entropy

if TYPE_CHECKING:
    from kernels_bench import Bench, Row

TOKENS, WIDTH, VOCABULARY = 16384, 2048, 50304


def rows(bench: Bench) -> Iterator[Row]:
    from kernels_bench import Row

    hidden = torch.randn(TOKENS, WIDTH, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = (torch.randn(VOCABULARY, WIDTH, device="cuda") / WIDTH**0.5).bfloat16().requires_grad_()
    targets = torch.randint(0, VOCABULARY, (TOKENS,), device="cuda")

    @torch.compile
    def compiled() -> torch.Tensor:
        return F.cross_entropy(F.linear(hidden, weight).float(), targets)

    def liger() -> torch.Tensor:
        from liger_kernel.ops import LigerFusedLinearCrossEntropyFunction

        out = LigerFusedLinearCrossEntropyFunction.apply(hidden, weight, targets)
        return out if isinstance(out, torch.Tensor) else out[0]

    def both(loss: Callable[[], torch.Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(loss(), [hidden, weight])

    peers, memory = {}, {}
    for name, function in (("torch.compile", compiled), ("liger", liger)):
        peers[name] = bench.try_time(both(function))
        memory[name] = _peak(both(function)) if peers[name] else None
    floor = bench.operations_floor(6 * TOKENS * WIDTH * VOCABULARY)
    for label, options in (
        ("sums in float32", {}),
        ("chunks of 4096, sums in bfloat16", {"chunk": 4096, "accumulate": torch.bfloat16}),
        ("chunks of 1024, sums in bfloat16", {"chunk": 1024, "accumulate": torch.bfloat16}),
    ):

        def ours(options: dict[str, Any] = options) -> torch.Tensor:
            return linear_cross_entropy(hidden, weight, targets, **options).loss

        extra = {"peak_gb": _peak(both(ours)), "peers_peak_gb": memory}
        shape = f"{TOKENS} x {WIDTH} x {VOCABULARY}, {label}"
        yield Row("linear_cross_entropy", shape, "forward+backward", floor, bench.time(both(ours)), peers, extra=extra)


def _peak(work: Callable[[], Any]) -> float:
    """GB above what is there before."""
    work()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e9
