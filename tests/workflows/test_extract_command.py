"""`menagerie extract` on plain files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tests.pipeline.archives import members, response, warc_record
from workflows.cli import menagerie


def run(*arguments: object) -> str:
    result = CliRunner().invoke(menagerie, ["extract", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    path = tmp_path / "crawl.warc.gz"
    page = response(b"<title>T</title><p>" + b"Enough words to be a document. " * 20)
    records = warc_record("warcinfo", b"a: b", None), warc_record("response", page), warc_record("response", b"cut", length=99)
    path.write_bytes(members(*records))
    return path


def test_a_crawl_becomes_a_table_with_every_record_accounted_for(crawl: Path, tmp_path: Path) -> None:
    out, rejects = tmp_path / "out.parquet", tmp_path / "rejects.jsonl"
    counts = json.loads(run(crawl, "-o", out, "--plain", "--rejects", rejects, "--json"))
    assert counts["records"] == 3 and counts["documents"] == 1
    assert counts["drops"] == {"record_cut": 1, "record_type_warcinfo": 1}
    (row,) = pq.read_table(out).to_pylist()
    assert row["id"] == row["record_id"] == "crawl/0" and row["title"] == "T" and row["raw_content"].startswith("Enough words")
    assert [json.loads(line)["reason"] for line in rejects.read_text().splitlines()] == ["record_type_warcinfo", "record_cut"]


def test_people_read_a_table(crawl: Path, tmp_path: Path) -> None:
    told = run(crawl, "-o", tmp_path / "out.jsonl", "--method", "trafilatura", "--min-length", 0)
    assert "documents" in told and "record_cut" in told and "out.jsonl" in told


def test_its_own_output_is_an_input(crawl: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.parquet"
    run(crawl, "-o", first, "--plain")
    counts = json.loads(run(first, "-o", second, "--json"))
    assert counts["documents"] == 1
    assert pq.read_table(second)["raw_content"].to_pylist()[0].startswith("Enough words")


def test_a_missing_input_is_one_line(tmp_path: Path) -> None:
    code = f"from workflows.cli import main; main(['extract', '/nowhere/x.warc.gz', '-o', '{tmp_path}/never.parquet'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: cannot open /nowhere/x.warc.gz")
    assert not list(tmp_path.iterdir())
