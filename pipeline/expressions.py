"""SQL expressions over the columns of aligned tables, checked before they run: syntax, columns, type, one row at a time."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

_ACROSS_ROWS = """
    Agg AnonymousAgg Over Window Rolling Len Sort SortBy Gather Filter Slice Explode SubPlan
"""
"""Nodes of a Polars expression whose value at one row depends on other rows, or that change the number of rows."""

_FUNCTIONS_ACROSS_ROWS = """
    All Any ArgMax ArgMin ArgSort ArgUnique ArgWhere Bottom BottomBy Correlation CumCount CumMax CumMin CumProd CumSum Diff
    DropNans DropNulls Entropy EwmMean EwmMeanBy EwmStd EwmVar ExtendConstant FillNullWithStrategy GatherEvery Hist Interpolate
    InterpolateBy IsDuplicated IsFirstDistinct IsLastDistinct IsUnique Kurtosis Mode NullCount PctChange PeakMax PeakMin Product
    QCut RLE RLEID Random Range Rank Reverse RollingExpr RollingExprBy SearchSorted Shift ShiftAndFill Skew TopK TopKBy Unique
    UniqueCounts ValueCounts
"""
"""The same among its functions."""

_MIXING_NODES, _MIXING_FUNCTIONS = frozenset(_ACROSS_ROWS.split()), frozenset(_FUNCTIONS_ACROSS_ROWS.split())


_NAMES = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|(?<![\w.])[A-Za-z_]\w*\.\d\w*""")
"""Strings, quoted names, and names with a dot before a digit, which can mean nothing but a column."""


def parse(source: str, what: str) -> pl.Expr:
    """A SQL expression (the part after WHERE) as a Polars expression. Column names such as keep_sim0.8 need no quotes.

    ValueError, beginning with `what`, on text that is no expression, on a subquery, and on anything that looks at more than
    the document's own row: an aggregate would depend on how documents happen to be partitioned.
    """
    try:
        expression = pl.sql_expr(_NAMES.sub(_quoted, source))
    except PolarsError as error:
        raise ValueError(f"{what}: {_told(error)} in: {source}") from error
    check_row_wise(expression, what, source)
    return expression


def check_row_wise(expression: pl.Expr, what: str, source: str = "") -> None:
    """ValueError if the expression's value for a document depends on other documents. Python functions in it are trusted."""
    try:
        tree = json.loads(expression.meta.serialize(format="json"))
    except PolarsError:  # a Python function inside, which cannot be looked into
        return
    culprit = next(_across_rows(tree), None)
    if culprit is not None:
        raise ValueError(
            f"{what}: {culprit} looks at more than one document{f' in: {source}' if source else ''}; "
            "an expression sees the columns of one document at a time, since partitions are computed apart"
        )


def check_columns(expression: pl.Expr, columns: Sequence[str], what: str) -> None:
    """ValueError if the expression reads a column that is not there; it names the likeliest ones, then all."""
    for name in expression.meta.root_names():
        if name not in columns:
            raise unknown_column(name, columns, what)


def unknown_column(name: str, columns: Sequence[str], what: str) -> ValueError:
    """The error to raise for a column that is not there."""
    near = difflib.get_close_matches(name, columns, n=2)
    meant = f" (did you mean {' or '.join(near)}?)" if near else ""
    return ValueError(f"{what}: there is no column {name}{meant}; there are: {', '.join(columns)}")


def condition(source: str, frame: pl.DataFrame, what: str) -> pl.Expr:
    """A SQL condition that runs on this frame. ValueError as `parse`, on unknown columns, and if it is not true or false."""
    expression = parse(source, what)
    check_columns(expression, frame.columns, what)
    try:
        result = frame.head(0).lazy().select(expression.alias("condition")).collect_schema()["condition"]
    except PolarsError as error:
        raise ValueError(f"{what}: {_told(error)} in: {source}") from error
    if result not in (pl.Boolean, pl.Null):
        raise ValueError(f"{what}: a condition is true or false, and this is {result}: {source}")
    return expression


def _across_rows(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _across_rows(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in _MIXING_NODES:
                yield _first_name(value) if key in ("Agg", "SubPlan") else key.lower()
            elif key == "function":
                name = _function_name(value)
                if name in _MIXING_FUNCTIONS:
                    yield name.lower()
            elif key == "Eval":  # inside a list: its rows are the elements of one document
                yield from _across_rows(value.get("expr"))
                continue
            elif key == "Literal":
                continue
            yield from _across_rows(value)
    elif node == "Len":
        yield "count"


def _quoted(found: re.Match[str]) -> str:
    text = found.group()
    return text if text[0] in "'\"" else f'"{text}"'


def _function_name(function: Any) -> str:
    """The name of a column function; "" for those of a namespace (string, list), which work inside one row."""
    if isinstance(function, str):
        return function
    if isinstance(function, dict) and function:
        name, inner = next(iter(function.items()))
        return _function_name(inner) if name == "Boolean" else name
    return ""


def _first_name(value: Any) -> str:
    return next(iter(value)).lower() if isinstance(value, dict) and value else "a subquery"


def _told(error: BaseException) -> str:
    return " ".join(str(error).split())
