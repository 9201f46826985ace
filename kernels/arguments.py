"""Checks of what a caller gives: one line that names the operator, the argument, the limit and what is supported."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_DEVICES = ("cuda", "cpu")


def check_tensors(operator: str, /, *, dtypes: Sequence[torch.dtype] = FLOATS, **tensors: Tensor | None) -> None:
    """All tensors that are given are on one supported device, and each has one of the dtypes. ValueError otherwise."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first, *_ = given
    device = given[first].device
    if device.type not in _DEVICES:
        raise ValueError(
            f"{operator}: {first} is on {device}; there are kernels for cuda and a reference for cpu: move it there"
        )
    for name, tensor in given.items():
        if tensor.device != device:
            raise ValueError(f"{operator}: {name} is on {tensor.device} and {first} on {device}; move both to one device")
        if tensor.dtype not in dtypes:
            supported = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            raise ValueError(
                f"{operator}: {name} is {str(tensor.dtype).removeprefix('torch.')}; it may be {supported}: use .to()"
            )


def check_same_dtype(operator: str, /, **tensors: Tensor | None) -> None:
    """All tensors that are given have the first one's dtype. ValueError otherwise."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first, *rest = given
    for name in rest:
        if given[name].dtype != given[first].dtype:
            want, have = (str(t.dtype).removeprefix("torch.") for t in (given[first], given[name]))
            raise ValueError(f"{operator}: {name} is {have} and {first} is {want}; convert {name} with .to({first}.dtype)")


def check_shape(operator: str, name: str, tensor: Tensor, expected: Sequence[int | None], meaning: str) -> None:
    """The tensor has the expected shape (None: any size). `meaning` names the axes: "(channels, taps)". Else ValueError."""
    fits = tensor.ndim == len(expected) and all(want in (None, have) for have, want in zip(tensor.shape, expected, strict=True))
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in expected)
        raise ValueError(f"{operator}: {name} has shape {tuple(tensor.shape)}; it must be {meaning} = ({sizes})")


def check_range(operator: str, what: str, value: int, low: int, high: int, otherwise: str) -> None:
    """low <= value <= high; `otherwise` says what to do about it. ValueError otherwise."""
    if not low <= value <= high:
        raise ValueError(f"{operator}: {value} {what}; it takes {low} to {high}: {otherwise}")


def autocast(*tensors: Tensor | None) -> list[Tensor | None]:
    """The tensors in autocast's dtype, where autocast is on for their device; otherwise as they are. None stays None."""
    device = next(tensor.device.type for tensor in tensors if tensor is not None)
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [tensor if tensor is None or not tensor.is_floating_point() else tensor.to(dtype) for tensor in tensors]


def rows_last(tensor: Tensor | None) -> Tensor | None:
    """The tensor with its last axis dense, copied if it must be; the other axes may have any stride. None stays None."""
    return tensor if tensor is None or tensor.stride(-1) == 1 else tensor.contiguous()
