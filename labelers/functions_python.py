"""Labelling functions from Python files and modules, for YAML that names one."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from pydantic import Field

from labelers.functions import LabelingFunction
from pipeline.stage import Params


class PythonParams(Params):
    """Labelling functions from a Python file or module."""

    python: str = Field(description="A .py file with decorated functions (all are taken), or `module:attribute`.")


def file_of(source: str) -> str:
    """The file that holds what `module:attribute` names, or a .py file itself. ValueError if there is no such module."""
    if source.endswith(".py"):
        return source
    module = source.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ValueError(f"labelling functions {source}: there is no module {module}; name an importable one or a .py file")
    return spec.origin


def load_python(source: str, files: Mapping[str, Path]) -> list[LabelingFunction]:
    """The decorated functions of a .py file, in order, or those that `module:attribute` holds. ValueError if there are none."""
    what = f"labelling functions {source}"
    if source.endswith(".py"):
        found = [f for f in vars(import_file(files[f"python:{source}"], what)).values() if isinstance(f, LabelingFunction)]
        if not found:
            raise ValueError(f"{what}: the file holds no function decorated with @labeling_function")
        return found
    module, colon, attribute = source.partition(":")
    if not colon:
        raise ValueError(f"{what}: name a .py file, or module:attribute")
    value = getattr(importlib.import_module(module), attribute, None)
    found = [value] if isinstance(value, LabelingFunction) else value
    if not isinstance(found, (list, tuple)) or not found or not all(isinstance(f, LabelingFunction) for f in found):
        raise ValueError(f"{what}: {attribute} is neither a function decorated with @labeling_function nor a list of such")
    return list(found)


def import_file(path: Path, what: str) -> ModuleType:
    """A Python file as a module of its own, not findable by import, named after its content."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{what}: {path}: {error.strerror}") from error
    name = f"labelling_functions_{hashlib.sha256(content).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typing look their module up
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{what}: {path}: {type(error).__name__}: {error}") from error
    return module
