"""Real English that every machine with Python has: the docstrings of its standard library."""

from __future__ import annotations

import ast
import os
from functools import cache
from pathlib import Path


@cache
def docstrings(characters: int, shortest: int = 200) -> tuple[str, ...]:
    """Distinct docstrings of at least `shortest` characters, about `characters` in all, always in the same order."""
    found: dict[str, None] = {}
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                told = ast.get_docstring(node)
                if told and len(told) >= shortest:
                    found[told] = None
        if sum(map(len, found)) >= characters:
            break
    return tuple(found)
