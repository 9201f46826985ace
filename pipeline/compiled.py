"""Compiled kernels: Numba functions of fixed types, compiled once per machine and kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config

part = numba.njit(nogil=True, error_model="numpy")
"""A part of kernels, compiled into each that calls it. Numba does not see changes of other modules: keep parts and their
kernels in one file, so that a change compiles both again."""


def compiled(*types: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for arguments of these types, without the interpreter lock.

    The machine code is kept beside the module, in the user's cache folder, or in $NUMBA_CACHE_DIR, whichever can be written
    (Numba decides, and writes atomically: workers that compile at the same time do not disturb each other). Where none
    can, as in a read-only container without a home, a folder of this user below the temporary one serves.
    A module of kernels is imported where a kernel is called first: the import compiles all of it.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return _jit(types)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
        config.CACHE_DIR = str(_temporary_folder())  # pyright: ignore[reportAttributeAccessIssue]
        return _jit(types)(function)

    return decorate


def read_only(kind: Any) -> Any:
    """The type of a one-dimensional array that a kernel only reads, such as a buffer of Arrow's."""
    return numba.types.Array(kind, 1, "C", readonly=True)


def _jit(signature: Any) -> Any:
    return numba.njit(signature, cache=True, nogil=True, error_model="numpy")


def _temporary_folder() -> Path:
    uid = os.getuid() if hasattr(os, "getuid") else None
    folder = Path(tempfile.gettempdir()) / f"menagerie-numba-{uid}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if uid is not None and folder.stat().st_uid != uid:
        # Compiled code is loaded from here: what another user left is not to be trusted.
        folder = Path(tempfile.mkdtemp(prefix="menagerie-numba-"))
    return folder
