"""Runs the logic of a Gluon kernel on the CPU in torch, for there is no interpreter for Gluon.

Layouts are ignored: they decide which thread has an element, never which element it is, except for what inline assembly does
between threads. That is given by its meaning. So this sees wrong formulas, orders and addresses, not missing barriers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from triton.runtime.jit import JITCallable


class _Pointer:
    """A tensor's memory and an offset in it, a number or one for each element."""

    def __init__(self, memory: Tensor, offset: Any = 0) -> None:
        self.memory, self.offset = memory, offset

    def __add__(self, more: Any) -> _Pointer:
        return _Pointer(self.memory, self.offset + more)


class _Shared:
    """Shared memory, full of NaN until it is written."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def store(self, values: Tensor) -> None:
        assert values.shape == self.values.shape
        self.values.copy_(values)

    def load(self, layout: Any) -> Tensor:
        return self.values.clone()

    def slice(self, begin: int, length: int, axis: int) -> _Shared:
        return _Shared(self.values.narrow(axis, begin, length))

    def permute(self, axes: Sequence[int]) -> _Shared:
        return _Shared(self.values.permute(*axes))

    def index(self, index: Any) -> _Shared:
        return _Shared(self.values[int(index)])


def _load(pointer: _Pointer, mask: Any = None, other: Any = None) -> Tensor:
    offset = torch.as_tensor(pointer.offset)
    if mask is None:
        return pointer.memory[offset]
    offset, mask = torch.broadcast_tensors(offset, mask)
    values = pointer.memory[torch.where(mask, offset, 0)]
    return torch.where(mask, values, torch.full_like(values, other))


def _store(pointer: _Pointer, values: Tensor, mask: Any = None) -> None:
    offset = torch.as_tensor(pointer.offset)
    offset, values, mask = torch.broadcast_tensors(offset, values, torch.tensor(True) if mask is None else mask)
    assert values.dtype == pointer.memory.dtype
    pointer.memory[offset[mask]] = values[mask]


def _product(a: _Shared, b: _Shared, sums: Tensor, use_acc: bool = True, is_async: bool = False) -> Tensor:
    product = a.values.float() @ b.values.float()
    return sums + product if use_acc else product


def _allocate(dtype: torch.dtype, shape: Sequence[int], layout: Any, values: Tensor | None = None) -> _Shared:
    shared = _Shared(torch.full(shape, torch.nan, dtype=dtype))
    if values is not None:
        shared.store(values)
    return shared


def _any(*_: Any, **__: Any) -> None:
    """A layout, or what only orders threads."""


def _where(condition: Any, yes: Any, no: Any) -> Tensor:
    return torch.where(torch.as_tensor(condition), torch.as_tensor(yes), torch.as_tensor(no))


def emulated(modules: Iterable[ModuleType], assembly: Callable[..., Any]) -> dict[str, Any]:
    """Modules' Gluon functions as functions of torch; assembly: what takes `inline_asm_elementwise`'s place."""
    gl = SimpleNamespace(
        **{name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "int32", "int64")},
        **dict.fromkeys(("DistributedLinearLayout", "SliceLayout", "BlockedLayout", "NVMMADistributedLayout"), _any),
        **dict.fromkeys(("NVMMASharedLayout", "SwizzledSharedLayout", "SharedLinearLayout"), _any),
        **dict.fromkeys(("static_assert", "thread_barrier"), _any),
        constexpr=Any,
        arange=lambda begin, end, layout: torch.arange(begin, end),
        load=_load,
        store=_store,
        permute=lambda x, axes: x.permute(*axes),
        reshape=lambda x, shape: x.reshape(*shape),
        split=lambda x: x.unbind(-1),
        join=lambda a, b: torch.stack([a, b], -1),
        convert_layout=lambda x, layout: x,
        expand_dims=lambda x, axis: x.unsqueeze(axis),
        where=_where,
        minimum=lambda a, b: torch.minimum(torch.as_tensor(a), torch.as_tensor(b)),
        fma=lambda a, b, c: a * b + c,
        zeros=lambda shape, dtype, layout: torch.zeros(*shape, dtype=dtype),
        sum=lambda x, axis: x.sum(axis),
        gather=lambda x, index, axis: x.gather(axis, index),
        static_range=range,
        inline_asm_elementwise=assembly,
        allocate_shared_memory=_allocate,
    )
    copies = SimpleNamespace(
        async_copy_global_to_shared=lambda shared, pointer: shared.store(_load(pointer)),
        commit_group=_any,
        wait_group=_any,
    )
    names: dict[str, Any] = {
        "async_copy": copies,
        "gl": gl,
        "fence_async_shared": _any,
        "warpgroup_mma": _product,
        "warpgroup_mma_wait": lambda count, deps: deps[0] if len(deps) == 1 else deps,
    }
    functions = {
        name: kernel.fn for module in modules for name, kernel in vars(module).items() if isinstance(kernel, JITCallable)
    }
    names |= {name: FunctionType(function.__code__, names) for name, function in functions.items()}
    return names


class Launcher:
    """In the place of a kernel: kernel[grid](arguments) runs its emulation, one program after the other."""

    def __init__(self, kernel: Any, names: dict[str, Any]) -> None:
        self.arg_names = kernel.arg_names
        self._run, self._gl = names[kernel.__name__], names["gl"]

    def __getitem__(self, grid: tuple[int, int]) -> Callable[..., None]:
        from kernels.triton_support import TRITON_TYPES  # once kernels may be imported for the interpreter

        torch_types = {of_triton: of_torch for of_torch, of_triton in TRITON_TYPES.items()}

        def launch(*arguments: Any, **constants: Any) -> None:
            self._gl.num_programs = lambda axis: grid[axis]
            constants = {n: torch_types.get(c, c) for n, c in constants.items() if n in self.arg_names}
            given = [_Pointer(a.view(-1)) if isinstance(a, Tensor) else a for a in arguments]
            for program in ((i, j) for i in range(grid[0]) for j in range(grid[1])):
                self._gl.program_id = lambda axis, program=program: torch.tensor(program[axis])
                self._run(*given, **constants)

        return launch
