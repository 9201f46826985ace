"""Gradients of operators: those of a reference by autograd, and a clear refusal of a second derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor


def vjp(function: Callable[..., Any], arguments: Sequence[Any], gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradient of each argument of `function(*arguments)`, given those of its outputs (None: an output that was not used).

    None for arguments that are not floating-point tensors. It works inside the body of a custom operator, where autograd
    is off.
    """
    with _autograd():
        leaves = [a.detach().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments]
        outputs = function(*leaves)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        used = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None and o is not None and o.requires_grad]
        wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        gradients = torch.autograd.grad([o for o, _ in used], wanted, [g for _, g in used], allow_unused=True)
        found = iter(_apart(gradients))
        return [next(found) if isinstance(leaf, Tensor) and leaf.requires_grad else None for leaf in leaves]


def _apart(tensors: Sequence[Tensor | None]) -> Iterator[Tensor | None]:
    """The tensors, a copy of each that shares memory with one before: a custom operator may not return it twice."""
    seen: set[int] = set()
    for tensor in tensors:
        if tensor is None:
            yield None
            continue
        memory = tensor.untyped_storage().data_ptr()
        yield tensor.clone() if memory in seen else tensor
        seen.add(memory)


def refuse_double_backward(backward_operator: Any, name: str) -> None:
    """Make a custom operator that computes a gradient say so when that gradient is differentiated."""

    def refuse(ctx: Any, *gradients: Tensor) -> NoReturn:
        raise RuntimeError(
            f"{name}: its gradient cannot be differentiated again; "
            f"for second derivatives use kernels.{name}.reference, which torch differentiates"
        )

    backward_operator.register_autograd(refuse)


def zeros_for(gradient: Tensor | None, like: Tensor) -> Tensor:
    """An output's gradient as a kernel reads it: zeros where autograd gives None."""
    return torch.zeros_like(like) if gradient is None else gradient


@contextmanager
def _autograd() -> Iterator[None]:
    """Autograd on, also below the dispatcher's autograd layer, where the bodies of custom operators run."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in (torch._C.DispatchKey.AutogradCPU, torch._C.DispatchKey.AutogradCUDA, torch._C.DispatchKey.ADInplaceOrView):
        excluded = excluded.remove(key)
    for key in (torch._C.DispatchKey.AutogradOther, torch._C.DispatchKey.AutogradFunctionality):
        excluded = excluded.remove(key)
    with torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded), torch.enable_grad():
        yield
