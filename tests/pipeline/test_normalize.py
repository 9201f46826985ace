"""CCNet's text normalisation, held against a plain reading of its definition."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from pipeline.normalize import normalize
from pipeline.punctuation import CONTROL_CHARACTERS, PUNCTUATION


def by_definition(text: str) -> str:
    """One step after the other, one character at a time."""
    text = text.strip().lower()
    text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    text = re.sub(r"\d", "0", text)
    text = "".join(PUNCTUATION.get(c, c) for c in text)
    return "".join(c for c in text if c not in CONTROL_CHARACTERS)


def test_the_table_has_ccnets_34_characters_and_65_controls() -> None:
    assert len(PUNCTUATION) == 34
    assert len(CONTROL_CHARACTERS) == 65


def test_every_step_is_taken() -> None:
    assert normalize("  Crème BRÛLÉE 2024\n") == "creme brulee 0000"
    assert normalize("„So“ — sagt er … 50％ ►") == '"so"  -  sagt er ... 00% -'
    assert normalize("１２３ ٣٤ (x)") == "000 00 (x)", "full-width digits become 0 before the table can map １ to a quote"
    assert normalize("first\r\nsecond\tthird\x85fourth") == "firstsecondthirdfourth", "newlines go, and nothing comes for them"
    assert normalize("İstanbul") == "istanbul"
    assert normalize(" \n\u3000 ") == ""


@given(
    st.text(st.characters(codec="utf-8"), max_size=60) | st.text("aZ1é\u0301\u0323ｱ１。—…가\u1161İΣς\u0345\x85\n ", max_size=40)
)
def test_it_is_what_the_definition_says(text: str) -> None:
    assert normalize(text) == by_definition(text)


def test_it_is_what_the_definition_says_on_real_pages(shared: Path) -> None:
    texts = pq.read_table(shared / "rpv2/documents.parquet", columns=["raw_content"])["raw_content"].to_pylist()
    for text in texts[::4]:
        assert normalize(text) == by_definition(text)
