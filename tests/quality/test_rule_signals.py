"""The signals of Gopher, C4 and FineWeb equal plain Python on real pages, on made-up ones, and on what breaks splitters."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text import TextBatch
from quality.registry import measure, registered, select
from quality.signals.gopher import STOP_WORDS
from quality.signals.kernel_parts import is_space
from quality.signals.terminal_punctuation import TERMINAL_PUNCTUATION
from tests.quality import rules_oracle

OF_RULES = [s for s in registered().values() if s.of_rules]
PIECES = (
    "the ", "be ", "a.", "...", "…", "\n", "\n\n", "- x ", "• y\n", "lorem ipsum ", "javaScript ", "{", "[12]", "[edit]", "[",
    "]", "[citation needed]", "[١٢]", "use cookies ", "use cooKies. ", "Privacy Policy", "\u2028", "\x0b", "\r\n", "\x85",
    "\x1c", "x" * 1001, "é" * 1000, "good bye. ", "of and ", "#", "?\n", "!\n", '"\n', "  ", "\u3000", "۔\n", "1 2 3 4 5. ",
    "_", "１", "a b c d. e! f?\n", "Ok then, fine.\n", "..", "İ", "漢字", "e\u0301", "a b c d e f ", "a b ", "ab c ", "\0",
)  # fmt: skip
made_up = st.lists(st.sampled_from(PIECES), max_size=120).map("".join)


def expected(text: str, language: str = "en") -> Mapping[str, float | None]:
    words = rules_oracle.words_of(text)
    return {
        **rules_oracle.gopher(text, words, TERMINAL_PUNCTUATION, STOP_WORDS.get(language)),
        **rules_oracle.c4(text),
        **rules_oracle.fineweb(text, words, TERMINAL_PUNCTUATION),
    }


def check(texts: list[str], languages: list[str] | None = None) -> None:
    columns = {"language": pa.array(languages, pa.string())} if languages else None
    measured = measure(TextBatch(pa.array(texts, pa.large_string()), columns), OF_RULES)
    values = {name: column.to_pylist() for name, column in measured.items()}
    for row, text in enumerate(texts):
        wanted = expected(text, languages[row] if languages else "en")
        assert set(wanted) == set(values)
        for name, value in wanted.items():
            got = values[name][row]
            assert (got is None) == (value is None), (name, row, got, value, text[:80])
            assert got is None or abs(got - value) <= 1.1e-8, (name, row, got, value, text[:80])


@pytest.mark.parametrize("folder", ["", "edge"])
def test_real_pages_have_the_values_of_the_definitions(shared: Path, folder: str) -> None:
    table = pq.read_table(shared / "rpv2" / folder / "documents.parquet")
    texts = table["raw_content"].to_pylist()
    languages = table["language"].to_pylist() if "language" in table.column_names else None
    step = 1 if folder else 5
    check(texts[::step], languages[::step] if languages else None)


def test_made_up_pages_have_the_values_of_the_definitions() -> None:
    draw = random.Random(7)
    check(["".join(draw.choices(PIECES, k=draw.randrange(150))) for _ in range(600)] + ["", "\n", "\n\n \n", " ", "\u2028"])


@settings(max_examples=60, deadline=None)
@given(st.lists(made_up | st.text(max_size=60), max_size=4))
def test_any_text_has_the_values_of_the_definitions(texts: list[str]) -> None:
    check([text.encode("utf-8", "replace").decode() for text in texts])


def test_a_document_does_not_depend_on_the_others_of_its_batch() -> None:
    texts = ["a b c d e a b c d e.\n" * 3, "x", "", "a b c d e"]
    whole = measure(TextBatch(pa.array(texts)), OF_RULES)
    alone = [measure(TextBatch(pa.array([text])), OF_RULES) for text in texts]
    assert all(whole[s.name].to_pylist() == [each[s.name][0].as_py() for each in alone] for s in OF_RULES)


def test_more_distinct_lines_and_words_than_any_table_begins_with() -> None:
    lines = [f"line {i} of many" for i in range(3000)]
    check(["\n\n".join(lines + lines[:10]), " ".join(f"w{i}" for i in range(5000)) + " w1 w2 w3 w4 w5 w6 w7"])


def test_white_space_is_that_of_python() -> None:
    codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    ours = np.array([is_space(c) for c in range(0x3100)])
    assert [c for c in codes if chr(c).isspace()] == np.flatnonzero(ours).tolist()
    assert not any(chr(c).isspace() for c in range(0x3100, 0x110000))


def test_terminal_punctuation_is_fineweb_s() -> None:
    assert len(set(TERMINAL_PUNCTUATION)) == 159
    assert set(".?!。！？؟।") <= set(TERMINAL_PUNCTUATION) and not set(",;:…\"'”") & set(TERMINAL_PUNCTUATION)


def test_stop_words_are_those_of_the_language_and_unknown_languages_have_none() -> None:
    assert all(len(set(words)) == 8 for words in STOP_WORDS.values())
    text = TextBatch(pa.array(["der die und the", "the be", "the", "x"]), {"language": pa.array(["de", "en", "xx", None])})
    assert measure(text, select(["gopher_stop_words"]))["gopher_stop_words"].to_pylist() == [3.0, 2.0, None, None]
    alone = TextBatch(pa.array(["der die und the of"]))
    assert measure(alone, select(["gopher_stop_words"]))["gopher_stop_words"].to_pylist() == [2.0]


def test_all_leaves_out_the_signals_of_rule_sets() -> None:
    assert OF_RULES and not {s.name for s in OF_RULES} & {s.name for s in select("all")}
    assert [s.name for s in select([], also=["c4_num_sentences"])] == ["c4_num_sentences"]
