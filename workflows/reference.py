"""The recipe reference, generated from the models that read recipes: `python -m workflows.reference docs/recipe.md`."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

_HEAD = """# Recipe reference

A recipe is one YAML file; every section below is a section of it, and a section that is left out is a stage that does not
run. `menagerie build RECIPE --set section.field=value` overrides a field. An unknown name is an error. Relative paths are
relative to the folder that the command runs in.

This page is generated (`make docs`).
"""


_PLAIN_NAMES = {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}


def reference() -> str:
    """The page, in Markdown."""
    from workflows.recipe import Recipe

    sections = [_HEAD]
    _section(Recipe, "recipe", sections, set())
    return "\n".join(sections)


def _section(model: type, title: str, sections: list[str], seen: set[type]) -> None:
    if model in seen:
        return
    seen.add(model)
    lines = [f"## {title}", "", _first_paragraph(model), "", "| field | type | default | meaning |", "|---|---|---|---|"]
    inner: list[tuple[type, str]] = []
    for name, annotation, default, description in _fields(model):
        models = list(_models_in(annotation))
        inner += [(m, f"{title}.{name}" if title != "recipe" else name) for m in models]
        lines.append(f"| `{name}` | {_cell(_type_name(annotation))} | {_cell(default)} | {_cell(description)} |")
    sections.append("\n".join([*lines, ""]))
    several: dict[str, int] = {}
    for _, where in inner:
        several[where] = several.get(where, 0) + 1
    for part, where in inner:
        _section(part, f"{where} ({_kind(part)})" if several[where] > 1 else where, sections, seen)


def _kind(model: type) -> str:
    """What tells the alternatives of a union apart: their `kind`, else their name."""
    for name, annotation, _, _ in _fields(model):
        if name == "kind" and get_origin(annotation) is Literal:
            return f"kind: {get_args(annotation)[0]}"
    return model.__name__


def _first_paragraph(model: type) -> str:
    return " ".join((model.__doc__ or "").strip().split("\n\n")[0].split())


def _fields(model: type) -> list[tuple[str, Any, str, str]]:
    if issubclass(model, BaseModel):
        return [
            (
                name,
                f.annotation,
                "" if f.is_required() else _default(f.get_default(call_default_factory=True)),
                f.description or "",
            )
            for name, f in model.model_fields.items()
        ]
    hints = typing.get_type_hints(model)
    told = dataclasses.fields(model)
    defaults = {f.name: "" if f.default is dataclasses.MISSING else _default(f.default) for f in told}
    return [(f.name, hints[f.name], defaults[f.name], f.metadata.get("description", "")) for f in told]


def _default(value: Any) -> str:
    if value is PydanticUndefined or isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
        return "as below"
    if value is None:
        return "none"
    if isinstance(value, list | tuple | dict | set | frozenset) and len(value) == 0:
        return "empty"
    if isinstance(value, list | tuple):
        return "`[" + ", ".join(str(v) for v in value) + "]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _models_in(annotation: Any) -> typing.Iterator[type]:
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{a}`" for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type_name(a) for a in arguments if a is not type(None)))
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin in (list, tuple, set, frozenset) or (origin and issubclass(origin, typing.Sequence)):
        return "list of " + " or ".join(dict.fromkeys(_type_name(a) for a in arguments if a is not Ellipsis))
    if origin is not None:
        return "mapping" if len(arguments) == 2 else str(origin)
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation):
            return "section"
        return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(
            annotation.__name__, annotation.__name__
        )
    return str(annotation)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
