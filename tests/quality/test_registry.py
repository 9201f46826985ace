"""Signals of one's own: registered, chosen, measured, and what becomes of documents that they cannot measure."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.stage import StageResult
from pipeline.text import TextBatch
from quality import registry
from quality.annotate import Annotate, AnnotateParams, annotate
from quality.importance import ImportanceTable
from quality.registry import Context, measure, registered, row_signal, scores, select, signal, unavailable
from quality.resources import HOW_TO_GET, SignalResources

OWN = '''
import pyarrow as pa
from pipeline.text import TextBatch
from quality.registry import ratio, row_signal, signal

@signal("vowels", needs=("text", "characters"), source="a test", range=(0, 1))
def vowels(text: TextBatch) -> pa.Array:
    """Vowels over characters; null for an empty text."""
    return ratio([sum(c in "aeiou" for c in s) for s in text.strings], text.characters)

@row_signal("shout", columns="language", source="a test")
def shout(raw_content, language):
    """Exclamation marks; an error where the text is a question; null in French."""
    if "?" in raw_content:
        raise KeyError("no answer")
    return None if language == "fr" else raw_content.count("!")

@row_signal("line_length", source="a test", level="line")
def line_length(raw_content):
    """Characters of each line."""
    return [len(line) for line in raw_content.splitlines()]
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a file with signals, which are forgotten after the test."""
    monkeypatch.setattr(registry, "_REGISTERED", dict(registered()))
    path = tmp_path / "own_signals.py"
    path.write_text(OWN + f"# {tmp_path}\n")  # a content, and so a module, of its own
    return str(path)


def table(texts: list[str], languages: list[str] | None = None) -> pa.Table:
    ids = [str(i) for i in range(len(texts))]
    return pa.table({"id": ids, "raw_content": texts, "language": pa.array(languages or ["en"] * len(texts)), "url": ids})


def test_signals_of_a_file_are_chosen_and_measured(own: str) -> None:
    chosen = select(["vowels", "shout", "line_length", "rps_doc_word_count"], [own])
    assert [s.name for s in chosen] == ["rps_doc_word_count", "vowels", "shout", "line_length"]
    assert chosen[1].definition == "Vowels over characters; null for an empty text." and chosen[1].range == (0, 1)
    told = annotate(table(["abc!\nd", "", "!!"], ["en", "en", "fr"]), chosen).signals
    assert told["vowels"].to_pylist() == [0.16666667, None, 0.0]
    assert told["shout"].to_pylist() == [1.0, 0.0, None]
    assert told["line_length"].to_pylist() == [[4.0, 1.0], [], [2.0]]
    assert told["line_start"].to_pylist() == [[0, 5], [], [0]] and told["line_end"].to_pylist() == [[5, 6], [], [2]]


def test_a_document_that_a_signal_cannot_measure_is_rejected_and_the_rest_goes_on(own: str) -> None:
    params = AnnotateParams.model_validate({"signals": ["shout", "vowels", "rps_doc_word_count"], "modules": [own]})
    stage = pickle.loads(pickle.dumps(Annotate(params)))
    stage.setup({key: Path(path) for key, path in stage.files().items()})
    result: StageResult = stage.run("p", {"documents": table(["a!", "what?", "b !", "why?"])})
    signals = result.tables["signals"]
    assert result.rows_in == signals.num_rows == 4
    assert signals["shout"].to_pylist() == [1.0, None, 1.0, None]
    assert signals["rps_doc_word_count"].to_pylist() == [1, 1, 1, 1] and signals["vowels"].null_count == 0
    assert result.metrics["rejected_documents"] == {"signal_error": 2}
    assert result.rejects is not None
    assert result.rejects.to_pylist()[1] == {
        "record_id": "3",
        "url": "3",
        "reason": "signal_error",
        "detail": "shout: KeyError: 'no answer'",
        "excerpt": "why?",
    }
    assert "signals:" + own in stage.files(), "a change of the file makes the stage run again"


def test_a_batch_signal_that_raises_is_measured_document_by_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registered()))

    @signal("fragile", source="a test")
    def fragile(text: TextBatch, context: Context) -> pa.Array:
        """One, unless a text is bad."""
        if "bad" in text.strings:
            raise ZeroDivisionError("bad text")
        return scores([1.0 if context.mode == "fixed" else 0.0] * len(text))

    failures: list[registry.Failure] = []
    text = TextBatch(pa.array(["a", "bad", "c"]))
    told = measure(text, select(["fragile"]), Context("fixed"), failures)
    assert told["fragile"].to_pylist() == [1.0, None, 1.0]
    assert [(f.document, f.signal, str(f.error)) for f in failures] == [(1, "fragile", "bad text")]
    with pytest.raises(ZeroDivisionError):
        measure(text, select(["fragile"]))


def test_an_error_of_a_built_in_signal_is_no_document_s_fault() -> None:
    documents = table(["a"]).append_column("length", pa.array(["long"]))
    with pytest.raises(ValueError, match="column length should hold numbers"):
        annotate(documents, select("ccnet_length"))


def test_each_field_says_what_made_it() -> None:
    for mode in registry.MODES:
        told = annotate(table(["a b"]), select(["rps_doc_word_count", "rps_lines_num_words"]), context=Context(mode)).signals
        assert told.column_names == ["id", "line_start", "line_end", "rps_doc_word_count", "rps_lines_num_words"]
        metadata = told.schema.field("rps_doc_word_count").metadata
        assert metadata == {
            b"mode": mode.encode(),
            b"definition": b"Normalised words.",
            b"source": b"RedPajama-V2; Gopher A.1.1",
        }


