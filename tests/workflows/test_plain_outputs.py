"""What the verbs on plain files write, and where they refuse to: nothing that was there is lost by a slip."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from workflows.cli import main, menagerie

FUNCTIONS = "classes: [low, high]\nfunctions: [{name: long, column: rps_doc_word_count, min: 3, vote: high, otherwise: low}]\n"
MIXTURE = "name: main\nselect: [{name: short, drop: rps_doc_word_count < 3}]\ncomponents: [{name: all}]\n"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(menagerie, [str(a) for a in arguments], terminal_width=200)


def done(*arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def fails(*arguments: object) -> str:
    result = call(*arguments)
    assert isinstance(result.exception, ValueError), (result.output, result.exception)
    return str(result.exception)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.parquet"
    pl.DataFrame({"text": ["a b c d e f g", "one two", "three words here, or five"]}).write_parquet(path)
    (tmp_path / "f.yaml").write_text(FUNCTIONS)
    (tmp_path / "m.yaml").write_text(MIXTURE)
    return path


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_signals_beside_their_documents_go_on_to_labels_mixture_and_tokens(tmp_path: Path, source: Path, suffix: str) -> None:
    out, labels, marked = (tmp_path / "new" / f"{name}.{suffix}" for name in ("annotated", "labels", "marked"))
    done("annotate", source, "-o", out, "--all-columns")
    read = pl.read_parquet if suffix == "parquet" else pl.read_ndjson
    assert {"id", "text"} <= set(read(out).columns) and read(out)["rps_doc_word_count"].to_list() == [7, 2, 5]
    done("label", out, "-f", tmp_path / "f.yaml", "-o", labels)
    assert read(labels)["label"].to_list() == ["high", "low", "high"]
    done("mix", out, "-c", tmp_path / "m.yaml", "-o", marked)
    assert read(marked)["reason"].to_list() == [None, "short", None]
    told = json.loads(done("tokenize", marked, "-o", tmp_path / "tokens", "--vocab-size", 260, "--json"))
    assert sum(m["documents"] for m in told["manifests"]) == 2 and told["dropped"] == {"not_selected": 1}
    assert "already has a column line_start" in fails("annotate", out, "-o", tmp_path / "again.parquet", "--all-columns")


def test_no_verb_writes_over_its_input_or_its_other_output(tmp_path: Path, source: Path) -> None:
    before = source.read_bytes()
    for arguments in (
        ("annotate", source, "-o", source),
        ("minhash", source, "-o", source),
        ("extract", source, "-o", source),
        ("label", source, "-f", tmp_path / "f.yaml", "-o", source),
        ("mix", source, "-c", tmp_path / "m.yaml", "-o", tmp_path / "x" / ".." / "in.parquet"),
        ("dedup", source, "-o", tmp_path / "o.parquet", "--duplicates", source),
    ):
        assert "is an input too" in fails(*arguments)
    out = tmp_path / "o.parquet"
    assert "is another output too" in fails("dedup", source, "-o", out, "--duplicates", out)
    assert "is another output too" in fails("extract", source, "-o", out, "--rejects", out)
    assert source.read_bytes() == before and not out.exists()


def test_names_that_say_no_format_are_refused_before_any_work(tmp_path: Path, source: Path) -> None:
    for arguments in (
        ("label", source, "-f", tmp_path / "f.yaml", "-o", tmp_path / "x.csv"),
        ("mix", source, "-c", tmp_path / "m.yaml", "-o", tmp_path / "x.csv"),
        ("extract", source, "-o", tmp_path / "o.parquet", "--rejects", tmp_path / "x.csv"),
    ):
        assert "x.csv: write to a name that ends in .parquet or .jsonl" in fails(*arguments)
    assert not (tmp_path / "o.parquet").exists()


def test_options_that_would_do_nothing_are_wrong_usage(tmp_path: Path, source: Path) -> None:
    assert call("mix", source, "-c", tmp_path / "m.yaml", "--selected").exit_code == 2
    assert call("train", tmp_path / "run.yaml", "--gpu").exit_code == 2
    assert call("evaluate", tmp_path, "--held-out", "a=x.json", "--held-out", "a=y.json").exit_code == 2
    assert "no task other" in fails("label", source, "-f", tmp_path / "f.yaml", "--task", "other")


def test_a_folder_that_is_no_corpus_is_told_so(tmp_path: Path, source: Path) -> None:
    for options in ([], ["--dry-run"]):
        assert "none has no documents" in fails("mix", tmp_path / "none", "-c", tmp_path / "m.yaml", *options)
    assert not (tmp_path / "none").exists()


def test_parquet_columns_that_are_no_documents_are_named(tmp_path: Path) -> None:
    path, out = tmp_path / "in.parquet", tmp_path / "o.parquet"
    for table, told in (
        (pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), "more than one column is called text"),
        (pa.table({"text": [["a"]]}), "column text holds list"),
        (pa.table({"text": [1]}), "column text holds int64, not text"),
        (pa.table({"text": ["a"], "id": [[1]]}), "column id holds list"),
    ):
        pq.write_table(table, path)
        for verb in ("annotate", "minhash", "dedup"):
            assert f"in.parquet: {told}" in fails(verb, path, "-o", out)
    assert not out.exists()


def test_an_error_of_the_system_is_one_line_that_names_the_file(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, told in (
        (["annotate", str(source), "-o", str(source / "x.parquet")], f"error: {source}: file exists\n"),
        (["label", str(source), "-f", str(tmp_path)], f"error: {tmp_path}: is a directory\n"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 1 and capsys.readouterr().err == told


def test_what_an_interrupted_run_wrote_is_gone(tmp_path: Path) -> None:
    source, folder = tmp_path / "in.parquet", tmp_path / "out"
    pl.DataFrame({"text": [f"{'word ' * 2000}{i}" for i in range(10_000)]}).write_parquet(source)
    command = [sys.executable, "-m", "workflows.cli", "annotate", str(source), "-o", str(folder / "o.parquet")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 60
        while not (folder.is_dir() and any(folder.iterdir())) and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "interrupted" in said
    assert list(folder.iterdir()) == []


def test_a_failed_tokenization_leaves_the_earlier_one_whole(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "tokens"
    done("tokenize", source, "-o", out, "--vocab-size", 260)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    (tmp_path / "bad.jsonl").write_text("{oops")
    done("tokenize", source, "-o", tmp_path / "other", "--vocab-size", 270)
    fails("tokenize", source, tmp_path / "bad.jsonl", "-o", out, "--tokenizer", tmp_path / "other" / "tokenizer.json")
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in out.iterdir()) == ["all", "tokenizer.json"]


def test_a_document_without_a_split_is_counted(tmp_path: Path) -> None:
    marked = tmp_path / "marked.parquet"
    pl.DataFrame({"text": ["a", "b"], "component": ["c", "c"], "split": ["train", None]}).write_parquet(marked)
    told = json.loads(done("tokenize", marked, "-o", tmp_path / "tokens", "--vocab-size", 260, "--json"))
    assert [m["documents"] for m in told["manifests"]] == [1] and told["dropped"] == {"not_selected": 1}
