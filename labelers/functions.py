"""Labelling functions: small rules that vote for a class or abstain. Written in Python here; YAML's are in `functions_yaml`."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl
import pyarrow as pa
from polars.exceptions import PolarsError

from labelers.votes import ABSTAIN
from pipeline import expressions
from pipeline.tables import votes_schema

Faults = dict[str, Counter[str]]
"""Votes that could not be had, and became abstentions: reasons and their counts, by function."""


@runtime_checkable
class ExpressionFunction(Protocol):
    """A labelling function that is a Polars expression over the columns: rules, patterns, scores."""

    @property
    def name(self) -> str: ...

    def expression(self, frame: pl.DataFrame, index: Mapping[str, int]) -> pl.Expr:
        """Class indices, null to abstain. index: number of each class. ValueError if the frame does not fit."""
        ...


@runtime_checkable
class BatchFunction(Protocol):
    """A labelling function of a whole frame: spans, classifiers, judges."""

    @property
    def name(self) -> str: ...

    def vote_on(self, frame: pl.DataFrame, index: Mapping[str, int]) -> tuple[np.ndarray, Counter[str]]:
        """(n,) int8 votes, and why documents have none that should have one. ValueError if the frame does not fit."""
        ...


@dataclass(frozen=True)
class LabelingFunction:
    """What `@labeling_function` makes of a function; calling it calls the function.

    rows: whether it takes a document (a dict of columns) instead of returning an expression.
    vote, otherwise: classes for true and false, if it answers with a condition. columns: those that a document's dict has.
    pre: what a document goes through first, one after the other.
    """

    name: str
    function: Callable[..., Any]
    rows: bool
    vote: str | int | None = None
    otherwise: str | int | None = None
    columns: tuple[str, ...] | None = None
    resources: Mapping[str, Any] = field(default_factory=dict)
    pre: tuple[Callable[[Any], Any], ...] = ()

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments, **self.resources)


def labeling_function(
    name: str | None = None,
    *,
    vote: str | int | None = None,
    otherwise: str | int | None = None,
    columns: Sequence[str] | None = None,
    resources: Mapping[str, Any] | None = None,
    pre: Sequence[Callable[[Any], Any]] = (),
) -> Callable[[Callable[..., Any]], LabelingFunction]:
    """Make a labelling function of a Python function.

    Without a parameter, it returns a Polars expression over the columns; with one, it gets a document as a dict (of `columns`,
    or of all: name them, since that is much faster) and returns its vote. A vote is a class name, a class index, or None
    (`ABSTAIN`). With `vote`, the function answers true, false or None instead, and true means `vote`, false `otherwise`.
    resources: further keyword arguments (word lists, say), as in Snorkel. pre: preprocessors, each of which takes what the one
    before it returns, the first one the document; functions of one task that name the same ones (and the same columns) share
    the work. ValueError on any other signature.
    """

    def decorate(function: Callable[..., Any]) -> LabelingFunction:
        given = dict(resources or {})
        free = [p for p in inspect.signature(function).parameters.values() if p.name not in given and p.default is p.empty]
        called = name or function.__name__
        if len(free) > 1:
            raise ValueError(f"labelling function {called} takes {len(free)} arguments: none, or one (a document)")
        if pre and not free:
            raise ValueError(f"labelling function {called} has preprocessors and takes no document for them")
        seen = tuple(columns) if columns else None
        return LabelingFunction(called, function, len(free) == 1, vote, otherwise, seen, given, tuple(pre))

    return decorate


Function = LabelingFunction | ExpressionFunction | BatchFunction


def apply(functions: Sequence[Function], classes: Sequence[str], frame: pl.DataFrame, faults: Faults | None = None) -> pa.Table:
    """`votes_schema`: the votes of every function on every document of the frame (which has `id`), in order.

    Rules and expressions run together, vectorised; row functions document by document; the others a frame at a time. ValueError
    names the function, and the document where there is one: unknown columns or classes, votes that are no class, exceptions in
    a row function. faults: takes, per function, why documents have no vote that should have one (a judge that did not answer).
    """
    index = {name: i for i, name in enumerate(classes)}
    rows = [f for f in functions if isinstance(f, LabelingFunction) and f.rows]
    vectorised = {f.name: e for f in functions if (e := _expression(f, index, frame)) is not None}
    votes = _select(vectorised, frame)
    votes |= _row_votes(rows, index, frame)
    for f in functions:
        if f.name not in votes:
            assert isinstance(f, BatchFunction)
            votes[f.name], reasons = f.vote_on(frame, index)
            if faults is not None and reasons:
                faults.setdefault(f.name, Counter()).update(reasons)
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


def votes_of(inside: pl.Expr, vote: int, otherwise: int) -> pl.Expr:
    """`vote` where a condition holds, `otherwise` where it does not, an abstention where it is null."""
    return pl.when(inside).then(pl.lit(vote)).when(~inside).then(pl.lit(otherwise)).otherwise(pl.lit(ABSTAIN))


def _expression(f: Function, index: Mapping[str, int], frame: pl.DataFrame) -> pl.Expr | None:
    """The function as an expression; None if it is none."""
    if not isinstance(f, LabelingFunction):
        return f.expression(frame, index) if isinstance(f, ExpressionFunction) else None
    if f.rows:
        return None
    what = f"labelling function {f.name}"
    made = f()
    if not isinstance(made, pl.Expr):
        raise ValueError(
            f"{what} takes no document, so it must return a Polars expression, and it returned {type(made).__name__}"
        )
    expressions.check_columns(made, frame.columns, what)
    expressions.check_row_wise(made, what)
    if f.vote is not None:
        return votes_of(made, class_index(f.vote, index, what), class_index(f.otherwise, index, what))
    kind = _type_of(made, frame, what)
    if kind == pl.String:
        # A name that is no class must not pass for an abstention: -2 is found, and reported, after the run.
        named = made.replace_strict(list(index), list(index.values()), default=_NO_CLASS, return_dtype=pl.Int16)
        return pl.when(made.is_not_null()).then(named)
    if kind.is_integer():
        return pl.when(made.is_between(ABSTAIN, len(index) - 1)).then(made).when(made.is_not_null()).then(_NO_CLASS)
    raise ValueError(f"{what} returns {kind}: class names, class indices, or a condition with @labeling_function(vote=...)")


_NO_CLASS = -2


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


def _row_votes(functions: Sequence[LabelingFunction], index: Mapping[str, int], frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """Votes of row functions. Those with the same columns and preprocessors see each document, preprocessed once, in turn."""
    together: dict[tuple, list[LabelingFunction]] = {}
    for f in functions:
        together.setdefault((f.columns, f.pre), []).append(f)
    votes = {f.name: np.full(frame.height, ABSTAIN, np.int8) for f in functions}
    for (columns, pre), group in together.items():
        for column in columns or ():
            if column not in frame.columns:
                raise expressions.unknown_column(column, frame.columns, f"labelling function {group[0].name}")
        rows = frame.select(columns) if columns else frame
        for i, row in enumerate(rows.iter_rows(named=True)):
            document: Any = row
            for step in pre:
                what = f"preprocessor {getattr(step, '__name__', step)}"
                document = _called(step, document, f"{what} of labelling function {group[0].name}", frame["id"], i)
            for f in group:
                votes[f.name][i] = _row_vote(f, document, index, frame["id"], i)
    return votes


def _row_vote(f: LabelingFunction, document: Any, index: Mapping[str, int], ids: pl.Series, row: int) -> int:
    what = f"labelling function {f.name}"
    vote = _called(f, document, what, ids, row)
    if f.vote is not None:
        if vote not in (True, False, None):
            raise ValueError(f"{what} on document {ids[row]} returns {vote!r}: with vote= it answers true, false or None")
        vote = {True: f.vote, False: f.otherwise, None: None}[vote]
    if vote is None:
        return ABSTAIN
    return class_index(vote, index, f"{what} on document {ids[row]}")


def _called(call: Callable[[Any], Any], document: Any, what: str, ids: pl.Series, row: int) -> Any:
    try:
        return call(document)
    except Exception as error:
        raise ValueError(f"{what} fails on document {ids[row]}: {type(error).__name__}: {error}") from error