def test_modules_that_cannot_be_imported_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name")
    for told, message in (
        (str(broken), "signals of .*broken.py cannot be imported: ModuleNotFoundError"),
        ("no.such.module", r"signals of no.such.module cannot be imported: .* \(a file is named with its ending"),
        (str(tmp_path / "absent.py"), "absent.py cannot be imported: FileNotFoundError"),
    ):
        with pytest.raises(ValueError, match=message):
            select("all", [told])


def test_a_file_without_signals_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty_handed.py").write_text("x = 1")
    with pytest.raises(ValueError, match=r"empty_handed.py .*there is none: put @signal or @row_signal"):
        select("all", [str(tmp_path / "empty_handed.py")])


@pytest.mark.parametrize("name", ["id", "line_start", "two words", "a,b"])
def test_names_that_no_signal_may_have_are_told(name: str) -> None:
    with pytest.raises(ValueError, match=f"a signal cannot be named '{name}'"):
        row_signal(name, source="a test")(str)


def test_a_value_too_many_rejects_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registered()))

    @row_signal("pieces", source="a test", level="line")
    def pieces(raw_content: str) -> list[int]:
        """Lengths of what newlines separate: one piece more than lines after a final newline."""
        return [len(piece) for piece in raw_content.split("\n")]

    told = annotate(table(["a\nbc", "a\nbc\n"]), select("pieces"))
    assert told.signals["pieces"].to_pylist() == [[1.0, 2.0], None]
    assert told.rejects["detail"].to_pylist() == ["pieces: ValueError: 3 values for 2 lines"]


def test_nan_is_no_value() -> None:
    assert scores([1.0, np.nan, 2.0], np.array([True, True, False])).to_pylist() == [1.0, None, None]
    text = TextBatch(pa.array(["a", "b"]), {"perplexity": pa.array([np.nan, 3.5])})
    assert measure(text, select("ccnet_perplexity"))["ccnet_perplexity"].to_pylist() == [None, 3.5]


def test_a_signal_that_returns_no_arrow_array_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registered()))

    @signal("plain_numbers", source="a test")
    def plain(text: TextBatch) -> object:
        """An array that is not Arrow's."""
        return np.zeros(len(text))

    with pytest.raises(ValueError, match="plain_numbers returned a ndarray: it must return an Arrow array"):
        annotate(table(["a"]), select("plain_numbers"))


def test_a_model_or_table_of_another_signal_is_not_there() -> None:
    table = ImportanceTable(np.ones(4, np.int64), 1.0)
    held = SignalResources(
        classifiers={"rps_doc_ml_palm_score": object()}, importance={("books", "en"): table, ("ccnet", "en"): table}
    )
    told = unavailable(select("all"), held.held())
    assert "rps_doc_ml_palm_score" not in told and "rps_doc_books_importance_length_correction" not in told
    assert "rps_doc_ml_wikiref_score" in told and "rps_doc_wikipedia_importance" in told
    no_source = SignalResources(importance={("books", "en"): table, ("ccnet", "de"): table})
    assert "rps_doc_books_importance" in unavailable(select("all"), no_source.held())


def test_what_is_missing_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    told = unavailable(select("all"), SignalResources().held())
    assert told["rps_doc_ut1_blacklist"].endswith("(`menagerie models fetch ut1`, then --ut1 FILE)")
    assert "rps_doc_word_count" not in told
    text = TextBatch(pa.array(["a"]), {"language": pa.array(["en"])})
    assert all(measure(text, select(name))[name].null_count == 1 for name in told)
    assert "rps_doc_ut1_blacklist" not in unavailable(select("all"), SignalResources(ut1={"x": 1}).held())
    for name in ("rps_doc_ldnoobw_words", "rps_doc_stop_word_fraction", "rps_doc_books_importance"):
        with pytest.raises(ValueError, match=f"{name} needs .*menagerie models"):
            AnnotateParams.model_validate({"signals": [name]})
    with pytest.raises(ValueError, match=r"absent is not there, or empty: it should be the LDNOOBW .* fetch ldnoobw"):
        SignalResources.load(ldnoobw=tmp_path / "absent")
    assert set(HOW_TO_GET) == {f for f in SignalResources.__dataclass_fields__ if not f.startswith("_")}


def test_word_lists_of_files_and_their_errors(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "en.txt").write_text("one\n two words \n\none\n", encoding="utf-8")
    (folder / "fr").write_text("été\n", encoding="utf-8")
    (folder / "README.md").write_text("not a list")
    assert SignalResources.load(ldnoobw=folder).ldnoobw == {"en": ("one", "two words"), "fr": ("été",)}
    stop = tmp_path / "stop.json"
    stop.write_text('{"en": ["a", "the"]}')
    assert SignalResources.load(stop_words=stop).stop_words == {"en": frozenset({"a", "the"})}
    for name, content, message in (
        ("stop.json", "[1]", "a JSON object is expected"),
        ("stop.json", "{", "is not JSON"),
        ("stop.json", '{"en": "a"}', "word lists are a JSON object by language"),
        ("stop.txt", "a", r"stop\.txt holds no word list"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=message):
            SignalResources.load(stop_words=tmp_path / name)
    (tmp_path / "ut1.json").write_text('{"domain_to_category_id": {"x": "1"}}')
    with pytest.raises(ValueError, match="maps domains to integers"):
        SignalResources.load(ut1=tmp_path / "ut1.json")
    (folder / "de.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"de.txt is not UTF-8"):
        SignalResources.load(ldnoobw=folder)
