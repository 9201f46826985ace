"""The registry of quality signals: a signal is a function of a TextBatch with a name, a definition, a source and its needs."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from pipeline.tables import LINE_SPANS, signals_schema
from pipeline.text import TextBatch
from quality.resources import HOW_TO_GET, SignalResources, serves

Measure = Callable[..., pa.Array]
"""(TextBatch) or (TextBatch, Context) -> one value per document, or one list with a value per line."""
Level = Literal["document", "line"]
Mode = Literal["redpajama-v2", "fixed"]
"""redpajama-v2: the published values, quirks included. fixed: the quirks that the signals' definitions list are mended."""
MODES: tuple[Mode, ...] = get_args(Mode)
Range = tuple[float | None, float | None]

DECIMALS = 8
"""RedPajama-V2 rounds every value to this many decimals."""
VIEWS = ("text", "characters", "raw_words", "tally", "sentences", "lines", "words", "distinct_words")
"""What a signal may need of a TextBatch, besides columns of the documents; in the order in which they are computed."""
BUILT_IN = (
    "quality.signals.ccnet",
    "quality.signals.content",
    "quality.signals.repetitions",
    "quality.signals.natural_language",
    "quality.signals.lines",
    "quality.signals.classifiers",
    "quality.signals.importance",
)
"""Modules that register RedPajama-V2's signals, in the order of their columns."""
OF_RULES = ("quality.signals.gopher", "quality.signals.c4", "quality.signals.fineweb")
"""Modules with the signals of published rule sets (`quality.rules`): measured when a set or a name asks, not among "all"."""


@dataclass(frozen=True)
class Context:
    """What measuring depends on besides the text: the mode, and the word lists and models."""

    mode: Mode = "redpajama-v2"
    resources: SignalResources = field(default_factory=SignalResources)


@dataclass(frozen=True)
class Signal:
    """A registered signal.

    definition: the first paragraph of the function's docstring. needs: views of the TextBatch. columns: columns of the
    documents; a signal whose column is missing is null or says in its definition what it does instead. resources: fields of
    SignalResources without which it is null. range: least and greatest value, None where there is no bound.
    """

    name: str
    definition: str
    source: str
    needs: tuple[str, ...]
    columns: tuple[str, ...]
    measure: Callable[[TextBatch, Context], pa.Array]
    resources: tuple[str, ...] = ()
    range: Range = (None, None)
    level: Level = "document"
    origin: str = ""

    @property
    def type(self) -> pa.DataType:
        """double, or a list of doubles for a signal of lines."""
        return pa.list_(pa.float64()) if self.level == "line" else pa.float64()

    @property
    def built_in(self) -> bool:
        """Whether it comes with the package; an error in it is an error of the whole run, not of a document."""
        return self._module in (*BUILT_IN, *OF_RULES)

    @property
    def of_rules(self) -> bool:
        """Whether it is a signal of a published rule set, which "all" leaves out."""
        return self._module in OF_RULES

    @property
    def _module(self) -> str:
        return self.origin.rpartition(".")[0]


_REGISTERED: dict[str, Signal] = {}
_MODULE_KEY = "signals:"
_TAKEN = ("id", *LINE_SPANS)
"""Columns that table `signals` has besides its signals."""


def signal(
    name: str,
    *,
    needs: str | Sequence[str] = (),
    columns: str | Sequence[str] = (),
    resources: str | Sequence[str] = (),
    source: str,
    range: Range = (None, None),
    level: Level = "document",
) -> Callable[[Measure], Measure]:
    """Register a function of a TextBatch (and, if it takes a second argument, the Context) as the signal `name`.

    It returns one float64 value or null per document (`scores`, `ratio`), or for level "line" one list per document with a
    value per line of `TextBatch.lines` (`line_scores`). needs: names among VIEWS; columns: columns of the documents that it
    reads; resources: fields of SignalResources that it needs; source: where its definition comes from.
    ValueError if the name is taken by another function, a view or resource is unknown, or the function has no docstring.
    """
    wanted, lists = _names(needs), _names(resources)
    for kind, names, known in (("TextBatch", wanted, VIEWS), ("SignalResources", lists, tuple(HOW_TO_GET))):
        unknown = [n for n in names if n not in known]
        if unknown:
            raise ValueError(f"signal {name} needs {', '.join(unknown)}, but a {kind} has {', '.join(known)}")

    def register(function: Measure) -> Measure:
        takes_context = _positional(function) > 1
        measure = function if takes_context else lambda text, _context: function(text)
        _register(Signal(name, _definition(name, function), source, wanted, _names(columns), measure, lists, range, level,
                         _origin(function)))  # fmt: skip
        return function

    return register


