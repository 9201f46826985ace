from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from labelers import ABSTAIN, labeling_function
from labelers.functions import LabelingFunction, apply
from labelers.functions_python import PythonParams
from labelers.functions_rules import RuleParams
from labelers.functions_yaml import AnyFunctionParams, function_files, load_functions

CLASSES = ("bad", "good")
FRAME = pl.DataFrame(
    {
        "id": ["d/0", "d/1", "d/2", "d/3", "d/4"],
        "words": [10, 20, 30, None, 40],
        "score": [0.1, float("nan"), 0.5, None, 0.9],
        "language": ["en", "de", None, "en", "fr"],
        "adult": [True, False, None, False, True],
        "spans": [[1.0], [], None, [2.0], [3.0]],
    },
    schema_overrides={"words": pl.Int64},
)


def votes(*functions: RuleParams | LabelingFunction, frame: pl.DataFrame = FRAME) -> list[list[int]]:
    table = apply(functions, CLASSES, frame)
    assert table["id"].to_pylist() == frame["id"].to_list()
    return [table[f.name].to_pylist() for f in functions]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"column": "words", "min": 20, "vote": "good"}, [-1, 1, 1, -1, 1]),
        ({"column": "words", "min": 20, "vote": "good", "otherwise": "bad"}, [0, 1, 1, -1, 1]),
        ({"column": "words", "min": 20, "max": 30, "vote": "good"}, [-1, 1, 1, -1, -1]),
        ({"column": "words", "min": 20, "max": 30, "closed": "left", "vote": "good"}, [-1, 1, -1, -1, -1]),
        ({"column": "words", "min": 20, "max": 30, "closed": "right", "vote": "good"}, [-1, -1, 1, -1, -1]),
        ({"column": "words", "min": 20, "max": 30, "closed": "none", "vote": "good", "otherwise": "bad"}, [0, 0, 0, -1, 0]),
        ({"column": "words", "max": 10, "vote": "bad"}, [0, -1, -1, -1, -1]),
        ({"column": "score", "min": 0.5, "vote": "good", "otherwise": "bad"}, [0, -1, 1, -1, 1]),  # NaN and null abstain
        ({"column": "language", "values": ["en", "fr"], "vote": "good", "otherwise": "bad"}, [1, 0, -1, 1, 1]),
        ({"column": "adult", "values": [True], "vote": "bad"}, [0, -1, -1, -1, 0]),
        ({"column": "words", "values": [10, 40], "vote": "bad"}, [0, -1, -1, -1, 0]),
        ({"where": "words > 15 and language <> 'de'", "vote": "good", "otherwise": "bad"}, [0, 0, -1, -1, 1]),
    ],
)
def test_a_rule_votes_inside_its_range_and_abstains_on_nulls(fields: dict, expected: list[int]) -> None:
    assert votes(RuleParams(name="rule", **fields)) == [expected]


