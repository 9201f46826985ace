"""Arrays of any number of axes as rows, as kernels that work along the last axis read them."""

from __future__ import annotations

import torch
from torch import Tensor


def rows_of(x: Tensor) -> Tensor:
    """(rows, width) with unit stride along the width; rows may lie apart, or be the same (stride 0). Copies only if it must."""
    flat = x.reshape(-1, x.shape[-1])
    return flat if flat.stride(1) == 1 or flat.shape[1] == 1 else flat.contiguous()


def processors(x: Tensor) -> int:
    """Streaming multiprocessors of a tensor's GPU; 2 in the interpreter, so that its programs share work too."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2
