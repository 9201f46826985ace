"""`menagerie tokenize` on plain files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from pipeline.shards import TokenShards
from pipeline.tokenizer import DocumentTokenizer
from workflows.cli import menagerie

TEXTS = ["the first document", "the second, a longer document", "", "<|endoftext|> in a text", "der fünfte 文書"]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(menagerie, ["tokenize", *map(str, arguments)])


def told(*arguments: object) -> dict[str, Any]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.output)


def fails(*arguments: object) -> str:
    result = call(*arguments)
    assert isinstance(result.exception, ValueError), (result.output, result.exception)
    return str(result.exception)


def _texts(manifest: Path | str) -> dict[str, str]:
    shards = TokenShards(manifest)
    tokenizer = DocumentTokenizer(shards.tokenizer)
    spans = [shards.document(n) for n in range(shards.total_documents)]
    ids = shards.document_ids(0, len(shards))
    return {i: tokenizer.decode(shards.tokens(a, b)) for i, (a, b) in zip(ids, spans, strict=True)}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    parquet, jsonl = tmp_path / "a.parquet", tmp_path / "b.jsonl"
    pl.DataFrame({"id": [f"doc{n}" for n in range(3)], "raw_content": TEXTS[:3]}).write_parquet(parquet)
    pl.DataFrame({"raw_content": [*TEXTS[3:], None]}).write_ndjson(jsonl)
    return parquet, jsonl


def test_every_document_is_in_the_shards_under_its_id(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = told(*files, "-o", out, "--vocab-size", 300)
    ids = ["doc0", "doc1", "doc2", "b.jsonl/0", "b.jsonl/1"]
    (row,) = result["manifests"]
    assert _texts(row["manifest"]) == dict(zip(ids, TEXTS, strict=True))
    assert (row["documents"], row["shards"], row["dtype"]) == (5, 2, "uint16")
    assert result["dropped"] == {"no_text": 1}
    assert (out / "all/train/00000.ds").samefile(out / "all/train/00000.bin")
    again = told(*files, "-o", tmp_path / "again", "--tokenizer", result["tokenizer"])
    for file in sorted(p for p in out.rglob("*") if p.is_file()):
        assert (tmp_path / "again" / file.relative_to(out)).read_bytes() == file.read_bytes()
    assert [r["tokens"] for r in again["manifests"]] == [row["tokens"]]


def test_a_marked_file_gives_a_folder_per_component_and_split(tmp_path: Path) -> None:
    marked = tmp_path / "marked.parquet"
    frame = {
        "id": list("abcd"), "text": TEXTS[:4], "component": ["web", None, "web", "books"],
        "split": ["train", None, "heldout", "train"],
    }  # fmt: skip
    pl.DataFrame(frame).write_parquet(marked)
    result = told(marked, "-o", tmp_path / "out", "--vocab-size", 300)
    found = {(r["component"], r["split"]): _texts(r["manifest"]) for r in result["manifests"]}
    assert found == {
        ("web", "train"): {"a": TEXTS[0]}, ("web", "heldout"): {"c": TEXTS[2]}, ("books", "train"): {"d": TEXTS[3]}
    }  # fmt: skip
    assert result["dropped"] == {"not_selected": 1}
    table = call(marked, "-o", tmp_path / "out", "--vocab-size", 300).output
    assert "heldout" in table and "left out: 1 not_selected" in table


def test_shards_of_an_earlier_run_do_not_stay_behind(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    told(*files, "-o", out, "--vocab-size", 300)
    told(files[0], "-o", out, "--vocab-size", 300)
    assert sorted(p.name for p in out.rglob("*.*")) == sorted(
        ["tokenizer.json", "manifest.json", *("00000" + s for s in (".bin", ".idx", ".ds", ".ds.index", ".docs.parquet"))]
    )


def test_mistakes_are_one_clear_line(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(*files, "-o", out).exit_code == 2
    assert call(*files, "-o", out, "--vocab-size", 300, "--tokenizer", "x.json").exit_code == 2
    assert "cannot read the tokenizer" in fails(files[0], "-o", out, "--tokenizer", tmp_path / "none.json")
    assert "no such file" in fails(tmp_path / "none.parquet", "-o", out, "--vocab-size", 300)
    assert "no text column page; name one with --column: id, raw_content" in fails(
        files[0], "-o", out, "--vocab-size", 300, "--column", "page"
    )
    assert not out.exists()