@given(
    st.lists(st.one_of(st.none(), st.floats(allow_infinity=True, allow_nan=True)), max_size=30),
    st.floats(-1e3, 1e3),
    st.floats(0, 1e3),
    st.sampled_from(["both", "left", "right", "none"]),
)
def test_a_range_is_what_comparing_by_hand_gives(values: list[float | None], low: float, width: float, closed: str) -> None:
    high = low + width
    frame = pl.DataFrame({"id": [str(i) for i in range(len(values))], "x": pl.Series(values, dtype=pl.Float64)})
    rule = RuleParams.model_validate(
        {"name": "r", "column": "x", "min": low, "max": high, "closed": closed, "vote": "good", "otherwise": "bad"}
    )

    def by_hand(x: float | None) -> int:
        if x is None or x != x:
            return ABSTAIN
        above = x >= low if closed in ("both", "left") else x > low
        below = x <= high if closed in ("both", "right") else x < high
        return int(above and below)

    assert votes(rule, frame=frame) == [[by_hand(x) for x in values]]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"column": "word", "min": 1, "vote": "good"},
            r"labelling function r: there is no column word \(did you mean words\?\); there are: id, words",
        ),
        (
            {"column": "words", "min": 1, "vote": "great"},
            "votes 'great', which is no class of this task; the classes are: bad, good",
        ),
        ({"column": "language", "min": 1, "vote": "good"}, "column language is String; min and max need numbers"),
        ({"column": "spans", "min": 1, "vote": "good"}, "column spans is List"),
        ({"column": "words", "values": ["ten"], "vote": "good"}, "labelling function r: column words is Int64, not one of"),
        ({"where": "nothing > 1", "vote": "good"}, "there is no column nothing"),
    ],
)
def test_a_rule_that_does_not_fit_the_data_says_what_there_is(fields: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        votes(RuleParams(name="r", **fields))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"vote": "good"}, "either column or where"),
        ({"vote": "good", "column": "x", "where": "x > 1"}, "either column or where"),
        ({"vote": "good", "column": "x"}, "needs min and/or max, or values"),
        ({"vote": "good", "column": "x", "min": 1, "values": [1]}, "needs min and/or max, or values"),
        ({"vote": "good", "column": "x", "min": 2, "max": 1}, "min 2 is above max 1"),
        ({"vote": "good", "column": "x", "values": ["a", 1]}, "of one kind"),
        ({"vote": "good", "where": "max(x) > 1"}, "more than one document"),
        ({"vote": True, "where": "x"}, "valid string"),
        ({"where": "x"}, "vote"),
    ],
)
def test_a_wrong_rule_is_found_when_the_recipe_is_read(fields: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        TypeAdapter(AnyFunctionParams).validate_python({"name": "r", **fields})


def test_an_expression_votes_by_class_name_index_or_condition() -> None:
    @labeling_function()
    def by_name() -> pl.Expr:
        return pl.when(pl.col("language") == "en").then(pl.lit("good")).when(pl.col("language") == "fr").then(pl.lit("bad"))

    @labeling_function("by_number")
    def number() -> pl.Expr:
        return pl.when(pl.col("words") > 15).then(1).otherwise(ABSTAIN)

    @labeling_function(vote="bad", otherwise="good")
    def by_condition() -> pl.Expr:
        return pl.col("adult")

    assert votes(by_name, number, by_condition) == [[1, -1, -1, 1, 0], [-1, 1, 1, -1, 1], [0, 1, -1, 1, 0]]
    assert number.name == "by_number" and not number.rows


def test_a_row_function_sees_one_document() -> None:
    @labeling_function()
    def language(document: dict) -> str | None:
        return {"en": "good", "de": "bad"}.get(document["language"] or "")

    @labeling_function(columns=["words"], vote="good", resources={"least": 20})
    def enough(document: dict, least: int) -> bool | None:
        assert list(document) == ["words"]
        return document["words"] and document["words"] >= least

    assert votes(language, enough) == [[1, 0, -1, 1, -1], [-1, 1, 1, -1, 1]]
    assert language({"language": "de"}) == "bad"


def _expression(made: object, **fields: str) -> LabelingFunction:
    return labeling_function("f", **fields)(lambda: made)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (_expression(pl.col("lang") == "en", vote="good"), "f: there is no column lang"),
        (_expression(pl.col("words") > pl.col("words").mean(), vote="good"), "more than one document"),
        (_expression(pl.lit("best")), "function f votes for no class of this task on document d/0"),
        (_expression(pl.lit(2)), "function f votes for no class of this task on document d/0"),
        (_expression(pl.col("score")), "returns Float64: class names, class indices"),
        (_expression(pl.col("adult")), "returns Boolean"),
        (_expression(True), "must return a Polars expression, and it returned bool"),
        (_expression(pl.col("words") > 1, vote="best"), "votes 'best', which is no class"),
        (labeling_function("f")(lambda d: d["words"] + 1), r"function f on document d/0 votes 11, which is no class"),
        (labeling_function("f")(lambda d: 1 / (d["words"] - 20)), r"f .* d/0 votes -0.1"),
        (labeling_function("f")(lambda d: 1 // (d["words"] - 10)), "f fails on document d/0: ZeroDivisionError"),
        (
            labeling_function("f", vote="good")(lambda d: "yes"),
            "on document d/0 returns 'yes': with vote= it answers true, false or None",
        ),
        (labeling_function("f", columns=["no"])(lambda d: None), "there is no column no"),
    ],
)
def test_a_faulty_python_function_is_named_with_the_document(function: LabelingFunction, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        votes(function)


def test_a_function_of_two_documents_is_refused() -> None:
    with pytest.raises(ValueError, match="takes 2 arguments"):
        labeling_function()(lambda one, other: None)


SOURCE = """
import polars as pl
from labelers.functions import labeling_function

@labeling_function(vote="good")
def wordy():
    return pl.col("words") > 15

@labeling_function(columns=["adult"], vote="bad")
def adult(document):
    return document["adult"]

both = [adult, wordy]
"""


def test_functions_come_from_files_and_modules_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules_of_thumb.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    path = str(tmp_path / "rules_of_thumb.py")
    told = [RuleParams(name="first", where="words > 1", vote="good"), PythonParams(python=path)]
    assert function_files(told) == {f"python:{path}": path}
    functions = load_functions(told, {f"python:{path}": Path(path)})
    assert [f.name for f in functions] == ["first", "wordy", "adult"]
    assert votes(*functions)[1:] == [[-1, 1, 1, -1, 1], [0, -1, -1, -1, 0]]
    module = [PythonParams(python="rules_of_thumb:both")]
    assert function_files(module) == {"python:rules_of_thumb:both": path}  # its content enters the fingerprint
    assert [f.name for f in load_functions(module, {})] == ["adult", "wordy"]


@pytest.mark.parametrize(
    ("source", "content", "told"),
    [
        ("f.py", "x = 1", "no function decorated"),
        ("f.py", "x = ", "SyntaxError"),
        ("f.py", "1 / 0", "ZeroDivisionError"),
        ("f.py", None, "No such file"),
        ("some_missing_module:f", None, "there is no module some_missing_module"),
        ("json:dumps", None, "neither a function decorated"),
        ("json", None, "module:attribute"),
    ],
)
def test_python_that_holds_no_functions_is_refused(tmp_path: Path, source: str, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / source).write_text(content)
    params = [PythonParams(python=source)]
    with pytest.raises(ValueError, match=told):
        load_functions(params, {key: tmp_path / path for key, path in function_files(params).items()})


@pytest.mark.parametrize(
    ("names", "told"), [(["a", "a"], "two labelling functions are called a"), (["id"], "cannot be called id")]
)
def test_names_of_functions_are_their_own(names: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_functions([RuleParams(name=n, where="words > 1", vote="good") for n in names], {})
