"""Signals equal the published definitions, on reference values."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text import TextBatch
from pipeline.word_hashes import ngram_hash
from quality import registry
from quality.importance import ImportanceTable
from quality.registry import Context, Mode, Signal, line_spans, measure, registered, select, signal
from quality.resources import SignalResources
from quality.signals import content, natural_language
from tests.quality import redpajama_twin as twin

NATURAL_LANGUAGE = [s for s in registered().values() if ".natural_language." in s.origin]
OF_MODELS = ("rps_doc_ml_", "rps_doc_books_", "rps_doc_openwebtext_", "rps_doc_wikipedia_")
LISTS = SignalResources(
    stop_words={"en": frozenset({"the", "a", "is", "ı", "Ω", "!", "été"}), "fr": frozenset({"le", "été"})},
    ldnoobw={"en": ("the", "the the", "a is the", "a is", "a  is", "ok-ay", "Bad"), "fr": ("e\u0301te\u0301", "été le")},
    ut1={"bad.org": 3, "www.bad.org": 7, "x.de": 0},
)
TABLES = {
    ("ccnet", "en"): ImportanceTable(np.arange(1, 51), 3.0),
    ("wikipedia", "en"): ImportanceTable(np.arange(50, 0, -1), 2.0),
    ("books", "en"): ImportanceTable(np.arange(50) % 7, 4.5),
    ("ccnet", "fr"): ImportanceTable(np.ones(50, np.int64), 2.0),
    ("wikipedia", "fr"): ImportanceTable(np.arange(50) % 3, 5.0),
}


MENDED = (
    content.blocked_words,
    content.stop_word_fraction,
    content.block_listed_domain,
    natural_language.fraction_of_words_without_letter,
)


def published() -> list[Signal]:
    """RedPajama-V2's signals."""
    return [s for s in registered().values() if s.name.startswith(("ccnet_", "rps_"))]


def whole(documents: pa.Table) -> TextBatch:
    return next(TextBatch.over(documents, size=1 << 40))


def equal(measured: object, golden: object) -> bool:
    """The same nulls and integers; other numbers to 1e-8 (of numbers rounded to 8 decimals, the last may differ by one)."""
    if isinstance(golden, list) and isinstance(measured, list):
        return len(measured) == len(golden) and all(equal(a, b) for a, b in zip(measured, golden, strict=True))
    if measured is None or golden is None:
        return measured is golden
    assert isinstance(measured, int | float) and isinstance(golden, int | float)
    return measured == golden or (not float(golden).is_integer() and abs(measured - golden) < 1.001e-8)


def differences(measured: dict[str, pa.Array], golden: dict[str, list]) -> list[tuple]:
    return [
        (name, row, a, b)
        for name in sorted(set(measured) & set(golden))
        for row, (a, b) in enumerate(zip(measured[name].to_pylist(), golden[name], strict=True))
        if not equal(a, b)
    ]


@pytest.mark.parametrize("folder", ["", "edge"])
def test_signals_equal_the_reference(shared: Path, folder: str) -> None:
    documents = pq.read_table(shared / "rpv2" / folder / "documents.parquet")
    golden = pq.read_table(shared / "rpv2" / folder / "signals.parquet")
    lists = SignalResources.load(ldnoobw=shared / "rpv2" / "ldnoobw", ut1=shared / "rpv2" / "ut1.json")
    chosen = [s for s in published() if not s.name.startswith((*OF_MODELS, "rps_doc_stop_word"))]
    assert len(chosen) == 7 + 4 + 9 + 9 + 6
    measured = measure(whole(documents), chosen, Context(resources=lists))
    measured |= line_spans(whole(documents))
    assert differences(measured, golden.to_pydict()) == []
    compared = set(measured) & set(golden.column_names)
    assert len(compared) == (37 if folder == "" else 31)  # the edge texts have one of the ccnet signals


