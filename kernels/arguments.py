"""Checks of what a caller gives: one line that names the operator, the argument, the limit and what is supported."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_NARROWED = (torch.float32, torch.float16, torch.bfloat16)  # by autocast
_DEVICES = ("cuda", "cpu")


def check_tensors(operator: str, /, *, dtypes: Sequence[torch.dtype] = FLOATS, **tensors: Tensor | None) -> None:
    """All tensors that are given are on one supported device, and each has one of the dtypes. ValueError otherwise.

    TypeError for what is no tensor; RuntimeError in forward-mode differentiation, where an operator's tangent would be lost.
    """
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first, *_ = given
    for name, tensor in given.items():
        check_is_tensor(operator, name, tensor)
        if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
            raise RuntimeError(
                f"{operator}: {name} has a tangent; it has no forward-mode derivative: use reverse mode (torch.autograd.grad), "
                "or the operator's reference, which torch differentiates"
            )
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


def check_is_tensor(operator: str, name: str, value: object) -> None:
    """TypeError for what is no tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{operator}: {name} is a {type(value).__name__}; it must be a tensor: torch.as_tensor makes one")


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
    fits = tensor.ndim == len(expected) and all(
        want is None or want == have for have, want in zip(tensor.shape, expected, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in expected)
        raise ValueError(f"{operator}: {name} has shape {tuple(tensor.shape)}; it must be {meaning} = ({sizes})")


def check_range(operator: str, what: str, value: int, low: int, high: int, otherwise: str) -> None:
    """A whole number, low <= value <= high; `otherwise` says what to do about it. ValueError otherwise."""
    if isinstance(value, float):
        raise ValueError(f"{operator}: {value} {what}; it must be a whole number, {low} to {high}")
    if not low <= value <= high:
        raise ValueError(f"{operator}: {value} {what}; it takes {low} to {high}: {otherwise}")


def check_head_dim(operator: str, head_dim: int, dtype: torch.dtype) -> None:
    """A multiple of 8 from 8 to 256; float64, which takes no kernel, may have any. ValueError otherwise."""
    if dtype != torch.float64 and (head_dim % 8 or not 8 <= head_dim <= 256):
        nearest = min(max(-(-head_dim // 8) * 8, 8), 256)
        raise ValueError(
            f"{operator}: head_dim {head_dim}; it takes multiples of 8 up to 256: the nearest is {nearest}"
            + (", pad q, k and v with zeros (and give scale)" if head_dim < 256 else "; split the head")
        )


def autocast(*tensors: Tensor | None) -> list[Tensor | None]:
    """The tensors in autocast's dtype, where autocast is on for their device; otherwise as they are. None stays None.

    float64 stays too, as under torch's own functions; what is no tensor stays for `check_tensors` to refuse.
    """
    device = next((tensor.device.type for tensor in tensors if isinstance(tensor, Tensor)), "")
    if device not in _DEVICES or not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [x.to(dtype) if isinstance(x, Tensor) and x.dtype in _NARROWED else x for x in tensors]


def rows_last(tensor: Tensor | None) -> Tensor | None:
    """The tensor with its last axis dense, copied if it must be; the other axes may have any stride. None stays None."""
    return tensor if tensor is None or tensor.stride(-1) == 1 else tensor.contiguous()


def empty_like_rows(tensor: Tensor) -> Tensor:
    """Memory for a result like the tensor, in its order of axes, but with the last axis dense, as kernels write it."""
    like = torch.empty_like(tensor)
    return (
        like if like.stride(-1) == 1 or like.shape[-1] == 1 else torch.empty(like.shape, dtype=like.dtype, device=like.device)
    )
