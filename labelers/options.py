"""Parameters that a recipe or a command line gives to a model by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any


def check_options(what: str, options: Mapping[str, Any], function: Callable[..., Any], given: Collection[str] = ()) -> None:
    """ValueError, naming `what`, where a function takes no such option, or a number or truth value of another kind.

    given: the function's parameters that are no options.
    """
    takes = {n: p.annotation for n, p in inspect.signature(function).parameters.items() if n not in given}
    for name, value in options.items():
        if name not in takes:
            raise ValueError(f"{what} takes no option {name}; it takes: {', '.join(takes)}")
        if expected := _misfit(value, str(takes[name])):
            raise ValueError(f"{what}: option {name} is {value!r}, and not {expected}")


def _misfit(value: Any, annotation: str) -> str | None:
    """What a value should be, if it is not that. annotation: as it is written; what is no plain number is left to the model."""
    kind, _, rest = annotation.partition(" | ")
    if rest == "None" and value is None:
        return None
    if kind == "bool":
        return None if isinstance(value, bool) else "true or false"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "int":
        return None if number and isinstance(value, int) else "a whole number"
    return None if number or kind != "float" or rest not in ("", "None") else "a number"
