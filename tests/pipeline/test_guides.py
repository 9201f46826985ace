"""The guides to the corpus and to sources say what is."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from pipeline import tables
from pipeline.corpus import ROW_GROUP, encode_table
from pipeline.ingest import IngestParams
from pipeline.ingest_redpajama import IngestRedPajamaParams
from pipeline.receipt import Receipt
from pipeline.sources import redpajama_signals

DOCS = Path(__file__).parents[2] / "docs"
GUIDE, SOURCES = ((DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("corpus", "sources"))


def section(title: str) -> str:
    return re.split(r"\n#{2,3} ", GUIDE.split(f"### {title}\n", 1)[1], maxsplit=1)[0]


@pytest.mark.parametrize(
    ("title", "schema"),
    [
        ("raw", tables.RAW),
        ("documents", tables.DOCUMENTS),
        ("minhash", tables.MINHASH),
        ("duplicates", tables.DUPLICATES),
        ("mixture", tables.MIXTURE),
        ("rejects", tables.REJECTS),
    ],
)
def test_the_guide_lists_every_column_with_its_type(title: str, schema: pa.Schema) -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (\S+) \|", section(title), re.MULTILINE)
    types = [re.sub(r"(element|item): | not null", "", str(field.type)) for field in schema]
    assert rows == list(zip(schema.names, types, strict=True))


def test_the_guide_knows_metadata_row_groups_and_receipts() -> None:
    content = pa.table({"id": ["a"]})
    metadata = pa.parquet.read_metadata(pa.BufferReader(encode_table("documents", content))).metadata
    told = {key.decode() for key in metadata if key.startswith(b"menagerie.")}
    assert told == set(re.findall(r"^\| `(menagerie\.\w+)` \|", GUIDE, re.MULTILINE))
    assert f"row groups of {ROW_GROUP}." in GUIDE
    assert f"first {tables.EXCERPT_LENGTH} characters" in GUIDE
    fields = {name for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", GUIDE.split("## Receipts")[1], re.MULTILINE)
              for name in re.findall(r"`(\w+)`", row)}  # fmt: skip
    assert fields == set(Receipt.__dataclass_fields__)


def test_the_id_of_the_guide_is_the_id_of_the_code() -> None:
    identifier = tables.document_id("2023-06/0000/en_head", 0)
    assert f"`{identifier}`" in GUIDE and str(tables.id_int(identifier)) in GUIDE


def test_the_recipes_of_the_guide_are_valid() -> None:
    ingest, *sources, redpajama = (yaml.safe_load(b) for b in re.findall(r"```yaml\n(.*?)```", SOURCES, re.DOTALL))
    IngestParams.model_validate(ingest["ingest"])
    assert [IngestParams.model_validate({"snapshot": "x", **each}).source.kind for each in sources] == ["jsonl", "common-crawl"]
    assert IngestRedPajamaParams.model_validate(redpajama["ingest_redpajama"]).source.shards == (0, 100)


def test_the_guide_counts_the_published_signals() -> None:
    assert f"{len(redpajama_signals.SIGNALS)} published signals" in SOURCES
    for name in (redpajama_signals.LINE_START, redpajama_signals.LINE_END, redpajama_signals.DUPLICATE):
        assert f"`{name}`" in SOURCES
