"""One section of a recipe as parameters: from a YAML file of its own, or out of a whole recipe."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.stage import Params

P = TypeVar("P", bound=Params)


def load_section(
    path: Path,
    section: str,
    kind: type[P],
    defaults: dict[str, Any],
    pick: str | None = None,
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> P:
    """Parameters of a kind from a YAML file.

    The file is the section itself, or a recipe that has it. Where a section is a list (labelling tasks), `pick` is the `task`
    to take; none is needed if there is one only. defaults: fields that the file may leave out. prepare: applied to the section
    before it is read. ValueError, in one line, names the file, the field and what is wrong with it.
    """
    try:
        told = load_yaml(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is not there") from error
    if isinstance(told, dict) and section in told:
        told = told[section]
    if isinstance(told, list):
        told = _pick(path, section, told, pick)
    elif pick is not None and isinstance(told, dict) and told.get("task") != pick:
        raise ValueError(f"{path}: {section} has no task {pick}; it holds one task, so leave --task out")
    if not isinstance(told, dict):
        raise ValueError(f"{path}: expected a mapping with the fields of {section}: {', '.join(kind.model_fields)}")
    try:
        return kind.model_validate(prepare(defaults | told))
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, kind)}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _pick(path: Path, section: str, tasks: list[Any], pick: str | None) -> Any:
    names = [t.get("task") for t in tasks if isinstance(t, dict)]
    if pick is None and len(tasks) == 1:
        return tasks[0]
    if pick is None:
        raise ValueError(f"{path}: {section} has {len(tasks)} tasks; choose one with --task: {', '.join(map(str, names))}")
    if pick not in names:
        raise ValueError(f"{path}: {section} has no task {pick}; there are: {', '.join(map(str, names))}")
    return next(t for t in tasks if isinstance(t, dict) and t.get("task") == pick)


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is written twice is an error: the parser would keep the last one, without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> Any:
    """What a YAML file holds. ValueError names the file and the place; FileNotFoundError if there is none."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error


_KINDS = {"tuple": "list", "dictionary": "mapping", "valid string": "string (quote it, if it looks like a number)"}


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """A validation error of a YAML file in one line, in YAML's words: field, what is wrong, and the name that was meant."""
    first, *others = error.errors()
    where = ".".join(str(part) for part in first["loc"])
    told = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        told = f"there is no field of this name{_meant(str(first['loc'][-1]), first['loc'], kind)}"
    elif first["type"] in ("model_type", "model_attributes_type", "dataclass_type", "dict_type"):
        told = "Input should be a mapping"
    else:
        for python, yaml_ in _KINDS.items():
            told = told.replace(python, yaml_)
    return f"{where}: {told}" * bool(where) + told * (not where) + (f" (and {len(others)} more)" if others else "")


def _meant(wrong: str, path: tuple[int | str, ...], kind: type[BaseModel]) -> str:
    """The nearest name among the fields at a path, where these are plain to find."""
    at: Any = kind
    for part in path[:-1]:
        fields = getattr(at, "model_fields", None) or {}
        if part not in fields:
            return ""
        options = [fields[part].annotation, *getattr(fields[part].annotation, "__args__", ())]
        at = next((o for o in options if hasattr(o, "model_fields")), None)
    near = difflib.get_close_matches(wrong, getattr(at, "model_fields", ()), 1)
    return f"; is {near[0]} meant?" if near else ""
