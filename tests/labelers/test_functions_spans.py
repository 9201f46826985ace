from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from labelers.functions import apply
from labelers.functions_spans import SpanParams

CLASSES = ("bad", "good")
FRAME = pl.DataFrame(
    {
        "id": ["a", "b", "c", "d"],
        "text": ["0123456789", "0123456789", "0123456789", ""],
        "toxic": [[[0.0, 4.0, 0.9], [6.0, 8.0, 0.2]], [], None, []],
        "quoted": [[{"start": 2, "end": 10, "score": None}], [], [], []],
        "line_start": [[0, 5], [0], [0], []],
        "line_end": [[5, 10], [10], [10], []],
        "words": [[1.0, 7.0], [3.0], [9.0], []],
    }
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"spans": "toxic", "min": 0.5}, [1, 0, -1, -1]),  # 6 of 10 characters; null and empty documents abstain
        ({"spans": "toxic", "min_score": 0.5, "min": 0.5}, [0, 0, -1, -1]),
        ({"spans": "toxic", "reduce": "count", "min": 2}, [1, 0, -1, 0]),
        ({"spans": "toxic", "reduce": "max", "min": 0.5}, [1, -1, -1, -1]),
        ({"spans": "toxic", "reduce": "weighted", "max": 0.7}, [1, -1, -1, -1]),
        ({"spans": "toxic", "within": "quoted", "reduce": "length", "max": 4}, [1, 1, -1, 1]),
        ({"spans": "toxic", "minus": "quoted", "reduce": "length", "min": 2, "max": 2}, [1, 0, -1, 0]),
        ({"spans": "toxic", "gap": 2, "min": 0.8}, [1, 0, -1, -1]),
        ({"spans": "words", "max_score": 3, "min": 0.5}, [1, 1, 0, -1]),  # a line signal: shares of the lines' characters
        ({"spans": "words", "reduce": "mean", "min": 4}, [1, 0, 1, -1]),
    ],
)
def test_spans_become_votes(fields: dict, expected: list[int]) -> None:
    function = SpanParams(name="f", vote="good", otherwise="bad", **fields)
    assert apply([function], CLASSES, FRAME)["f"].to_pylist() == expected


def test_line_signals_of_real_documents_vote(shared: Path) -> None:
    documents = pl.read_parquet(shared / "rpv2" / "documents.parquet", columns=["id", "raw_content"])
    frame = documents.join(pl.read_parquet(shared / "rpv2" / "signals.parquet"), on="id")
    function = SpanParams(name="f", spans="rps_lines_num_words", max_score=3, reduce="count", min=50, vote="bad")
    expected = [0 if sum(w <= 3 for w in words) >= 50 else -1 for words in frame["rps_lines_num_words"].to_list()]
    assert apply([function], CLASSES, frame)["f"].to_pylist() == expected and {0, -1} <= set(expected)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"spans": "toxi"}, "labelling function f: there is no column toxi .did you mean toxic"),
        ({"spans": "text"}, "labelling function f: column text is String, not spans"),
        ({"spans": "toxic", "minus": "id"}, "column id is String, not spans"),
    ],
)
def test_columns_that_hold_no_spans_are_told(fields: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        apply([SpanParams(name="f", vote="good", min=0.5, **fields)], CLASSES, FRAME)


def test_line_signals_need_the_ends_of_the_lines() -> None:
    with pytest.raises(ValueError, match="the columns line_start and line_end must be there too"):
        apply([SpanParams(name="f", vote="good", min=0.5, spans="words")], CLASSES, FRAME.drop("line_start"))


def test_a_threshold_is_needed() -> None:
    with pytest.raises(ValidationError, match="spans need min or max, the threshold of their coverage"):
        SpanParams(name="f", vote="good", spans="toxic")
