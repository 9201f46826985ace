from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.select import NO_COMPONENT, Component, Filter, assign, held_out

rows = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 9)), st.sampled_from(["en", "de", None]), st.sampled_from(["head", "tail"])),
    min_size=0,
    max_size=40,
)
FILTERS = [
    Filter(name="short", drop="length < 3"),
    Filter(name="unknown_length", keep="length >= 0"),
    Filter(name="nine", drop="length = 9"),
    Filter(name="ten", drop="length > 7"),
]
COMPONENTS = [
    Component(name="en", languages=("en",)),
    Component(name="head", buckets=("head",), where="length > 4"),
    Component(name="five", where="length = 5 and language is not null"),
]


def frame_of(told: list) -> pl.DataFrame:
    schema = {"length": pl.Int64, "language": pl.String, "bucket": pl.String}
    return pl.DataFrame(told, schema=schema, orient="row").with_row_index("id").with_columns(pl.col("id").cast(pl.String))


def expected(length: int | None, language: str | None, bucket: str) -> tuple[str | None, str | None]:
    """The same by hand, one document at a time: (component, reason)."""
    if length is not None and length < 3:
        return None, "short"
    if length is None:
        return None, "unknown_length"
    if length == 9:
        return None, "nine"
    if length > 7:
        return None, "ten"
    if language == "en":
        return "en", None
    if bucket == "head" and length > 4:
        return "head", None
    if length == 5 and language is not None:
        return "five", None
    return None, NO_COMPONENT


@given(rows)
def test_the_first_failing_filter_is_the_reason_and_the_first_matching_component_wins(told: list) -> None:
    marked = assign(frame_of(told), FILTERS, COMPONENTS)
    assert marked.columns == ["component", "reason"]
    assert marked.rows() == [expected(*row) for row in told]


@given(rows)
def test_every_document_has_exactly_one_of_component_and_reason(told: list) -> None:
    marked = assign(frame_of(told), FILTERS[1:2], COMPONENTS[1:])
    assert all((component is None) != (reason is None) for component, reason in marked.rows())


def test_a_component_without_conditions_takes_every_document() -> None:
    assert assign(frame_of([(None, None, "tail")]), [], [Component(name="all")]).rows() == [("all", None)]


@given(st.lists(st.text(), max_size=50), st.integers(0, 50))
def test_what_is_held_out_does_not_depend_on_its_neighbours(keys: list[str], cut: int) -> None:
    series = pl.Series(keys, dtype=pl.String)
    whole = held_out(series, 0.3).to_list()
    assert whole == held_out(series[:cut], 0.3).to_list() + held_out(series[cut:], 0.3).to_list()
    more = held_out(series, 0.5).to_list()
    assert all(b for a, b in zip(whole, more, strict=True) if a)  # a larger share holds out the same documents, and more


def test_the_held_out_share_is_what_was_asked_for() -> None:
    keys = pl.Series([f"2023-06/0000/en_head.json.gz/{i}" for i in range(20_000)])
    for fraction in (0.0, 0.01, 0.25):
        deviation = (fraction * (1 - fraction) / keys.len()) ** 0.5
        assert abs(held_out(keys, fraction).mean() - fraction) <= 4 * deviation


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": "a"}, "either keep or drop"),
        ({"name": "a", "keep": "x", "drop": "y"}, "either keep or drop"),
        ({"name": "a", "keep": "x >"}, "filter a: unable to parse"),
        ({"name": "a", "keep": "max(x) > 1"}, "more than one document"),
        ({"name": NO_COMPONENT, "keep": "x"}, "no component takes"),
        ({"name": "Not snake", "keep": "x"}, "pattern"),
    ],
)
def test_a_wrong_filter_is_found_when_the_recipe_is_read(fields: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Filter(**fields)


def test_a_slice_needs_its_column() -> None:
    with pytest.raises(ValueError, match="component c: there is no column bucket"):
        assign(pl.DataFrame({"id": ["a"]}), [], [Component(name="c", buckets=("head",))])
