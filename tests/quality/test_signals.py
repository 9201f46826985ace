"""Signals equal the published definitions, on reference values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.text import TextBatch
from quality import registry
from quality.registry import Signal, measure, registered, select, signal

NATURAL_LANGUAGE = [s for s in registered().values() if s.measure.__module__.endswith("natural_language")]


def equal_to_golden(measured: dict[str, pa.Array], golden: pa.Table) -> int:
    compared = 0
    for name in set(measured) & set(golden.column_names):
        ours, theirs = measured[name].to_pylist(), golden[name].to_pylist()
        for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert (a is None) == (b is None), (name, row, a, b)
            if b is not None and a != b:
                assert not float(b).is_integer() or abs(a - b) < 1e-8, (name, row, a, b)
                assert abs(a - b) <= 1e-8, (name, row, a, b)
            compared += 1
    return compared


@pytest.mark.parametrize("folder", ["", "edge"])
def test_natural_language_signals_equal_the_reference(shared: Path, folder: str) -> None:
    documents = pq.read_table(shared / "rpv2" / folder / "documents.parquet")
    golden = pq.read_table(shared / "rpv2" / folder / "signals.parquet")
    assert len(NATURAL_LANGUAGE) == 9
    measured = measure(TextBatch(documents["raw_content"]), NATURAL_LANGUAGE)
    assert equal_to_golden(measured, golden) == 9 * documents.num_rows


def test_ccnet_signals_equal_the_reference(shared: Path) -> None:
    documents = pq.read_table(shared / "rpv2" / "documents.parquet")
    golden = pq.read_table(shared / "rpv2" / "signals.parquet")
    ccnet = [s for s in registered().values() if s.name.startswith("ccnet_")]
    measured = measure(next(TextBatch.over(documents, size=1 << 40)), ccnet)
    assert equal_to_golden(measured, golden) == 7 * documents.num_rows


def test_values_do_not_depend_on_the_other_documents_of_a_batch(shared: Path) -> None:
    documents = pq.read_table(shared / "rpv2" / "documents.parquet").slice(0, 60)
    whole = measure(TextBatch(documents["raw_content"]), select())
    for row in (0, 17, 59):
        alone = measure(TextBatch(documents["raw_content"].slice(row, 1)), select())
        assert {n: v[0] for n, v in whole.items() if v[row] != alone[n][0]} == {}


def test_documents_own_columns_come_before_what_the_text_shows() -> None:
    columns = {
        "length": pa.array([7, None]),
        "bucket": pa.array(["tail", "somewhere"]),
        "perplexity": pa.array([12.5, None]),
    }
    measured = measure(TextBatch(pa.array(["abc", "d\ne"]), columns), select())
    assert measured["ccnet_length"].to_pylist() == [7.0, None]
    assert measured["ccnet_original_length"].to_pylist() == [3.0, 3.0]
    assert measured["ccnet_nlines"].to_pylist() == [1.0, 2.0]
    assert measured["ccnet_bucket"].to_pylist() == [2.0, None]
    assert measured["ccnet_perplexity"].to_pylist() == [12.5, None]
    assert measured["ccnet_language_score"].to_pylist() == [None, None]


def test_no_document_gives_empty_columns() -> None:
    measured = measure(TextBatch(pa.array([], pa.large_string())), select())
    assert all(len(v) == 0 and v.type == pa.float64() for v in measured.values())


def test_every_signal_has_a_definition_and_a_source() -> None:
    for each in registered().values():
        assert each.definition and each.source, each.name
        assert set(each.needs) <= set(registry.VIEWS)


def test_selection_keeps_the_registry_order_and_names_the_unknown() -> None:
    names = [s.name for s in select(["rps_doc_word_count", "ccnet_length"])]
    assert names == ["ccnet_length", "rps_doc_word_count"]
    with pytest.raises(ValueError, match="no signal is named wordcount; there is ccnet_length"):
        select(["wordcount"])


def test_registration_refuses_what_a_reader_could_not_understand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registered()))

    def undocumented(text: TextBatch) -> pa.Array:
        return pa.nulls(len(text), pa.float64())

    def documented(text: TextBatch) -> pa.Array:
        """Always null."""
        return pa.nulls(len(text), pa.float64())

    with pytest.raises(ValueError, match="no docstring"):
        signal("mine", source="me")(undocumented)
    with pytest.raises(ValueError, match="two signals are named rps_doc_word_count"):
        signal("rps_doc_word_count", source="me")(documented)
    with pytest.raises(ValueError, match="needs tokens, but a TextBatch has text"):
        signal("mine", needs="tokens", source="me")
    signal("mine", needs="words", source="me")(documented)
    assert select(["mine"])[0].definition == "Always null."


def test_a_signal_of_the_wrong_length_is_named() -> None:
    short = Signal("short", "Too short.", "me", (), (), lambda text: pa.array([1.0]))
    with pytest.raises(ValueError, match="signal short returned 1 values of type double: it must return 2"):
        measure(TextBatch(pa.array(["a", "b"])), [short])


def test_the_published_example_has_its_published_values() -> None:
    text = "Hello World! THIS is a test...\n• item one 123\n\nJavaScript, javascript { }"
    values = {n: v[0].as_py() for n, v in measure(TextBatch(pa.array([text])), NATURAL_LANGUAGE).items()}
    assert values["rps_doc_word_count"] == 12 and values["rps_doc_num_sentences"] == 3
    assert values["rps_doc_unigram_entropy"] == 2.36938212
    assert np.isclose(values["rps_doc_frac_no_alph_words"], 0.41176471, atol=1e-9)


def test_the_guide_lists_every_signal() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "signals.md").read_text()
    assert [name for name in registered() if f"| `{name}` |" not in guide] == []


def test_the_guides_own_signal_works(monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "signals.md").read_text()
    monkeypatch.setattr(registry, "_REGISTERED", dict(registered()))
    exec(guide.split("```python\n")[1].split("```")[0], {"__name__": "guide"})
    values = measure(TextBatch(pa.array(["a1b2", "", "none"])), select(["digits_per_character"]))
    assert values["digits_per_character"].to_pylist() == [0.5, None, 0.0]
