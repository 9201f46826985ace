"""Labelling functions: small rules that vote for a class or abstain. From YAML, or from Python by a decorator."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
from polars.exceptions import PolarsError
from pydantic import Discriminator, Field, Tag, model_validator

from labelers.votes import ABSTAIN
from pipeline import expressions
from pipeline.stage import Params
from pipeline.tables import votes_schema

Scalar = str | bool | int | float


class RuleParams(Params):
    """A labelling function from YAML: a condition on one column, or a SQL condition, and a vote. Unknown (null) abstains."""

    name: str = Field(min_length=1, description="Its name: a column of `votes/<task>`.")
    column: str | None = Field(None, description="Column that `min`, `max` or `values` look at.")
    min: float | None = Field(None, description="Lower end of the range.")
    max: float | None = Field(None, description="Upper end of the range.")
    closed: Literal["both", "left", "right", "none"] = Field("both", description="Which ends belong to the range.")
    values: tuple[Scalar, ...] | None = Field(None, description="Values that count as inside, instead of a range.")
    where: str | None = Field(None, description="SQL condition over all columns, instead of a column.")
    vote: str = Field(description="Class voted for inside the range (or where the condition holds).")
    otherwise: str | None = Field(None, description="Class voted for outside; none abstains.")

    @model_validator(mode="after")
    def _check(self) -> RuleParams:
        ranged = self.min is not None or self.max is not None
        if (self.column is None) == (self.where is None):
            raise ValueError(f"labelling function {self.name}: give either column or where")
        if self.column is not None and ranged == (self.values is not None):
            raise ValueError(f"labelling function {self.name}: column {self.column} needs min and/or max, or values")
        if self.where is not None and (ranged or self.values is not None):
            raise ValueError(f"labelling function {self.name}: min, max and values go with column, not with where")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"labelling function {self.name}: min {self.min:g} is above max {self.max:g}")
        if self.values is not None and len({isinstance(v, str) + 2 * isinstance(v, bool) for v in self.values}) != 1:
            raise ValueError(
                f"labelling function {self.name}: values must be of one kind: all text, all numbers, or all booleans"
            )
        if self.where is not None:
            expressions.parse(self.where, f"labelling function {self.name}")
        return self

    def inside(self, frame: pl.DataFrame) -> pl.Expr:
        """True inside, false outside, null where unknown (NaN is unknown). ValueError if the frame does not fit."""
        what = f"labelling function {self.name}"
        if self.where is not None:
            return expressions.condition(self.where, frame, what)
        assert self.column is not None
        if self.column not in frame.columns:
            raise expressions.unknown_column(self.column, frame.columns, what)
        value, kind = pl.col(self.column), frame.schema[self.column]
        if self.values is not None:
            expression = value.is_in(pl.lit(pl.Series(list(self.values), strict=False)).implode())
            try:
                frame.head(0).select(expression)
            except (PolarsError, TypeError) as error:
                raise ValueError(f"{what}: column {self.column} is {kind}, not one of {list(self.values)}") from error
            return expression
        if not kind.is_numeric():
            raise ValueError(f"{what}: column {self.column} is {kind}; min and max need numbers")
        value = value.fill_nan(None) if kind.is_float() else value
        inside = pl.lit(True)
        if self.min is not None:
            inside &= value >= self.min if self.closed in ("both", "left") else value > self.min
        if self.max is not None:
            inside &= value <= self.max if self.closed in ("both", "right") else value < self.max
        return inside


class PythonParams(Params):
    """Labelling functions from a Python file or module."""

    python: str = Field(description="A .py file with decorated functions (all are taken), or `module:attribute`.")


FunctionParams = Annotated[
    Annotated[RuleParams, Tag("rule")] | Annotated[PythonParams, Tag("python")],
    Discriminator(lambda told: "python" if isinstance(told, PythonParams) or "python" in _keys(told) else "rule"),
]


def _keys(told: Any) -> Sequence[str]:
    return list(told) if isinstance(told, dict) else ()


@dataclass(frozen=True)
class LabelingFunction:
    """What `@labeling_function` makes of a function; calling it calls the function.

    rows: whether it takes a document (a dict of columns) instead of returning an expression.
    vote, otherwise: classes for true and false, if it answers with a condition. columns: those that a document's dict has.
    """

    name: str
    function: Callable[..., Any]
    rows: bool
    vote: str | int | None = None
    otherwise: str | int | None = None
    columns: tuple[str, ...] | None = None
    resources: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments, **self.resources)


def labeling_function(
    name: str | None = None,
    *,
    vote: str | int | None = None,
    otherwise: str | int | None = None,
    columns: Sequence[str] | None = None,
    resources: Mapping[str, Any] | None = None,
) -> Callable[[Callable[..., Any]], LabelingFunction]:
    """Make a labelling function of a Python function.

    Without a parameter, it returns a Polars expression over the columns; with one, it gets a document as a dict (of `columns`,
    or of all: name them, since that is much faster) and returns its vote. A vote is a class name, a class index, or None
    (`ABSTAIN`). With `vote`, the function answers true, false or None instead, and true means `vote`, false `otherwise`.
    resources: further keyword arguments (word lists, say), as in Snorkel. ValueError on any other signature.
    """

    def decorate(function: Callable[..., Any]) -> LabelingFunction:
        given = dict(resources or {})
        free = [p for p in inspect.signature(function).parameters.values() if p.name not in given and p.default is p.empty]
        called = name or function.__name__
        if len(free) > 1:
            raise ValueError(f"labelling function {called} takes {len(free)} arguments: none, or one (a document)")
        return LabelingFunction(called, function, len(free) == 1, vote, otherwise, tuple(columns) if columns else None, given)

    return decorate


Function = RuleParams | LabelingFunction


def load_functions(told: Sequence[RuleParams | PythonParams], files: Mapping[str, Path]) -> list[Function]:
    """The labelling functions of a task, in order.

    files: local path of each Python file, by the key that `python_files` gave it. ValueError if one cannot be loaded, holds no
    labelling function, or two functions have one name.
    """
    functions: list[Function] = []
    for entry in told:
        if isinstance(entry, RuleParams):
            functions.append(entry)
        else:
            functions += _load_python(entry.python, files)
    names = [f.name for f in functions]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two labelling functions are called {name}")
        if name == "id":
            raise ValueError("a labelling function cannot be called id: its votes are a column beside the documents' id")
    return functions


def python_files(told: Sequence[RuleParams | PythonParams]) -> dict[str, str]:
    """The Python files that the functions come from, by key: their content belongs to a stage's fingerprint."""
    return {f"python:{e.python}": _file_of(e.python) for e in told if isinstance(e, PythonParams)}