_SPELLED = """the a is The THE bad Bad lorem ipsum javascript JavaScript, x y z one 12 ½ ² éte été le e\u0301te\u0301 Ω ΑΣ ı
{x} ... … # ! . ok-ay"""
WORDS = st.sampled_from([*_SPELLED.split(), "Lorem, ipsum", "dolorem ipsum.s"])
DOCUMENTS = st.lists(
    st.one_of(
        st.lists(st.one_of(WORDS, st.sampled_from(["\n", "  ", " • ", "\t", "”\n"])), max_size=60).map(" ".join),
        st.text(max_size=60),
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(
    texts=DOCUMENTS, language=st.sampled_from(["en", "fr", "xx", None]), domain=st.sampled_from(["bad.org", "x.de", "", None])
)
def test_signals_equal_their_definitions_for_any_text(texts: list[str], language: str | None, domain: str | None) -> None:
    """Against plain Python, written from the definitions, with lists and tables of two languages."""
    resources = SignalResources(LISTS.stop_words, LISTS.ldnoobw, LISTS.ut1, TABLES)
    rows = len(texts)
    columns = {"language": pa.array([language] * rows, pa.string()), "source_domain": pa.array([domain] * rows, pa.string())}
    measured = measure(TextBatch(pa.array(texts, pa.string()), columns), published(), Context(resources=resources))
    measured |= line_spans(TextBatch(pa.array(texts, pa.string())))
    known = language in LISTS.stop_words
    weights: dict[str, tuple[np.ndarray, float, float]] = {}
    for (target, of), table in TABLES.items():
        if of == language and target != "ccnet":
            source = TABLES["ccnet", of]
            weights[target] = table.log_share() - source.log_share(), table.mean_length, source.mean_length
    lists = twin.Lists(
        stop_words=LISTS.stop_words[language] if known else None,
        blocked=LISTS.ldnoobw[language] if known else (),
        domains=LISTS.ut1,
        hash=lambda x: (ngram_hash(x if isinstance(x, tuple) else (x,)) >> 32) * 50 >> 32,
        weights=weights,
    )
    for row, text in enumerate(texts):
        expected = twin.signals(twin.Document(text, domain), lists)
        expected["rps_doc_ldnoobw_words"] = expected["rps_doc_ldnoobw_words"] if known else None
        alone = {name: values.slice(row, 1) for name, values in measured.items() if name in expected}
        assert len(alone) == len(expected)
        assert differences(alone, {name: [value] for name, value in expected.items()}) == []


def test_the_fixed_mode_mends_what_the_definitions_say() -> None:
    texts = ["The été is à Ω", "e\u0301te\u0301 OK-AY bad the", "", "!"]
    columns = {
        "language": pa.array(["en", "en", "en", "en"]),
        "source_domain": pa.array(["WWW.x.de:8080", "www.bad.org", "a.b.bad.org.", None]),
    }
    resources = SignalResources(
        {"en": frozenset({"the", "is"})},
        {"en": ("été", "okay", "Bad")},
        LISTS.ut1,
        {k: TABLES[k] for k in TABLES if k[1] == "en"},
    )

    def told(mode: Mode) -> dict[str, list]:
        found = measure(TextBatch(pa.array(texts), columns), published(), Context(mode, resources))
        return {name: values.to_pylist() for name, values in found.items()}

    as_published, fixed = told("redpajama-v2"), told("fixed")
    assert as_published["rps_doc_stop_word_fraction"] == [0.2, 0.16666667, 0.0, 0.0]
    assert fixed["rps_doc_stop_word_fraction"] == [0.4, 0.16666667, 0.0, 0.0]
    assert as_published["rps_doc_ldnoobw_words"] == [0, 1, 0, 0]  # okay; neither "été", which is in NFC, nor "Bad"
    assert fixed["rps_doc_ldnoobw_words"] == [1, 3, 0, 0]
    assert as_published["rps_doc_ut1_blacklist"] == [None, 7, None, None]
    assert fixed["rps_doc_ut1_blacklist"] == [0, 7, 3, None]
    assert as_published["rps_doc_frac_no_alph_words"] == [0.4, 0.16666667, None, 1.0]
    assert fixed["rps_doc_frac_no_alph_words"] == [0.0, 0.16666667, None, 1.0]
    features = np.array([9, 11, 1, 1])
    for name in ("rps_doc_wikipedia_importance", "rps_doc_books_importance"):
        plain, mended = as_published[name], fixed[name]
        assert plain[2] is mended[2] is None
        assert [mended[i] for i in (0, 1, 3)] == pytest.approx([plain[i] / features[i] for i in (0, 1, 3)], abs=1e-8)
        longer = fixed[f"{name}_length_correction"], as_published[f"{name}_length_correction"]
        assert longer[0][0] != pytest.approx(longer[1][0] / 9, abs=1e-6)
    assert as_published["rps_doc_openwebtext_importance"] == fixed["rps_doc_openwebtext_importance"] == [None] * 4
    same = {"rps_doc_stop_word_fraction", "rps_doc_ldnoobw_words", "rps_doc_ut1_blacklist", "rps_doc_frac_no_alph_words"}
    for name in set(fixed) - same:
        assert "importance" in name or fixed[name] == as_published[name], name
    assert all("Fixed:" in text for text in (inspect.getdoc(f) or "" for f in MENDED))


@pytest.mark.parametrize("vocabulary", [1_500, 2_000_000])
def test_a_document_of_many_words_is_counted_in_rounds(vocabulary: int) -> None:
    """More different words, or pairs of words, than a hash table holds: the same values, wherever repeats are."""
    count = (1 << 20) + 500_000
    codes = np.random.default_rng(3).integers(0, vocabulary, count)
    codes[-50_000:-20_000] = codes[:30_000]
    text = " ".join(map("w{}".format, codes.tolist()))
    names = ["top_2gram", "dupe_6grams"]
    chosen = [*(f"rps_doc_frac_chars_{n}" for n in names), "rps_doc_frac_unique_words", "rps_doc_unigram_entropy"]
    measured = {n: v[0].as_py() for n, v in measure(TextBatch(pa.array([text])), select(chosen)).items()}
    lengths = 2 + np.floor(np.log10(np.maximum(codes, 1))).astype(int)
    share = np.unique(codes, return_counts=True)[1] / count
    assert measured["rps_doc_frac_unique_words"] == round(len(share) / count, 8)
    assert measured["rps_doc_unigram_entropy"] == pytest.approx(-(share * np.log(share)).sum(), abs=1e-8)
    covered = 2 * lengths[:30_000].sum() / lengths.sum()
    assert measured["rps_doc_frac_chars_dupe_6grams"] == pytest.approx(covered, abs=1e-8)
    _, places, counts = np.unique(codes[:-1] * vocabulary + codes[1:], return_index=True, return_counts=True)
    first = places[counts == counts.max()].min()
    top = counts.max() * (lengths[first] + lengths[first + 1]) / lengths.sum()
    assert measured["rps_doc_frac_chars_top_2gram"] == pytest.approx(top, abs=1e-8)


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
    assert all(len(measured[s.name]) == 0 and measured[s.name].type == s.type for s in select())


def test_every_signal_has_a_definition_and_a_source() -> None:
    for each in registered().values():
        assert each.definition and each.source, each.name
        assert set(each.needs) <= set(registry.VIEWS)


def test_selection_keeps_the_registry_order_and_names_the_unknown() -> None:
    names = [s.name for s in select(["rps_doc_word_count", "ccnet_length"])]
    assert names == ["ccnet_length", "rps_doc_word_count"]
    with pytest.raises(ValueError, match=r"no signal is named wordcount.*lists all"):
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
    short = Signal("short", "Too short.", "me", (), (), lambda text, context: pa.array([1.0]))
    with pytest.raises(ValueError, match="signal short returned 1 values of type double: it must return 2"):
        measure(TextBatch(pa.array(["a", "b"])), [short])


def test_the_published_example_has_its_published_values() -> None:
    text = "Hello World! THIS is a test...\n• item one 123\n\nJavaScript, javascript { }"
    values = {n: v[0].as_py() for n, v in measure(TextBatch(pa.array([text])), NATURAL_LANGUAGE).items()}
    assert values["rps_doc_word_count"] == 12 and values["rps_doc_num_sentences"] == 3
    assert values["rps_doc_unigram_entropy"] == 2.36938212
    assert np.isclose(values["rps_doc_frac_no_alph_words"], 0.41176471, atol=1e-9)
