"""Compiled kernels: Numba functions of fixed types, compiled once per machine and kept."""

from __future__ import annotations

import hashlib
import inspect
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numba
import numpy as np
from numba.core import config

part = numba.njit(nogil=True, error_model="numpy")
"""A part of kernels, compiled into each that calls it, from whatever module."""

_CONSTANT = bool | int | float | str | bytes | tuple | np.generic


def compiled(*types: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for arguments of these types, without the interpreter lock.

    The machine code is kept beside the module, in the user's cache folder, or in $NUMBA_CACHE_DIR, whichever can be written
    (Numba decides, and writes atomically: workers that compile at the same time do not disturb each other). Where none
    can, as in a read-only container without a home, a folder of this user below the temporary one serves. A change of the
    module, of a part that the kernel calls, or of a constant that it reads, compiles it again.
    A module of kernels is imported where a kernel is called first: the import compiles all of it.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        assert isinstance(function, FunctionType)
        # Numba looks for changes in the file of the kernel alone, and names what it keeps after the function.
        name = function.__qualname__
        function.__qualname__ = f"{name}-{_fingerprint(function)}"
        try:
            return _jit(types)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            config.CACHE_DIR = str(_temporary_folder())  # pyright: ignore[reportAttributeAccessIssue]
            return _jit(types)(function)
        finally:
            function.__qualname__ = name

    return decorate


def read_only(kind: Any) -> Any:
    """The type of a one-dimensional array that a kernel only reads, such as a buffer of Arrow's."""
    return numba.types.Array(kind, 1, "C", readonly=True)


def _jit(signature: Any) -> Any:
    return numba.njit(signature, cache=True, nogil=True, error_model="numpy")


def _fingerprint(kernel: FunctionType) -> str:
    """A digest of all that goes into a kernel: its source and that of the parts that it calls, however deep, and the values of
    the constants that they read, of their own modules or of others."""
    digest, seen = hashlib.sha256(), set()

    def add(function: FunctionType) -> None:
        seen.add(function)
        digest.update(inspect.getsource(function).encode())
        names = function.__code__.co_names
        for name in names:
            value = function.__globals__.get(name)
            held = [value] if not isinstance(value, ModuleType) else [getattr(value, n) for n in names if hasattr(value, n)]
            for each in held:
                add_value(name, each)

    def add_value(name: str, value: Any) -> None:
        if isinstance(value, np.ndarray):
            digest.update(f"{name} {value.dtype} {value.shape} ".encode() + value.tobytes())
        elif isinstance(value, _CONSTANT):
            digest.update(f"{name} {value!r} ".encode())
        elif isinstance(inner := getattr(value, "__wrapped__", None), FunctionType) and _is_own(inner) and inner not in seen:
            add(inner)

    add(kernel)
    return digest.hexdigest()[:16]


def _is_own(function: FunctionType) -> bool:
    """Whether a function is no library's, which changes with its version alone."""
    return function.__module__.partition(".")[0] not in ("numpy", "numba")


def _temporary_folder() -> Path:
    uid = os.getuid() if hasattr(os, "getuid") else None
    folder = Path(tempfile.gettempdir()) / f"menagerie-numba-{uid}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if uid is not None and folder.stat().st_uid != uid:
        # Compiled code is loaded from here: what another user left is not to be trusted.
        folder = Path(tempfile.mkdtemp(prefix="menagerie-numba-"))
    return folder
