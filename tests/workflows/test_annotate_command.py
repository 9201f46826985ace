"""`annotate`, `signals` and `models train-importance` as people use them, and what they say of bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from quality import registry
from quality.annotate import annotate
from quality.registry import registered, select
from quality.rules import RULE_SETS
from workflows.cli import menagerie

PAGE = """The north wind and the sun argued about which of them had more strength that day.
A traveller came along the road, wrapped in a warm cloak to keep out the cold.
They agreed that whoever first made him take it off would have to be thought stronger.
Then the wind blew as hard as it could, but he only folded himself more tightly in wool.
At last the sun shone out with gentle heat, and off came every layer at once.
"""
TEXT = "The quick brown fox jumps over the lazy dog, and then it rests with a friend. " * 8


def call(*arguments: object) -> Result:
    return CliRunner().invoke(menagerie, [str(a) for a in arguments], terminal_width=120)


def done(*arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return " ".join(result.output.split())


def fails(*arguments: object) -> str:
    result = call(*arguments)
    assert isinstance(result.exception, ValueError), (result.output, result.exception)
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.fixture(autouse=True)
def nothing_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENAGERIE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registered()))


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


# --- rules


def test_rules_are_told_as_a_table_and_as_reasons(tmp_path: Path) -> None:
    rows = [PAGE, "too short", PAGE + "Some brackets { are here.\n", "• a\n" * 60]
    source, out = write(tmp_path / "in.parquet", raw_content=rows), tmp_path / "out.parquet"
    told = done("annotate", source, "-o", out, "--rules", "gopher,c4", "--rules", "fineweb")
    assert "no column language: gopher_stop_words takes every document for English" in told
    assert "short_document >= 50 1 1" in told and "fail both" in told
    table = pl.read_parquet(out)
    passing = table.filter(pl.all_horizontal(pl.col("^rules_.*$").is_null())).height
    assert passing == 1 and "1 of 4 documents (25.0%) pass gopher, c4, fineweb" in told
    assert table["rules_gopher"].to_list()[1] == "gopher_short_document"
    assert [c for c in table.columns if c.startswith("rules_")] == ["rules_gopher", "rules_c4", "rules_fineweb"]
    assert set(table.columns[1:-3]) == {name for s in ("gopher", "c4", "fineweb") for name in RULE_SETS[s].signals}
    result = json.loads(call("annotate", source, "-o", out, "--rules", "c4", "--signals", "all", "--json").output)
    assert result["rules"]["documents"] == 4 and result["rules"]["first"]["c4_few_sentences"] >= 1
    assert "rps_doc_word_count" in pl.read_parquet(out).columns
    assert "no rule set is called gofer (is gopher meant?)" in fails("annotate", source, "-o", out, "--rules", "gofer")


def test_a_rule_without_values_is_told(tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", raw_content=[TEXT])
    told = done("annotate", source, "-o", tmp_path / "out.parquet", "--rules", "lucie")
    assert "lucie passes every document by ccnet_perplexity" in told
    assert (
        "null without the LDNOOBW word lists (`menagerie models fetch ldnoobw`, then --ldnoobw DIR): rps_doc_ldnoobw_words"
        in told
    )


def test_rules_select_in_a_mixture_of_plain_files(tmp_path: Path) -> None:
    source, out = (
        write(tmp_path / "in.parquet", raw_content=[TEXT, "short", PAGE], language=["en"] * 3),
        tmp_path / "out.parquet",
    )
    done("annotate", source, "-o", out, "--rules", "gopher", "--all-columns")
    recipe = tmp_path / "mix.yaml"
    recipe.write_text(
        "select: [{rules: gopher, limits: {dup_lines: 1, short_document: {de: 3}}}]\ncomponents: [{name: all}]\nheldout: 0\n"
    )
    done("mix", out, "-c", recipe, "-o", tmp_path / "mixed.parquet")
    reasons = pl.read_parquet(tmp_path / "mixed.parquet")["reason"].to_list()
    assert reasons == ["gopher_top_3gram", "gopher_short_document", None]
    for told, message in (
        ("{rules: gofer}", "mix.yaml: no rule set is called gofer"),
        ("{rules: gopher, limits: {dup_line: 1}}", "rule set gopher has no rule dup_line; did you mean dup_lines"),
        ("{rules: gopher, limits: [1]}", "give a number, or numbers by language, per rule"),
        ("{rules: gopher, limit: {}}", "has no field limit; there is limits"),
    ):
        recipe.write_text(f"select: [{told}]\ncomponents: [{{name: all}}]\n")
        assert message in fails("mix", out, "-c", recipe, "--dry-run")


# --- lists of signals and rules


def test_signals_lists_every_signal_with_definition_source_and_range() -> None:
    told = done("signals")
    for each in registered().values():
        assert each.name in told and each.source in told
    rows = json.loads(call("signals", "rps_doc_*", "--json").output)
    assert len(rows) == 32 and all(row["definition"] and row["source"] for row in rows)
    assert {row["name"]: row["range"] for row in rows}["rps_doc_frac_unique_words"][1] == 1
    assert "no signal is named nothing_*" in fails("signals", "nothing_*")
    told = done("signals", "--rules", "fineweb")
    assert "short_lines fineweb_frac_short_lines <= 0.67" in told and "Penedo" in told
    assert len(json.loads(call("signals", "--rules", "--json").output)) == len(RULE_SETS)


# --- importance


def test_importance_tables_are_trained_and_used(tmp_path: Path) -> None:
    target, source = "energy of a quantum field", "cheap tickets to sunny places"
    texts = [f"{target} {i}" for i in range(20)] + [f"{source} {i}" for i in range(20)]
    kinds = ["physics"] * 20 + ["travel"] * 20
    pages = write(tmp_path / "in.parquet", raw_content=texts, kind=kinds, language=["en"] * 40)
    folder, out = tmp_path / "importance", tmp_path / "out.parquet"
    arguments = ["models", "train-importance", "-o", folder, "--corpus", pages, "--target", "kind = 'physics'"]
    told = done(*arguments, "--source", "kind IS NOT NULL", "--language", "en")
    assert "ccnet.en: 40 documents, 6 raw words each" in told and "wikipedia.en: 20 documents" in told
    done("annotate", pages, "-o", out, "--importance", folder, "--signals", "rps_doc_wikipedia_importance")
    values = pl.read_parquet(out)["rps_doc_wikipedia_importance"].to_list()
    assert min(values[:20]) > 0 > max(values[20:])
    done(*arguments, "--source", "kind IS NOT NULL", "--language", "en", "--domain", "books")  # beside the others
    assert "of another size than 500" in fails(
        *arguments, "--source", pages, "--language", "en", "--domain", "books", "--buckets", 500
    )
    assert "--language is missing" in fails(*arguments, "--source", pages)
    assert "no document with text in de" in fails(*arguments, "--source", pages, "--language", "de")


# --- bad input


def test_null_and_empty_documents(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.parquet", raw_content=[None, "", "a b", "\n\n", " \u3000"]), tmp_path / "out.parquet"
    done("annotate", source, "-o", out, "--signals", "all", "--rules", ",".join(RULE_SETS))
    table = pl.read_parquet(out)
    assert table["rps_doc_word_count"].to_list() == [0, 0, 2, 0, 0]
    assert table["rps_doc_mean_word_length"].to_list() == [None, None, 1, None, None]
    assert table["rules_fineweb"].to_list()[:2] == ["fineweb_empty"] * 2


def test_a_document_of_100_megabytes(tmp_path: Path) -> None:
    page = "Some words of a line that is not short.\n"
    text = page * (100_000_000 // len(page) + 1)
    table = pa.table({"id": ["large", "small"], "raw_content": pa.array([text, page], pa.large_string())})
    told = annotate(table, select(["rps_doc_word_count", "rps_doc_num_sentences", "gopher_frac_dup_lines"]))
    lines = len(text) // len(page)
    assert told.signals["rps_doc_word_count"].to_pylist() == [9 * lines, 9]
    assert told.signals["rps_doc_num_sentences"].to_pylist() == [lines, 1]
    assert told.signals["gopher_frac_dup_lines"].to_pylist() == [pytest.approx(lines / (lines + 1)), 0]


def test_one_line_of_ten_million_characters(tmp_path: Path) -> None:
    text = ("seven letters é " * 700_000)[:9_999_998] + "x."
    table = pa.table({"id": ["a"], "raw_content": pa.array([text], pa.large_string()), "language": ["en"]})
    names = [name for each in RULE_SETS.values() for name in each.signals]
    told = annotate(table, select("all", also=names)).signals
    assert told["ccnet_length"].to_pylist() == [10_000_000] and told["line_end"].to_pylist() == [[10_000_000]]
    assert told["rps_lines_num_words"].to_pylist()[0] == told["rps_doc_word_count"].to_pylist()
    assert told["gopher_frac_chars_dup_10gram"].to_pylist()[0] > 0.8


def test_text_that_is_not_utf8_names_the_row(tmp_path: Path) -> None:
    texts = [b"fine", b"caf\xe9", b"fine too"]
    source = tmp_path / "latin.parquet"
    strings = pa.Array.from_buffers(pa.string(), 3, pa.array(texts, pa.binary()).buffers())
    for column in (strings, pa.array(texts, pa.binary())):
        pq.write_table(pa.table({"id": ["a", "b", "c"], "raw_content": column}), source)
        for verb in ("annotate", "minhash", "dedup"):
            told = fails(verb, source, "-o", tmp_path / "out.parquet")
            assert "latin.parquet: row 1 of column raw_content is not UTF-8" in told
    assert not (tmp_path / "out.parquet").exists()


def test_an_unknown_language_has_no_lists(shared: Path, tmp_path: Path) -> None:
    languages = ["en", "tlh", None, "EN"]
    source, out = write(tmp_path / "in.parquet", raw_content=[TEXT] * 4, language=languages), tmp_path / "out.parquet"
    lists = ["--ldnoobw", shared / "rpv2" / "ldnoobw", "--ut1", shared / "rpv2" / "ut1.json"]
    done("annotate", source, "-o", out, *lists, "--rules", "gopher,lucie", "--signals", "all")
    table = pl.read_parquet(out)
    assert table["gopher_stop_words"].to_list()[:3] == [3.0, None, None]
    assert table["rps_doc_word_count"].n_unique() == 1


@pytest.mark.parametrize(
    ("name", "resource", "how"),
    [
        ("rps_doc_ldnoobw_words", "ldnoobw", "`menagerie models fetch ldnoobw`, then --ldnoobw DIR"),
        ("rps_doc_ut1_blacklist", "ut1", "`menagerie models fetch ut1`, then --ut1 FILE"),
        ("rps_doc_stop_word_fraction", "stop-words", "`menagerie models fetch stop-words`, then --stop-words PATH"),
        ("rps_doc_wikipedia_importance", "importance", "`menagerie models train-importance`, then --importance DIR"),
        ("rps_doc_ml_palm_score", None, "`menagerie models train-classifier`, then --classifier"),
    ],
)
def test_missing_word_lists_say_how_to_get_them(tmp_path: Path, name: str, resource: str | None, how: str) -> None:
    source, out = write(tmp_path / "in.parquet", raw_content=[TEXT]), tmp_path / "out.parquet"
    assert how in fails("annotate", source, "-o", out, "--signals", name)
    if resource:
        assert "is not there, or empty" in fails("annotate", source, "-o", out, f"--{resource}", tmp_path / "nowhere")
    told = done("annotate", source, "-o", out)  # all: null, and said
    assert how.split(",")[0] in told and name in told


def test_fetched_word_lists_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "word-lists" / "ldnoobw"
    folder.mkdir(parents=True)
    (folder / "en.txt").write_text("lazy dog\n")
    (tmp_path / "cache" / "word-lists" / "stop-words.json").write_text(json.dumps({"en": ["the", "over"]}))
    source, out = write(tmp_path / "in.parquet", raw_content=[TEXT], language=["en"]), tmp_path / "out.parquet"
    done("annotate", source, "-o", out, "--signals", "rps_doc_ldnoobw_words,rps_doc_stop_word_fraction")
    row = pl.read_parquet(out).row(0, named=True)
    assert row["rps_doc_ldnoobw_words"] == 8 and row["rps_doc_stop_word_fraction"] == pytest.approx(16 / (18 * 8), abs=1e-8)


def test_a_signal_of_ones_own_that_raises_rejects_the_document_alone(tmp_path: Path) -> None:
    module = tmp_path / "mine.py"
    module.write_text(
        "from quality.registry import row_signal\n\n\n"
        '@row_signal("share_of_e", source="mine", range=(0, 1))\n'
        "def share(text):\n"
        '    """The share of e."""\n'
        "    return text.count('e') / len(text)\n"
    )
    source, out, rejects = (
        write(tmp_path / "in.parquet", raw_content=["eat", "", "be"]),
        tmp_path / "out.parquet",
        tmp_path / "r.jsonl",
    )
    told = done("annotate", source, "-o", out, "--module", module, "--signals", "share_of_e", "--rejects", rejects)
    assert "1 documents rejected, null in OUT: share_of_e: ZeroDivisionError: division by zero" in told
    assert pl.read_parquet(out)["share_of_e"].to_list() == [pytest.approx(1 / 3), None, 0.5]
    (kept,) = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert kept["record_id"] == "in.parquet/1" and kept["reason"] == "signal_error" and "ZeroDivisionError" in kept["detail"]
    assert "share_of_e" in done("signals", "share_*", "--module", module)


def test_columns_of_the_wrong_kind_are_told_with_their_file(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    source = write(tmp_path / "in.parquet", raw_content=[TEXT], language=[["en"]])
    for verb in (("annotate", "--rules", "gopher"), ("minhash",), ("dedup",)):
        assert "in.parquet: column language holds list" in fails(*verb, source, "-o", out)
    source = write(tmp_path / "in.parquet", raw_content=[TEXT], perplexity=["much"])
    assert "in.parquet: column perplexity should hold numbers" in fails("annotate", source, "-o", out)


def test_lists_of_other_languages_are_told(tmp_path: Path) -> None:
    (tmp_path / "stop.json").write_text(json.dumps({"de": ["der"]}))
    source = write(tmp_path / "in.parquet", raw_content=[TEXT], language=["en"])
    told = done("annotate", source, "-o", tmp_path / "out.parquet", "--stop-words", tmp_path / "stop.json")
    assert "null without a list or model for the documents' languages: rps_doc_stop_word_fraction" in told


def test_a_new_source_of_importance_tables_is_told(tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", raw_content=[TEXT, PAGE], language=["en", "en"])
    call_for = ["models", "train-importance", "-o", tmp_path / "tables", "--corpus", source, "--language", "en"]
    call_for += ["--target", "raw_content LIKE '%sun%'"]
    first = done(*call_for, "--source", "raw_content LIKE '%fox%'")
    assert "another than before" not in first
    told = done(*call_for, "--source", "LENGTH(raw_content) > 0", "--domain", "books")
    assert "ccnet.en is another than before: wikipedia of en are weighed against it too" in told
    told = done(*call_for, "--source", "raw_content LIKE '%fox%'", "--json")
    assert json.loads(told)["reweighed"] == ["books"]


def test_long_names_are_told_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    source = write(tmp_path / "in.parquet", raw_content=[TEXT], language=["en"])
    lines = call("annotate", source, "-o", tmp_path / "out.parquet").output.splitlines()
    assert any(line.split() == ["rps_doc_openwebtext_importance_length_correction", "1"] for line in lines)
