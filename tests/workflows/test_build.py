"""The whole recipe on a small crawl: what it leaves, that it is sound, and that a second run does nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.corpus import Corpus
from tests.workflows.small_crawl import tables_of, write_crawl, write_recipe
from workflows.cli import menagerie


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(menagerie, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipe.yaml, its corpus and its report."""
    folder = tmp_path_factory.mktemp("built")
    write_crawl(folder / "crawl")
    write_recipe(folder, folder / "crawl")
    call("build", str(folder / "recipe.yaml"))
    return folder


def test_every_stage_leaves_its_tables(built: Path) -> None:
    corpus = Corpus(str(built / "corpus"))
    partitions = corpus.partitions("documents")
    assert partitions
    for table in ("signals", "minhash", "duplicates", "votes/quality", "labels/quality", "mixture/main"):
        assert corpus.partitions(table) == partitions, table
    frame = corpus.scan("documents", "signals", "duplicates", "labels/quality", "mixture/main").collect()
    assert frame["exact_of"].null_count() < frame.height, "the crawl has exact copies"
    assert {"exact_duplicate", "fuzzy_duplicate"} <= set(frame["reason"])
    assert set(frame["component"]) <= {"fluent", "rest", None}
    assert (frame["component"].is_null() == frame["reason"].is_not_null()).all()


def test_rows_are_conserved_from_record_to_document(built: Path) -> None:
    status = json.loads(call("status", str(built / "recipe.yaml"), "--json").output)
    assert all(s["done"] == s["total"] for s in status), status
    by_name = {s["stage"]: s for s in status}
    for stage in ("ingest", "mine", "tokenize/main"):
        told = by_name[stage]
        assert told["rows_in"] == told["rows_out"] + sum(told["drops"].values())
    assert by_name["ingest"]["rows_in"] == 60
    assert by_name["mine"]["rows_in"] == by_name["ingest"]["rows_out"]


def test_a_second_build_writes_nothing(built: Path) -> None:
    files = {p: p.stat().st_mtime_ns for p in (built / "corpus").rglob("*") if p.is_file()}
    report = (built / "report.html").stat().st_mtime_ns
    call("build", str(built / "recipe.yaml"))
    assert {p: p.stat().st_mtime_ns for p in (built / "corpus").rglob("*") if p.is_file()} == files
    assert (built / "report.html").stat().st_mtime_ns == report


def test_verify_finds_nothing_in_a_sound_corpus_and_names_what_is_damaged(built: Path, tmp_path: Path) -> None:
    import shutil

    call("verify", str(built / "recipe.yaml"))
    copy = tmp_path / "corpus"
    shutil.copytree(built / "corpus", copy)
    victim = next((copy / "signals").rglob("*.parquet"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    next((copy / "minhash").rglob("*.parquet")).unlink()
    (copy / "documents" / "stray.parquet").write_bytes(b"")
    result = CliRunner().invoke(menagerie, ["verify", str(copy)])
    assert result.exit_code == 1
    assert f"{victim.relative_to(copy)}: digest" in result.output
    assert ": missing; run the build again" in result.output
    assert "documents/stray.parquet: no receipt knows this file" in result.output


def test_a_damaged_corpus_is_mended_to_the_same_bytes(built: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(built / "corpus", tmp_path / "corpus")
    next((tmp_path / "corpus" / "documents").rglob("*.parquet")).unlink()
    shutil.rmtree(tmp_path / "corpus" / "tokens")
    call("build", str(built / "recipe.yaml"), "--set", f"corpus={tmp_path / 'corpus'}", "--until", "manifests")
    assert tables_of(tmp_path / "corpus") == tables_of(built / "corpus")


def test_until_stops_and_status_says_what_is_left(built: Path, tmp_path: Path) -> None:
    changed = ["--set", f"corpus={tmp_path / 'corpus'}"]
    call("build", str(built / "recipe.yaml"), *changed, "--until", "mine")
    status = json.loads(call("status", str(built / "recipe.yaml"), *changed, "--json").output)
    assert {s["stage"] for s in status if s["done"] == s["total"]} == {"ingest", "paragraphs", "language-models", "mine"}
    with pytest.raises(ValueError, match="this recipe's stages are ingest, paragraphs"):
        call("build", str(built / "recipe.yaml"), "--until", "nothing")


def test_a_changed_filter_redoes_the_mixture_and_nothing_before_it(built: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(built / "corpus", tmp_path / "corpus")
    changed = ["--set", f"corpus={tmp_path / 'corpus'}", "--until", "mix"]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "corpus").rglob("*.parquet")}
    call("build", str(built / "recipe.yaml"), *changed, "--set", "mix.select.2.drop=label = 'good'")
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "corpus").rglob("*.parquet")}
    touched = {p.relative_to(tmp_path / "corpus").parts[0] for p in after if before.get(p) != after[p]}
    assert touched <= {"mixture", "global"}
    assert "mixture" in touched


def test_a_typing_error_in_a_recipe_is_one_line_that_names_the_field(built: Path) -> None:
    with pytest.raises(ValueError, match=r"recipe.yaml: mine.languages: there is no field of this name"):
        call("build", str(built / "recipe.yaml"), "--set", "mine.languages=[en]")


def test_the_shipped_recipes_load() -> None:
    from workflows.recipe import load_recipe

    for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")):
        recipe = load_recipe(path)
        assert recipe.stages(), path


def test_the_recipe_reference_is_up_to_date() -> None:
    from workflows.reference import reference

    page = Path(__file__).parents[2] / "docs" / "recipe.md"
    assert page.read_text(encoding="utf-8") == reference(), "run `make docs`"


def test_status_of_a_published_crawl_asks_no_server(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    # Nobody listens on port 9: an attempt would be retried for minutes.
    source = (
        f"{{kind: common-crawl, snapshot: CC-MAIN-2024-22, base_url: 'http://127.0.0.1:9/', download: {{cache: {tmp_path}}}}}"
    )
    recipe.write_text(f"name: x\ncorpus: {tmp_path}/corpus\ningest: {{snapshot: x, source: {source}}}\n", encoding="utf-8")
    result = CliRunner().invoke(menagerie, ["status", str(recipe)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "wet.paths.gz is not downloaded yet: build does that" in result.stderr
