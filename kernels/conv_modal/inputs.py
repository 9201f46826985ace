"""What the modal convolution is given, as its operators and their implementations hand it on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """The tensors of `kernels.conv_modal.conv_modal`, documents as document_starts; None for what is not there."""

    u: Tensor
    decay: Tensor
    frequency: Tensor
    residue: Tensor
    skip: Tensor | None = None
    pregate: Tensor | None = None
    postgate: Tensor | None = None
    state: Tensor | None = None
    document_starts: Tensor | None = None


# The same as custom operators declare it. All but document_starts have a gradient.
SCHEMA = ", ".join(f"Tensor{'?' if name in Inputs._field_defaults else ''} {name}" for name in Inputs._fields)
DIFFERENTIABLE = len(Inputs._fields) - 1
