"""`annotate`, `minhash` and `dedup` on plain files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pipeline.models import cache_folder
from quality.registry import registered, select
from workflows import plain_files
from workflows.cli import menagerie

TEXT = " ".join(f"w{i}" for i in range(40))


def call(*arguments: object) -> Result:
    return CliRunner().invoke(menagerie, [str(a) for a in arguments], terminal_width=200)


def told(*arguments: object) -> dict[str, Any]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.output)


def fails(*arguments: object) -> str:
    result = call(*arguments)
    assert isinstance(result.exception, ValueError), (result.output, result.exception)
    return str(result.exception)


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    rows = [
        {"raw_content": TEXT, "url": "http://a", "when": "2024-01-02T03:04:05", "more": {"n": 1}},
        {"raw_content": TEXT, "url": "http://b", "when": "2024-01-02T03:04:05", "more": {"n": 2}},
        {"raw_content": TEXT + " end", "url": None, "when": None, "more": {"n": 3}},
        {"raw_content": "short", "url": "http://d", "when": None, "more": None},
        {"raw_content": None, "url": "http://e", "when": None, "more": None},
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.mark.parametrize("batch", [1 << 26, 1 << 18])
def test_annotate_equals_the_reference_on_a_plain_file(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(plain_files, "BATCH_BYTES", batch)
    monkeypatch.setenv("MENAGERIE_CACHE", str(tmp_path))
    source, out = shared / "rpv2" / "documents.parquet", tmp_path / "signals.parquet"
    lists = ["--ldnoobw", shared / "rpv2" / "ldnoobw", "--ut1", shared / "rpv2" / "ut1.json"]
    summary = told("annotate", source, "-o", out, *lists)
    measured, golden = pq.read_table(out), pq.read_table(shared / "rpv2" / "signals.parquet")
    assert set(measured.column_names) == set(golden.column_names)
    assert measured.column_names == ["id", "line_start", "line_end", *(s.name for s in select("all"))]
    # Without a list of stop words and tables of the same hash these are null; other tests measure them.
    apart = {n for n in golden.column_names if n == "rps_doc_stop_word_fraction" or "importance" in n}
    for name in golden.column_names:
        if name in apart:
            assert measured[name].null_count == 398
        else:
            assert measured[name].to_pylist() == golden[name].to_pylist(), name
    assert summary["documents"] == 398 and summary["signals"]["ccnet_perplexity"]["null"] == 398


def test_fetched_stop_words_give_the_reference_s_fraction(shared: Path, tmp_path: Path) -> None:
    lists = cache_folder() / "word-lists" / "stop-words.json"
    if not lists.is_file():
        pytest.skip("needs `menagerie models fetch stop-words`")
    out = tmp_path / "signals.parquet"
    told("annotate", shared / "rpv2" / "documents.parquet", "-o", out, "--signals", "rps_doc_stop_word_fraction")
    golden = pq.read_table(shared / "rpv2" / "signals.parquet")
    assert pq.read_table(out)["rps_doc_stop_word_fraction"].equals(golden["rps_doc_stop_word_fraction"])


def test_minhash_equals_the_reference_on_a_plain_file(shared: Path, tmp_path: Path) -> None:
    golden = pq.read_table(shared / "rpv2" / "edge" / "minhash.parquet")
    out = tmp_path / "minhash.parquet"
    summary = told("minhash", shared / "rpv2" / "edge" / "documents.parquet", "-o", out, "--bands")
    signed = pq.read_table(out)
    for name in ("id", "signature", *(n for n in golden.column_names if n.startswith("signature_sim"))):
        assert signed[name].to_pylist() == golden[name].to_pylist(), name
    assert summary == {"out": str(out), "documents": 53, "unsigned_documents": golden["signature"].null_count}


def test_jsonl_in_and_out(jsonl: Path, tmp_path: Path) -> None:
    out = tmp_path / "signals.jsonl"
    result = call("annotate", jsonl, "-o", out, "--signals", "rps_doc_word_count,ccnet_bucket")
    assert result.exit_code == 0
    assert "5 documents" in " ".join(result.output.split())  # a long path wraps the line
    assert "null without bucket, which is no column of the input: ccnet_bucket" in result.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["id"] for r in rows] == [f"in.jsonl/{i}" for i in range(5)]
    assert [r["rps_doc_word_count"] for r in rows] == [40, 40, 41, 1, 0]


def test_dedup_keeps_whole_rows_in_their_order(jsonl: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pl.DataFrame({"id": ["x", "y"], "raw_content": ["short", "new"], "score": [1.5, 2.5]}).write_parquet(other)
    out, table = tmp_path / "kept.parquet", tmp_path / "duplicates.parquet"
    summary = told("dedup", jsonl, other, "-o", out, "--keep", "longest", "--duplicates", table)
    kept, duplicates = pl.read_parquet(out), pl.read_parquet(table)
    assert kept.columns == ["id", "raw_content", "url", "when", "more", "score"]
    assert duplicates["id"].to_list() == [*(f"in.jsonl/{i}" for i in range(5)), "x", "y"]
    assert kept["id"].to_list() in (["in.jsonl/2", "in.jsonl/3", "in.jsonl/4", "y"], ["in.jsonl/2", "in.jsonl/4", "x", "y"])
    assert kept["more"].to_list()[0] == {"n": 3}
    assert summary["exact"] == {"clusters": 2, "documents": 4, "removed": 2, "largest": 2}
    assert summary["sim0.8"] == {"clusters": 1, "documents": 3, "removed": 2, "largest": 3}
    assert (summary["documents"], summary["kept"]) == (7, 4)
    assert [f["documents"] for f in summary["files"]] == [5, 2]


def test_the_size_of_a_batch_changes_nothing(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = shared / "rpv2" / "documents.parquet"
    outs = []
    for batch in (1 << 30, 1 << 17):
        monkeypatch.setattr(plain_files, "BATCH_BYTES", batch)
        outs.append(tmp_path / f"{batch}.parquet")
        summary = told("dedup", source, "-o", outs[-1], "--level", "0.7")
        assert summary["sim0.7"] == {"clusters": 77, "documents": 158, "removed": 81, "largest": 3}
    assert pl.read_parquet(outs[0]).equals(pl.read_parquet(outs[1]))
    # What is left has no duplicate any more.
    again = told("dedup", outs[0], "-o", tmp_path / "again.parquet", "--level", "0.7")
    assert again["kept"] == again["documents"]


def test_the_best_by_a_column_or_by_a_signal_is_kept(tmp_path: Path) -> None:
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pl.DataFrame({"raw_content": ["A b.", "a b", "a  B #"], "likes": [1, 9, 3]}).write_parquet(source)
    for signal, prefer, expected in (
        ("likes", "highest", 9),
        ("likes", "lowest", 1),
        ("rps_doc_symbol_to_word_ratio", "highest", 3),
    ):
        told("dedup", source, "-o", out, "--exact", "normalized", "--keep", "best", "--signal", signal, "--prefer", prefer)
        assert pl.read_parquet(out)["likes"].to_list() == [expected]


def test_a_file_may_replace_itself_and_an_error_leaves_it_alone(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pl.DataFrame({"text": ["a", "a", "b"]}).write_parquet(source)
    assert told("dedup", source, "-o", source)["kept"] == 2
    assert pl.read_parquet(source)["text"].to_list() in (["a", "b"], ["b", "a"])
    before = source.read_bytes()
    assert "there is no such file" in fails("dedup", source, tmp_path / "none.parquet", "-o", source)
    assert source.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["in.parquet"]


def test_tables_are_printed_for_people(jsonl: Path, tmp_path: Path) -> None:
    result = call("dedup", jsonl, "-o", tmp_path / "kept.jsonl")
    assert result.exit_code == 0
    assert "exact" in result.output and "sim0.8" in result.output and "together" in result.output
    result = call("annotate", "--list")
    assert result.exit_code == 0 and all(name in result.output for name in registered())
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 3


def test_empty_files_give_empty_files(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"raw_content": pa.array([], pa.string())}), source)
    for verb in ("annotate", "minhash", "dedup"):
        assert told(verb, source, "-o", tmp_path / f"{verb}.parquet")["documents"] == 0
        assert pq.read_table(tmp_path / f"{verb}.parquet").num_rows == 0


def test_bad_input_is_one_line_that_says_where(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    empty, wrong, named, broken = (tmp_path / n for n in ("wrong.parquet", "null.parquet", "in.csv", "broken.jsonl"))
    pl.DataFrame({"body": ["a"]}).write_parquet(empty)
    pl.DataFrame({"id": ["a", None], "raw_content": ["a", "b"]}).write_parquet(wrong)
    named.write_text("raw_content\na\n")
    broken.write_text('{"raw_content": "a"}\n{"raw_content": \n')
    assert "wrong.parquet: no column raw_content or text or content; there is id, body" in fails("annotate", empty, "-o", out)
    assert "null.parquet: 1 documents have no id" in fails("minhash", wrong, "-o", out)
    assert "in.csv: neither .parquet nor .jsonl" in fails("dedup", named, "-o", out)
    assert "broken.jsonl" in fails("annotate", broken, "-o", out)
    assert "out.csv: write to a name that ends in .parquet or .jsonl" in fails("annotate", wrong, "-o", tmp_path / "out.csv")
    assert "no signal is named words" in fails("annotate", wrong, "-o", out, "--signals", "words")
    (tmp_path / "junk.parquet").write_bytes(b"junk" * 10)
    assert "junk.parquet" in fails("dedup", tmp_path / "junk.parquet", "-o", out)
    notext = tmp_path / "bytes.parquet"
    pq.write_table(pa.table({"raw_content": pa.array([b"\xff\xfe"])}), notext)
    assert "UTF-8" in fails("annotate", notext, "-o", out)
    numbers = tmp_path / "numbers.parquet"
    pl.DataFrame({"raw_content": ["a"], "length": ["long"]}).write_parquet(numbers)
    assert "column length should hold numbers" in fails("annotate", numbers, "-o", out)
    assert not out.exists()
    assert call("dedup", wrong, "-o", out, "--keep", "best").exit_code == 2
    words = fails("dedup", numbers, "-o", out, "--keep", "best", "--signal", "length")
    assert "--signal length: the column holds" in words and "not numbers" in words


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("rps_lines_num_words", "`keep: best` compares a number per document, but the signal rps_lines_num_words holds list"),
        ("rps_doc_ut1_blacklist", "--signal rps_doc_ut1_blacklist needs the UT1 block list .* annotate --all-columns"),
    ],
)
def test_a_signal_that_cannot_say_which_is_best_is_told(tmp_path: Path, name: str, told: str) -> None:
    source = tmp_path / "in.parquet"
    pl.DataFrame({"raw_content": ["same", "same"]}).write_parquet(source)
    assert re.search(told, fails("dedup", source, "-o", tmp_path / "out.parquet", "--keep", "best", "--signal", name))


def test_a_giant_cluster_is_named_with_its_file(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pl.DataFrame({"raw_content": ["same"] * 1001}).write_parquet(source)
    summary = told("dedup", source, "-o", tmp_path / "out.parquet")
    assert len(summary["warnings"]) == 1 and str(source) in summary["warnings"][0]
    assert summary["warnings"][0].startswith("1001 documents are one exact cluster")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from workflows.commands import annotate, dedup; "
        "print([m for m in ('pyarrow', 'polars', 'numpy', 'pydantic', 'rich') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
