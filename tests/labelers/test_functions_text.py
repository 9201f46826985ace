from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from labelers.functions import apply
from labelers.functions_scores import ScoreParams
from labelers.functions_text import TextParams
from labelers.functions_yaml import AnyFunctionParams, function_files, load_functions

CLASSES = ("bad", "good")
TEXTS = ["How to bake: a how-to. HOW  TO", "nothing", None, "", "c++ and C++, not c", "howto"]


def votes(told: dict, texts: list[str | None] = TEXTS, files: dict[str, Path] | None = None) -> list[int]:
    function = TypeAdapter(AnyFunctionParams).validate_python({"name": "f", **told})
    frame = pl.DataFrame({"id": [str(i) for i in range(len(texts))], "text": pl.Series(texts, dtype=pl.String)})
    return apply(load_functions([function], files or {}), CLASSES, frame)["f"].to_pylist()


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"keywords": ["how to"], "vote": "good"}, [1, -1, -1, -1, -1, -1]),
        ({"keywords": ["how to"], "min": 2, "vote": "good", "otherwise": "bad"}, [1, 0, -1, 0, 0, 0]),
        ({"keywords": ["how to"], "min": 2, "ignore_case": False, "vote": "good"}, [-1, -1, -1, -1, -1, -1]),
        ({"keywords": ["c++"], "min": 2, "vote": "bad"}, [-1, -1, -1, -1, 0, -1]),
        ({"keywords": ["c", "c++"], "max": 2, "min": 1, "vote": "bad"}, [-1, -1, -1, -1, -1, -1]),
        ({"keywords": ["nothing"], "max": 0, "vote": "good"}, [1, -1, -1, 1, 1, 1]),
        ({"pattern": "(?i)how.?to", "vote": "good"}, [1, -1, -1, -1, -1, 1]),
        ({"pattern": r"\bC\+\+", "vote": "good"}, [-1, -1, -1, -1, 1, -1]),
        ({"pattern": "(?i)o", "count": "per_1000_characters", "min": 150, "vote": "good"}, [1, -1, -1, -1, -1, 1]),
        ({"keywords": ["c++"], "count": "per_1000_words", "min": 400, "vote": "good"}, [-1, -1, -1, -1, 1, -1]),
    ],
)
def test_words_and_patterns_are_counted(told: dict, expected: list[int]) -> None:
    assert votes(told) == expected


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text("ab é.-", min_size=1).filter(lambda w: w.strip()), min_size=1, max_size=4),
    st.lists(st.text("ab é.-\n", max_size=30), max_size=6),
)
def test_keywords_are_the_whole_words_that_searching_by_hand_finds(words: list[str], texts: list[str]) -> None:
    def by_hand(text: str) -> bool:
        for word in words:
            pattern = r"\s+".join(map(re.escape, word.split()))
            for found in re.finditer(f"(?={pattern})", text, re.IGNORECASE):
                length = re.match(pattern, text[found.start() :], re.IGNORECASE).end()  # type: ignore[union-attr]
                piece, rest = text[: found.start()], text[found.start() + length :]
                first, last = word.strip()[0], word.strip()[-1]
                if not (first.isalnum() and piece[-1:].isalnum()) and not (last.isalnum() and rest[:1].isalnum()):
                    return True
        return False

    assert votes({"keywords": words, "vote": "good"}, list(texts)) == [1 if by_hand(t) else -1 for t in texts]


def test_a_long_list_of_keywords_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# a comment\n" + "\n".join(f"word{i}" for i in range(2500)) + "\nhow to\n\n", encoding="utf-8")
    told = TextParams(name="f", keywords_file=str(path), min=2, vote="good")
    assert function_files([told]) == {f"keywords:{path}": str(path)}
    fields = {"keywords_file": str(path), "min": 2, "vote": "good"}
    assert votes(fields, ["how to word7", "word7 word2499", "word7"], {f"keywords:{path}": path}) == [1, 1, -1]
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no keyword"):
        votes(fields, files={f"keywords:{path}": path})


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"keywords": ["a"], "pattern": "b", "vote": "good"}, "give one of keywords, keywords_file and pattern"),
        ({"keywords": [], "vote": "good"}, "words that are not empty"),
        ({"keywords": [" "], "vote": "good"}, "words that are not empty"),
        ({"pattern": "(?<=a)b", "vote": "good"}, "is not understood"),
        ({"pattern": "(", "vote": "good"}, "is not understood"),
        ({"pattern": "a", "min": 3, "max": 2, "vote": "good"}, "min 3 is above max 2"),
        ({"pattern": "a", "count": "per_1000_words", "vote": "good"}, "needs min or max"),
        ({"score": "s", "vote": "good"}, "needs high .*, low .*, or both"),
        ({"score": "s", "high": 1, "vote": "good", "otherwise": "bad"}, "low goes with otherwise"),
        ({"score": "s", "high": 1}, "high goes with vote"),
        ({"score": "s", "high": 1, "low": 2, "vote": "good", "otherwise": "bad"}, "low 2 is not below high 1"),
    ],
)
def test_a_wrong_function_is_found_when_the_recipe_is_read(told: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(AnyFunctionParams).validate_python({"name": "f", **told})


def test_text_must_be_there_and_be_text() -> None:
    frame = pl.DataFrame({"id": ["a"], "title": [1]})
    for fields, told in (({}, "no column raw_content or text"), ({"column": "title"}, "Int64, not text"),
                         ({"column": "titel"}, "did you mean title")):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            apply([TextParams(name="f", keywords=("a",), vote="good", **fields)], CLASSES, frame)


def test_a_score_votes_at_its_ends_and_doubts_between_them() -> None:
    frame = pl.DataFrame({"id": list("abcdef"), "s": [0.0, 0.2, 0.5, 0.8, float("nan"), None]})
    both = ScoreParams(name="f", score="s", high=0.8, vote="good", low=0.2, otherwise="bad")
    assert apply([both], CLASSES, frame)["f"].to_pylist() == [0, 0, -1, 1, -1, -1]
    one = ScoreParams(name="f", score="s", low=0.2, otherwise="good")
    assert apply([one], CLASSES, frame)["f"].to_pylist() == [1, 1, -1, -1, -1, -1]
    for column, told in (("t", "no column t"), ("id", "a score is a number")):
        with pytest.raises(ValueError, match=told):
            apply([both.model_copy(update={"score": column})], CLASSES, frame)
