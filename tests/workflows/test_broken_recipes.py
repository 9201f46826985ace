"""What a recipe, a corpus or a run can have wrong with it, told in one line before work is lost on it."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
import yaml

from tests.workflows.small_crawl import write_crawl, write_recipe
from workflows.build import build, survey
from workflows.cli import main
from workflows.demo import demo_recipe
from workflows.progress import Progress
from workflows.recipe import Recipe, load_recipe

QUIET = Progress(quiet=True)
TASK = "{task: a, classes: [x, y], functions: [{name: f, column: bucket, values: [head], vote: x}]}"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_crawl(tmp_path / "crawl", files=2, pages=40)
    return write_recipe(tmp_path, tmp_path / "crawl")


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("ingest.min_lenght=3", "ingest.min_lenght: there is no field of this name; is min_length meant?"),
        ("ingest.min_length=[1", "is not YAML"),
        ("mix.tables.0.x=3", "item 0 holds no fields"),
        ("mix.tables.²=3", "is no item of a list"),
        ("=3", "write it as section.field=value"),
        ("mine=[]", "mine: Input should be a mapping"),
        ("mix.tables=documents", "mix.tables: Input should be a valid list"),
        ("ingest.snapshot=2024", "quote it"),
        ("corpus=''", "corpus: String should have at least 1 character"),
        (f"label=[{TASK}, {TASK}]", "label has the task a twice"),
        ("embeddings=[{name: w}, {name: w, kind: tfidf}]", "embeddings has the name w twice"),
        ("embeddings=[{name: w, kind: contrastive, task: b}]", "learns from the task b, which label does not have"),
        ("label.0={task: quality, classes: [x, y], scores: [length], embeddings: w}", "liger and embeddings go together"),
        (
            f"label.0={TASK[:-1].replace('task: a', 'task: quality')}, model: liger, embeddings: w}}",
            "fit-labels/quality reads embeddings/w, which no stage before it writes",
        ),
        (f"label=[{TASK[:-1]}, dev: nowhere.parquet, balance: 1}}]", "label.0.balance: there is no field of this name"),
        ("label=[]", "plan/main reads labels/quality, which no stage before it writes"),
        ("mix.tables=[documents, signls]", "plan/main reads signls, which no stage before it writes"),
        ("tokenize.mixture=other", "tokenize.mixture is other, but the recipe's mixture is main"),
        ("train.mixture=other", "train.mixture is other, but the recipe's mixture is main"),
        ("tokenize=null", "add a mix and a tokenize section"),
        ("train=null", "add a train section"),
        ("train.folder=s3://bucket/runs", "train.folder: s3://bucket/runs is a URL, and a run needs a local folder"),
        ("corpus=s3://bucket/corpus", "train.folder is not set"),
        ("ingest=null", "give either ingest, or ingest_redpajama"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_work_is_one_clear_line_before_anything_runs(recipe: Path, assignment: str, told: str) -> None:
    with pytest.raises(ValueError) as error:
        load_recipe(recipe, [assignment])
    assert told in str(error.value)
    assert "Value error" not in str(error.value)


def test_a_section_that_is_written_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("name: a\ncorpus: b\nname: c\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"twice\.yaml is not YAML: name is there twice"):
        load_recipe(path)


def test_a_recipe_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"bytes\.yaml is not YAML"):
        load_recipe(path)


def test_the_demo_goes_into_folders_of_any_name() -> None:
    folder = Path('/O\'Brien #1: [new] ünï "x"')
    made = demo_recipe(folder)
    assert made.corpus == str(folder / "corpus")
    assert made.report is not None and made.report.path == str(folder / "report.html")
    assert made.ingest is not None
    assert made.ingest.source.model_dump()["paths"] == ('/O\'Brien #1: [[]new] ünï "x"/crawl/*.warc.gz',)


@pytest.mark.parametrize(
    ("assignments", "told"),
    [
        (["ingest.min_length=1000000"], "ingest leaves no document of 40: too_short 40"),
        (["mine.keep_languages=[xx]"], "mine leaves no document of 40: language_not_kept"),
    ],
)
def test_a_build_that_drops_everything_says_where_and_why(recipe: Path, assignments: list[str], told: str) -> None:
    with pytest.raises(ValueError) as error:
        build(load_recipe(recipe, assignments), progress=QUIET)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("annotate.ldnoobw={}/nowhere", "{}/nowhere is not there, or empty: it should be the LDNOOBW"),
        ("annotate.classifiers.rps_doc_ml_palm_score={}/palm.bin", "annotate: classifiers/rps_doc_ml_palm_score: {}/palm.bin"),
        ("mix.tokenizer={}/tokenizer.json", "plan/main: tokenizer: {}/tokenizer.json is not there"),
    ],
)
def test_a_file_of_a_late_stage_that_is_missing_is_told_before_the_first(
    recipe: Path, tmp_path: Path, assignment: str, told: str
) -> None:
    loaded = load_recipe(recipe, [assignment.format(tmp_path)])
    with pytest.raises(ValueError) as error:
        build(loaded, progress=QUIET)
    assert told.format(tmp_path) in str(error.value)
    assert not (Path(loaded.corpus) / "receipts").exists()


def test_a_warning_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    out = StringIO()
    Progress(out).show("warning: [/b] " + "a word " * 40)
    assert out.getvalue() == "warning: [/b] " + "a word " * 40 + "\n"


def test_a_corpus_that_is_a_file_is_a_user_error(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["build", str(recipe), "--set", f"corpus={recipe}"])
    assert left.value.code == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: ") and "Not a directory" in told and "RuntimeError" not in told


def test_a_damaged_receipt_is_a_fault_among_others_and_status_names_it(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(load_recipe(recipe), until="mine", progress=QUIET)
    corpus = Path(yaml.safe_load(recipe.read_text())["corpus"])
    receipt = next((corpus / "receipts" / "mine").rglob("*.json"))
    receipt.write_text("{")
    raw = next((corpus / "raw").rglob("*.parquet"))
    raw.unlink()
    with pytest.raises(SystemExit):
        main(["verify", str(corpus)])
    told = capsys.readouterr().out
    assert f"{receipt} is no receipt" in told and f"{raw.relative_to(corpus)}: missing" in told
    with pytest.raises(SystemExit) as left:
        main(["verify", str(corpus), "--json"])
    read = json.loads(capsys.readouterr().out)
    assert left.value.code == 1 and read["corpus"] == str(corpus) and read["faults"] == told.splitlines()[: len(read["faults"])]
    raw_gone = {s.name: s.problem for s in survey(load_recipe(recipe))}
    assert raw_gone["ingest"] is None
    build(load_recipe(recipe), until="language-models", progress=QUIET)
    problems = {s.name: s.problem for s in survey(load_recipe(recipe))}
    assert "is no receipt" in str(problems["mine"]) and problems["annotate"] is None


def _run_of(made: Recipe) -> Path:
    (run,) = (p for p in (Path(made.corpus) / "runs").iterdir() if p.is_dir())
    return run


def test_runs_that_were_damaged_deleted_or_moved_are_found_or_made_again(recipe: Path, tmp_path: Path) -> None:
    made = load_recipe(recipe)
    build(made, progress=QUIET)
    run = _run_of(made)
    (run / "config.json").unlink()
    build(made, progress=QUIET)
    assert (run / "config.json").exists()
    shutil.rmtree(run)
    build(made, progress=QUIET)
    assert (run / "model.safetensors").exists() and (run / "evaluation.json").exists()
    written = (run / "model.safetensors").stat().st_mtime_ns
    shutil.move(made.corpus, tmp_path / "moved")
    moved = load_recipe(recipe, [f"corpus={json.dumps(str(tmp_path / 'moved'))}"])
    done = build(moved, progress=QUIET)
    assert (_run_of(moved) / "model.safetensors").stat().st_mtime_ns == written
    assert done["train"][0].metrics["run"] == done["evaluate"][0].metrics["run"] == str(_run_of(moved))