def row_signal(
    name: str, *, columns: str | Sequence[str] = (), source: str, range: Range = (None, None), level: Level = "document"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of one document, called as `function(raw_content, *values of the columns)`, as the signal `name`.

    It returns a number or None; for level "line" a list with one number or None per line. A column that the documents do not
    have is None. Easy to write, and as slow as its Python: `signal` sees a whole batch at a time.
    """
    read = _names(columns)

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def measure(text: TextBatch, _: Context) -> pa.Array:
            absent = [None] * len(text)
            values = [text.columns[c].to_pylist() if c in text.columns else absent for c in read]
            told = [function(*row) for row in zip(text.strings, *values, strict=True)]
            if level == "document":
                return scores([np.nan if v is None else v for v in told], np.array([v is not None for v in told], bool))
            for value, lines in zip(told, text.lines.counts, strict=True):
                if value is not None and len(value) != lines:
                    raise ValueError(f"{len(value)} values for {lines} lines")
            return pa.array([None if v is None else [_rounded(x) for x in v] for v in told], pa.list_(pa.float64()))

        needs = ("text", "lines") if level == "line" else ("text",)
        _register(Signal(name, _definition(name, function), source, needs, read, measure, (), range, level,
                         _origin(function)))  # fmt: skip
        return function

    return register


def registered() -> dict[str, Signal]:
    """Every signal by name, the built-in ones first."""
    modules = (*BUILT_IN, *OF_RULES)
    for module in modules:
        importlib.import_module(module)
    own = [s for s in _REGISTERED.values() if s.built_in]
    own.sort(key=lambda s: modules.index(s._module))
    return {s.name: s for s in (*own, *(s for s in _REGISTERED.values() if not s.built_in))}


def load_modules(modules: Sequence[str], files: Mapping[str, Path] | None = None) -> None:
    """Import modules that register signals: `package.module`, or the path of a .py file (in `files`, if it is there under
    the key of `module_files`). ValueError if one cannot be imported."""
    for told in modules:
        try:
            if told.endswith(".py"):
                _load_file((files or {}).get(_MODULE_KEY + told) or Path(told))
            else:
                importlib.import_module(told)
        except Exception as error:
            where = "" if told.endswith(".py") else " (a file is named with its ending, as in signals.py)"
            raise ValueError(f"signals of {told} cannot be imported: {type(error).__name__}: {error}{where}") from error


def module_files(modules: Sequence[str]) -> dict[str, str]:
    """The files of modules by key, so that a change of one is noticed."""
    found: dict[str, str] = {}
    for told in modules:
        spec = None if told.endswith(".py") else importlib.util.find_spec(told)
        path = told if told.endswith(".py") else spec.origin if spec else None
        if path is None or not Path(path).is_file():
            raise ValueError(f"there is no module {told} with signals: name an importable one or a .py file")
        found[_MODULE_KEY + told] = str(Path(path))
    return found


def select(names: Sequence[str] | str = "all", modules: Sequence[str] = (), also: Sequence[str] = ()) -> list[Signal]:
    """The signals of these names and of `also`, in the registry's order; "all" for all but those of rule sets.

    modules: imported before (`load_modules`). ValueError names the unknown ones.
    """
    load_modules(modules)
    known = registered()
    if names == "all":
        wanted = [s.name for s in known.values() if not s.of_rules]
    else:
        wanted = [names] if isinstance(names, str) else list(names)
    wanted += also
    unknown = [n for n in wanted if n not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, 1)
        meant = f" (is {near[0]} meant?)" if near else ""
        raise ValueError(f"no signal is named {', '.join(unknown)}{meant}; `menagerie signals` lists all")
    return [s for s in known.values() if s.name in set(wanted)]


def unavailable(signals: Sequence[Signal], held: Mapping[str, Collection[Any]]) -> dict[str, str]:
    """The signals that are null because a word list or model is not there, each with a line that says how to get it.

    held: what there is of each resource, as `SignalResources.held` says it.
    """

    def there(resource: str, each: Signal) -> bool:  # which model a signal of the user's own reads is not known
        return serves(resource, held[resource], each.name) if each.built_in else bool(held[resource])

    told = {s.name: [r for r in s.resources if not there(r, s)] for s in signals}
    return {name: f"{name} needs {'; '.join(HOW_TO_GET[r] for r in missing)}" for name, missing in told.items() if missing}


@dataclass(frozen=True)
class Failure:
    """A signal of the user's own that raised on a document of a batch."""

    document: int
    signal: str
    error: Exception


def measure(
    text: TextBatch,
    signals: Sequence[Signal],
    context: Context | None = None,
    failures: list[Failure] | None = None,
    keep: Collection[str] = (),
) -> dict[str, pa.Array]:
    """One array per signal, by name, in the order given. A signal that returns another length or type is an error.

    A signal of the user's own that raises is measured again document by document; it is null where it raises, and a Failure
    is appended. Without `failures`, and for a built-in signal, the error is raised. Signals that read the same views come one
    after the other, and a view is released after its last use, unless `keep` names it: a batch costs the memory of its
    largest views, not of all.
    """
    context = context or Context()
    order = sorted(signals, key=lambda s: max((VIEWS.index(n) for n in s.needs), default=0))
    measured: dict[str, pa.Array] = {}
    for place, each in enumerate(order):
        try:
            measured[each.name] = _checked(each, each.measure(text, context), len(text))
        except _WrongSignalError:
            raise
        except Exception:
            if failures is None or each.built_in:
                raise
            measured[each.name] = _one_by_one(each, text, context, failures)
        text.release(*each.needs, keep={*keep, *(n for s in order[place + 1 :] for n in s.needs)})
    return {s.name: measured[s.name] for s in signals}


class _WrongSignalError(ValueError):
    """A signal that returns what no signal may."""


def _checked(each: Signal, values: pa.Array, rows: int) -> pa.Array:
    if not isinstance(values, pa.Array):
        raise _WrongSignalError(
            f"signal {each.name} returned a {type(values).__name__}: it must return an Arrow array, as scores and ratio make it"
        )
    if len(values) != rows or values.type != each.type:
        raise _WrongSignalError(
            f"signal {each.name} returned {len(values)} values of type {values.type}: it must return {rows} of {each.type}"
        )
    return values


def _one_by_one(each: Signal, text: TextBatch, context: Context, failures: list[Failure]) -> pa.Array:
    values: list[pa.Array] = []
    for document in range(len(text)):
        columns = {name: column.slice(document, 1) for name, column in text.columns.items()}
        try:
            values.append(_checked(each, each.measure(TextBatch(text.text.slice(document, 1), columns), context), 1))
        except _WrongSignalError:
            raise
        except Exception as error:
            failures.append(Failure(document, each.name, error))
            values.append(pa.nulls(1, each.type))
    return pa.concat_arrays(values)


def schema(signals: Sequence[Signal], mode: Mode = "redpajama-v2") -> pa.Schema:
    """The schema of table `signals` for these signals: the lines' spans too if there are signals of lines.

    The metadata of each field says which mode made it, and what it is.
    """
    fields = {s.name: s.type for s in signals}
    spans = {name: pa.list_(pa.int64()) for name in LINE_SPANS} if any(s.level == "line" for s in signals) else {}
    told = {s.name: {"mode": mode, "definition": s.definition, "source": s.source} for s in signals}
    plain = signals_schema({**spans, **fields})
    return pa.schema([f.with_metadata(told[f.name]) if f.name in told else f for f in plain])


def scores(values: ArrayLike, valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Values as a float64 column, rounded to DECIMALS; null where not `valid`, and where NaN."""
    rounded = np.round(np.asarray(values, np.float64), DECIMALS)
    none = np.isnan(rounded)
    return pa.array(rounded, pa.float64(), mask=none if valid is None else none | ~valid)


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> pa.Array:
    """The quotient per document; null where the denominator is 0."""
    above, below = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    valid = below != 0
    return scores(np.divide(above, below, out=np.zeros_like(above), where=valid), valid)


def line_scores(values: ArrayLike, offsets: NDArray[np.int64]) -> pa.Array:
    """Values of all lines of a batch as a list column, rounded; offsets: those of `TextBatch.lines`."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), scores(values))


def line_spans(text: TextBatch) -> dict[str, pa.Array]:
    """The columns `line_start` and `line_end`: characters of the document; the end includes the newline."""
    lines, offsets = text.lines, pa.array(text.lines.offsets, pa.int32())
    spans = dict(zip(LINE_SPANS, (lines.starts, lines.ends), strict=True))
    return {name: pa.ListArray.from_arrays(offsets, pa.array(values, pa.int64())) for name, values in spans.items()}


def _register(new: Signal) -> None:
    if new.name in _TAKEN or not re.fullmatch(r"[\w.-]+", new.name):
        raise ValueError(
            f"a signal cannot be named {new.name!r}: take letters, digits, _, . and -, and none of {', '.join(_TAKEN)}"
        )
    taken = _REGISTERED.get(new.name)
    if taken is not None and taken.origin != new.origin:
        raise ValueError(f"two signals are named {new.name}: {taken.origin} and {new.origin}; rename one")
    _REGISTERED[new.name] = new


def _definition(name: str, function: Callable[..., Any]) -> str:
    definition = " ".join((function.__doc__ or "").split("\n\n")[0].split())
    if not definition:
        raise ValueError(f"signal {name} has no docstring: its first sentence is the definition that readers see")
    return definition


def _positional(function: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds for p in inspect.signature(function).parameters.values())


def _names(told: str | Sequence[str]) -> tuple[str, ...]:
    return (told,) if isinstance(told, str) else tuple(told)


def _rounded(value: float | None) -> float | None:
    return None if value is None or value != value else round(float(value), DECIMALS)  # NaN is no value either


def _origin(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _load_file(path: Path) -> None:
    """A Python file as a module of its own, named after its content, so that copies of it are one module."""
    content = path.expanduser().read_bytes()
    name = f"signals_{hashlib.sha256(content).hexdigest()[:16]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typing look their module up
    before = set(_REGISTERED)
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
        if set(_REGISTERED) == before:
            raise ValueError("there is none: put @signal or @row_signal before a function")
    except BaseException:
        del sys.modules[name]
        raise
