"""The registry of quality signals: a signal is a function of a TextBatch with a name, a definition, a source and its needs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from pipeline.tables import signals_schema
from pipeline.text import TextBatch

Measure = Callable[[TextBatch], pa.Array]
DECIMALS = 8
"""RedPajama-V2 rounds every value to this many decimals."""
VIEWS = ("text", "characters", "raw_words", "words", "distinct_words", "lines", "sentences")
"""What a signal may need of a TextBatch, besides columns of the documents."""
BUILT_IN = ("quality.signals.ccnet", "quality.signals.natural_language")
"""Modules that register signals, in the order of their columns."""


@dataclass(frozen=True)
class Signal:
    """A registered signal. definition: the first sentence of the function's docstring. needs: views of the TextBatch, and
    columns of the documents; a signal whose column is missing is null or says in its definition what it does instead."""

    name: str
    definition: str
    source: str
    needs: tuple[str, ...]
    columns: tuple[str, ...]
    measure: Measure


_REGISTERED: dict[str, Signal] = {}


def signal(
    name: str, *, needs: str | Sequence[str] = (), columns: str | Sequence[str] = (), source: str
) -> Callable[[Measure], Measure]:
    """Register a function TextBatch -> one float64 value (or null) per document as the signal `name`.

    needs: names among VIEWS; columns: columns of the documents that it reads; source: where its definition comes from.
    ValueError if the name is taken by another function, a view is unknown, or the function has no docstring.
    """
    wanted = (needs,) if isinstance(needs, str) else tuple(needs)
    unknown = [n for n in wanted if n not in VIEWS]
    if unknown:
        raise ValueError(f"signal {name} needs {', '.join(unknown)}, but a TextBatch has {', '.join(VIEWS)}")

    def register(function: Measure) -> Measure:
        taken = _REGISTERED.get(name)
        if taken is not None and _origin(taken.measure) != _origin(function):
            raise ValueError(f"two signals are named {name}: {_origin(taken.measure)} and {_origin(function)}; rename one")
        definition = " ".join((function.__doc__ or "").split("\n\n")[0].split())
        if not definition:
            raise ValueError(f"signal {name} has no docstring: its first sentence is the definition that readers see")
        read = (columns,) if isinstance(columns, str) else tuple(columns)
        _REGISTERED[name] = Signal(name, definition, source, wanted, read, function)
        return function

    return register


def registered() -> dict[str, Signal]:
    """Every signal by name, the built-in ones first."""
    for module in BUILT_IN:
        importlib.import_module(module)
    return dict(_REGISTERED)


def select(names: Sequence[str] | str = "all") -> list[Signal]:
    """The signals of these names, in the registry's order; "all" for all. ValueError names the unknown ones."""
    known = registered()
    wanted = list(known) if names == "all" else ([names] if isinstance(names, str) else list(names))
    unknown = [n for n in wanted if n not in known]
    if unknown:
        raise ValueError(f"no signal is named {', '.join(unknown)}; there is {', '.join(known)}")
    return [s for s in known.values() if s.name in set(wanted)]


def measure(text: TextBatch, signals: Sequence[Signal]) -> dict[str, pa.Array]:
    """One float64 array per signal, by name. A signal that returns another length or type is an error that names it."""
    measured: dict[str, pa.Array] = {}
    for each in signals:
        values = each.measure(text)
        if len(values) != len(text) or values.type != pa.float64():
            raise ValueError(
                f"signal {each.name} returned {len(values)} values of type {values.type}: it must return {len(text)} of float64"
            )
        measured[each.name] = values
    return measured


def schema(signals: Sequence[Signal]) -> pa.Schema:
    """The schema of table `signals` for these signals."""
    return signals_schema({s.name: pa.float64() for s in signals})


def scores(values: ArrayLike, valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Values as a float64 column, rounded to DECIMALS; null where not `valid`."""
    rounded = np.round(np.asarray(values, np.float64), DECIMALS)
    return pa.array(rounded, pa.float64(), mask=None if valid is None else ~valid)


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> pa.Array:
    """The quotient per document; null where the denominator is 0."""
    above, below = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    valid = below != 0
    return scores(np.divide(above, below, out=np.zeros_like(above), where=valid), valid)


def _origin(function: Measure) -> str:
    return f"{function.__module__}.{function.__qualname__}"