def apply(functions: Sequence[Function], classes: Sequence[str], frame: pl.DataFrame) -> pa.Table:
    """`votes_schema`: the votes of every function on every document of the frame (which has `id`), in order.

    Rules and expressions run together, vectorised; row functions document by document. ValueError names the function, and
    the document where there is one: unknown columns or classes, votes that are no class, exceptions in a row function.
    """
    index = {name: i for i, name in enumerate(classes)}
    vectorised = {f.name: _expression(f, index, frame) for f in functions if isinstance(f, RuleParams) or not f.rows}
    votes = _select(vectorised, frame)
    for f in functions:
        if isinstance(f, LabelingFunction) and f.rows:
            votes[f.name] = _row_votes(f, index, frame)
    schema = votes_schema([f.name for f in functions])
    columns = [frame["id"].cast(pl.String).to_arrow().cast(pa.string())]
    return pa.table([*columns, *(pa.array(votes[f.name], pa.int8()) for f in functions)], schema=schema)


def class_index(vote: Any, index: Mapping[str, int], what: str) -> int:
    """The index of a vote given as class name, class index or None. ValueError, naming the classes, on anything else."""
    if vote is None:
        return ABSTAIN
    if isinstance(vote, str) and vote in index:
        return index[vote]
    if isinstance(vote, (int, np.integer)) and not isinstance(vote, bool) and ABSTAIN <= vote < len(index):
        return int(vote)
    raise ValueError(f"{what} votes {vote!r}, which is no class of this task; the classes are: {', '.join(index)}")


