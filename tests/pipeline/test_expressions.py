from __future__ import annotations

import polars as pl
import pytest

from pipeline import expressions

FRAME = pl.DataFrame({"id": ["a", "b"], "length": [10, None], "language": ["en", "de"], "keep_sim0.8": [True, False]})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("length > 5", [True, None]),
        ("language in ('en', 'fr')", [True, False]),
        ("language = 'de' or length between 1 and 20", [True, True]),
        ('"keep_sim0.8" and length is not null', [True, False]),
        ("keep_sim0.8 and length > 1.5", [True, False]),
        ("NOT(keep_sim0.8)", [False, True]),
        ("language <> 'x''keep_sim0.8'", [True, True]),
        ("case when length is null then true else false end", [False, True]),
        ("coalesce(length, 0) = 0", [False, True]),
        ("language like 'e%'", [True, False]),
        ("character_length(language) = 2", [True, True]),
    ],
)
def test_sql_conditions_see_one_document_at_a_time(source: str, expected: list[bool | None]) -> None:
    condition = expressions.condition(source, FRAME, "filter f")
    assert FRAME.select(condition.alias("c"))["c"].to_list() == expected


@pytest.mark.parametrize(
    "source",
    [
        "sum(length) > 5",
        "length > avg(length)",
        "row_number() over (order by length) > 1",
        "count(*) > 1",
        "first_value(length) > 1",
        "row_number() > 1",
        "lag(length) over (order by id) > 1",
        "length in (select 1)",
        "exists(select 1)",
    ],
)
def test_a_condition_that_depends_on_other_documents_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"filter f: .* looks at more than one document"):
        expressions.parse(source, "filter f")


@pytest.mark.parametrize(
    "expression",
    [
        pl.col("a").max() > 1,
        pl.col("a").rank() > 1,
        pl.col("a").shift(1),
        pl.col("a").over("b"),
        pl.col("a").cum_sum(),
        pl.col("a").is_duplicated(),
        pl.col("a").fill_null(strategy="forward"),
        pl.when(pl.col("a") > pl.col("a").mean()).then(1),
        pl.col("a").sort(),
        pl.len() > 1,
        pl.col("a").rolling_mean(2),
        pl.col("a").sample(fraction=1.0),
    ],
)
def test_a_polars_expression_that_depends_on_other_documents_is_refused(expression: pl.Expr) -> None:
    with pytest.raises(ValueError, match="one document at a time"):
        expressions.check_row_wise(expression, "f")


@pytest.mark.parametrize(
    "expression",
    [
        pl.col("a").list.eval(pl.element().sum()),
        pl.col("a").list.sum() > 1,
        pl.col("a").str.reverse(),
        pl.col("a").list.reverse().list.shift(1),
        pl.any_horizontal("a", "b"),
        pl.sum_horizontal("a", "b") > 1,
        pl.col("a").is_in([1, 2]),
        pl.col("a").map_elements(lambda value: value, return_dtype=pl.Int64),
        pl.col("a").str.to_lowercase().str.count_matches("Range") > 2,
    ],
)
def test_a_polars_expression_within_one_document_is_accepted(expression: pl.Expr) -> None:
    expressions.check_row_wise(expression, "f")


def test_an_unknown_column_is_named_with_its_neighbours() -> None:
    with pytest.raises(
        ValueError, match=r"filter f: there is no column lenght \(did you mean length\?\); there are: id, length"
    ):
        expressions.condition("lenght > 5", FRAME, "filter f")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("length >", "filter f: unable to parse"),
        ("keep_sim0,8", "unexpected token"),
        ("keep_sim0.9", "there is no column keep_sim0.9 .did you mean keep_sim0.8"),
        ("select 1", "filter f: expected an expression"),
        ("nonsense(length)", "unsupported function"),
        ("length + 1", "a condition is true or false, and this is Int64"),
        ("language > 5 and length", "filter f: .*language"),
    ],
)
def test_what_is_no_condition_is_told_in_one_line(source: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        condition = expressions.condition(source, FRAME, "filter f")
        FRAME.select(condition)
    assert "\n" not in str(error.value)
