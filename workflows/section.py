"""One section of a recipe as parameters: from a YAML file of its own, or out of a whole recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from pipeline.stage import Params

P = TypeVar("P", bound=Params)


def load_section(path: Path, section: str, kind: type[P], defaults: dict[str, Any], pick: str | None = None) -> P:
    """Parameters of a kind from a YAML file.

    The file is the section itself, or a recipe that has it. Where a section is a list (labelling tasks), `pick` is the `task`
    to take; none is needed if there is one only. defaults: fields that the file may leave out. ValueError, in one line, names
    the file, the field and what is wrong with it.
    """
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is not there") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if isinstance(told, dict) and section in told:
        told = told[section]
    if isinstance(told, list):
        told = _pick(path, section, told, pick)
    elif pick is not None and isinstance(told, dict) and told.get("task") != pick:
        raise ValueError(f"{path}: {section} has no task {pick}; it holds one task, so leave --task out")
    if not isinstance(told, dict):
        raise ValueError(f"{path}: expected a mapping with the fields of {section}: {', '.join(kind.model_fields)}")
    try:
        return kind.model_validate(defaults | told)
    except ValidationError as error:
        raise ValueError(f"{path}: {_first(error)}") from error


def _pick(path: Path, section: str, tasks: list[Any], pick: str | None) -> Any:
    names = [t.get("task") for t in tasks if isinstance(t, dict)]
    if pick is None and len(tasks) == 1:
        return tasks[0]
    if pick is None:
        raise ValueError(f"{path}: {section} has {len(tasks)} tasks; choose one with --task: {', '.join(map(str, names))}")
    if pick not in names:
        raise ValueError(f"{path}: {section} has no task {pick}; there are: {', '.join(map(str, names))}")
    return next(t for t in tasks if isinstance(t, dict) and t.get("task") == pick)


def _first(error: ValidationError) -> str:
    first, *others = error.errors()
    where = ".".join(str(part) for part in first["loc"])
    told = first["msg"].removeprefix("Value error, ")
    return f"{where}: {told}" * bool(where) + told * (not where) + (f" (and {len(others)} more)" if others else "")