def _expression(f: Function, index: Mapping[str, int], frame: pl.DataFrame) -> pl.Expr:
    what = f"labelling function {f.name}"
    if isinstance(f, RuleParams):
        return _votes_of(f.inside(frame), class_index(f.vote, index, what), class_index(f.otherwise, index, what))
    made = f()
    if not isinstance(made, pl.Expr):
        raise ValueError(
            f"{what} takes no document, so it must return a Polars expression, and it returned {type(made).__name__}"
        )
    expressions.check_columns(made, frame.columns, what)
    expressions.check_row_wise(made, what)
    if f.vote is not None:
        return _votes_of(made, class_index(f.vote, index, what), class_index(f.otherwise, index, what))
    kind = _type_of(made, frame, what)
    if kind == pl.String:
        # A name that is no class must not pass for an abstention: -2 is found, and reported, after the run.
        named = made.replace_strict(list(index), list(index.values()), default=_NO_CLASS, return_dtype=pl.Int16)
        return pl.when(made.is_not_null()).then(named)
    if kind.is_integer():
        return pl.when(made.is_between(ABSTAIN, len(index) - 1)).then(made).when(made.is_not_null()).then(_NO_CLASS)
    raise ValueError(f"{what} returns {kind}: class names, class indices, or a condition with @labeling_function(vote=...)")


_NO_CLASS = -2


def _votes_of(inside: pl.Expr, vote: int, otherwise: int) -> pl.Expr:
    return pl.when(inside).then(pl.lit(vote)).when(~inside).then(pl.lit(otherwise)).otherwise(pl.lit(ABSTAIN))


def _type_of(expression: pl.Expr, frame: pl.DataFrame, what: str) -> pl.DataType:
    try:
        return frame.head(0).lazy().select(expression.alias("vote")).collect_schema()["vote"]
    except PolarsError as error:
        raise ValueError(f"{what}: {' '.join(str(error).split())}") from error


def _select(votes: Mapping[str, pl.Expr], frame: pl.DataFrame) -> dict[str, np.ndarray]:
    told = [e.fill_null(ABSTAIN).cast(pl.Int8).alias(f"vote:{name}") for name, e in votes.items()]
    try:
        result = frame.select(pl.col("id"), *told)
    except PolarsError:
        for name, expression in zip(votes, told, strict=True):  # once more, one by one, to name the one that fails
            try:
                frame.select(pl.col("id"), expression)
            except PolarsError as error:
                raise ValueError(f"labelling function {name}: {' '.join(str(error).split())}") from error
        raise
    columns = {name: result[f"vote:{name}"].to_numpy() for name in votes}
    for name, column in columns.items():
        wrong = np.flatnonzero(column == _NO_CLASS)
        if wrong.size:
            raise ValueError(
                f"labelling function {name} votes for no class of this task on document {frame['id'][int(wrong[0])]}"
            )
    return columns


def _row_votes(f: LabelingFunction, index: Mapping[str, int], frame: pl.DataFrame) -> np.ndarray:
    what = f"labelling function {f.name}"
    for column in f.columns or ():
        if column not in frame.columns:
            raise expressions.unknown_column(column, frame.columns, what)
    meaning = {True: f.vote, False: f.otherwise, None: None}
    votes = np.full(frame.height, ABSTAIN, np.int8)
    rows = frame.select(f.columns) if f.columns else frame
    for i, row in enumerate(rows.iter_rows(named=True)):
        try:
            vote = f(row)
        except Exception as error:
            raise ValueError(f"{what} fails on document {frame['id'][i]}: {type(error).__name__}: {error}") from error
        if f.vote is not None:
            if vote not in (True, False, None):
                raise ValueError(
                    f"{what} on document {frame['id'][i]} returns {vote!r}: with vote= it answers true, false or None"
                )
            vote = meaning[vote]
        votes[i] = class_index(vote, index, f"{what} on document {frame['id'][i]}")
    return votes


def _file_of(source: str) -> str:
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


def _load_python(source: str, files: Mapping[str, Path]) -> list[LabelingFunction]:
    what = f"labelling functions {source}"
    if source.endswith(".py"):
        found = [f for f in vars(_import_file(files[f"python:{source}"], what)).values() if isinstance(f, LabelingFunction)]
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


def _import_file(path: Path, what: str) -> ModuleType:
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
