"""Is an operator right on this device? Its outputs and every gradient against the reference in float64, and twice the same.

A case names an operator, its reference and arguments. `python -m kernels.check` and the tests run the same cases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

# Relative L2 error against float64 that an operator may have, by dtype.
LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
# The same for convolutions, whose sums are kept in float32.
CONVOLUTION_LIMITS = LIMITS | {torch.bfloat16: 4e-3}
# An operator may have twice the error of plain torch in its dtype. Below this, both are the result's rounding, nothing more; in
# float32, that of three tf32 products for one, each operand cut to 21 bits: 8e-7 for attention's gradients if sums were exact.
_ROUNDING = {torch.float32: 2e-6, torch.float16: 2.5e-4, torch.bfloat16: 2e-3}
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of an operator that is checked.

    operator, reference: called as f(**arguments); they return a tensor or a tuple of tensors (None where there is none).
    arguments: what they are called with. Floating-point tensors are given in float64 and rounded to `dtype` (`keep_float32`
    names those that stay float32); each is differentiated unless `constant` names it. plain: what the error is compared with
    beside float64; without one the reference in `dtype`. limits: relative L2 error by dtype. wide_limits: where they are
    others, of float32 results of a narrower case, by name ("d<argument>"). scale: of the outputs' gradients.
    """

    operator: str
    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    arguments: Mapping[str, Any]
    dtype: torch.dtype
    keep_float32: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    plain: Callable[..., Any] | None = None
    limits: Mapping[torch.dtype, float] = dataclasses.field(default_factory=lambda: LIMITS)
    wide_limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    backward: bool = True
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Report:
    """What came of a case. By output ("out0") and gradient ("d<argument>"); repeatable: twice the same bits."""

    case: Case
    errors: dict[str, float]
    limits: dict[str, float]
    repeatable: bool

    @property
    def failures(self) -> list[str]:
        """One line for each promise that was broken."""
        wrong = [
            f"{name}: relative error {error:.2e}, allowed {self.limits[name]:.2e}"
            for name, error in self.errors.items()
            if not error <= self.limits[name]
        ]
        return wrong + ([] if self.repeatable else ["two runs differ"])


def relative_error(out: Tensor, exact: Tensor) -> float:
    """||out - exact|| / ||exact|| in float64; the norm of `out` itself where the exact answer is zero; infinity on NaN."""
    out, exact = out.detach().double(), exact.detach().double()
    if out.shape != exact.shape:
        return float("inf")
    norm, difference = exact.norm(), (out - exact).norm()
    error = float(difference / norm) if norm > 0 else float(difference)
    return error if error == error else float("inf")


def verify(case: Case, device: str | torch.device) -> Report:
    """Run a case on a device and measure it."""
    rounded = {name: _rounded(value, case, name, device) for name, value in case.arguments.items()}
    out, gradients = _run(case.function, rounded, case, None)
    again, gradients_again = _run(case.function, rounded, case, None)
    exact_arguments = {n: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in rounded.items()}
    exact, exact_gradients = _run(case.reference, exact_arguments, case, [o.dtype for o in out.values()])
    plain, plain_gradients = _run(case.plain or case.reference, rounded, case, None)
    results, truth, usual = out | gradients, exact | exact_gradients, plain | plain_gradients
    errors = {name: relative_error(results[name], truth[name]) for name in truth}
    limits = {}
    for name in truth:
        dtype = results[name].dtype
        twice = 2 * relative_error(usual[name], truth[name]) if name in usual else float("inf")
        limit = case.limits[case.dtype]
        if dtype != case.dtype:  # a float32 gradient of 16-bit products has their error, which torch in float32 has not
            limits[name] = case.wide_limits.get(name, limit)
        else:
            limits[name] = min(limit, max(twice, _ROUNDING.get(dtype, 0.0)))
    repeatable = all(
        torch.equal(_bits(a), _bits(b)) for a, b in zip(results.values(), (again | gradients_again).values(), strict=True)
    )
    return Report(case, errors, limits, repeatable)


def _rounded(value: Any, case: Case, name: str, device: str | torch.device) -> Any:
    if not isinstance(value, Tensor):
        return value
    if not value.is_floating_point():
        return value.to(device)
    return value.to(device, torch.float32 if name in case.keep_float32 else case.dtype)


def _run(
    function: Callable[..., Any], arguments: Mapping[str, Any], case: Case, dtypes: list[torch.dtype] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs and gradients by name. The outputs' gradients are the same in each run, rounded to `dtypes` (or the outputs')."""
    leaves = {
        n: v.detach().clone().requires_grad_(case.backward and n not in case.constant)
        if isinstance(v, Tensor) and v.is_floating_point()
        else v
        for n, v in arguments.items()
    }
    returned = function(**leaves)
    returned = [returned] if isinstance(returned, Tensor) else list(returned)
    outputs = {f"out{i}": o for i, o in enumerate(returned) if o is not None}
    wanted = {n: v for n, v in leaves.items() if isinstance(v, Tensor) and v.requires_grad}
    if not case.backward or not wanted:
        return outputs, {}
    generator = torch.Generator().manual_seed(1)
    given, used = [], []
    for i, output in enumerate(outputs.values()):
        gradient = case.scale * torch.randn(output.shape, generator=generator, dtype=torch.float64)
        gradient = gradient.to(dtypes[i] if dtypes else output.dtype).to(output.device, output.dtype)
        if output.requires_grad:
            given.append(gradient)
            used.append(output)
    gradients = torch.autograd.grad(used, list(wanted.values()), given, allow_unused=True)
    return outputs, {f"d{n}": g for n, g in zip(wanted, gradients, strict=True) if g is not None}


def _bits(tensor: Tensor) -> Tensor:
    """The tensor as integers of its width, so that NaN equals itself."""
    return tensor.detach().view(_INTEGERS[tensor.element_size()])
