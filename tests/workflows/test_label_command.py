from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from workflows.cli import menagerie

FUNCTIONS = """
classes: [bad, good]
functions:
  - {name: long, column: length, min: 20, vote: good, otherwise: bad}
  - {name: english, column: language, values: [en], vote: good}
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(menagerie, ["label", *map(str, arguments)])


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "documents.parquet"
    pl.DataFrame({"id": ["a", "b", "c"], "length": [10, 30, None], "language": ["en", "de", None]}).write_parquet(path)
    (tmp_path / "functions.yaml").write_text(FUNCTIONS)
    return path


def test_labels_and_votes_of_a_plain_file(documents: Path, tmp_path: Path) -> None:
    done = run(documents, "--functions", tmp_path / "functions.yaml", "-o", tmp_path / "labels.parquet")
    assert done.exit_code == 0, done.output
    for part in (
        "long",
        "bad, good",
        "66.7%",
        "labels by majority: bad 0, good 1, none 2",
        "2 of 2 functions vote, and it takes three",
    ):
        assert part in done.output, done.output
    assert pl.read_parquet(tmp_path / "labels.parquet").to_dict(as_series=False) == {
        "id": ["a", "b", "c"],
        "label": [None, "good", None],
        "p_bad": pytest.approx([0.5, 0.3, 0.5]),
        "p_good": pytest.approx([0.5, 0.7, 0.5]),
        "votes": [2, 1, 0],
        "long": [0, 1, -1],
        "english": [1, -1, -1],
    }


def test_json_is_for_a_program(documents: Path, tmp_path: Path) -> None:
    done = run(documents, "-f", tmp_path / "functions.yaml", "--json")
    told = json.loads(done.output)
    assert told["documents"] == 3 and told["labels"] == {"bad": 0, "good": 1, "none": 2}
    assert [f["function"] for f in told["functions"]] == ["long", "english"]
    assert told["functions"][0]["conflicts"] == pytest.approx(1 / 3)


def test_a_task_is_taken_out_of_a_recipe(documents: Path, tmp_path: Path) -> None:
    tasks = [
        {"task": t, "classes": ["bad", t], "functions": [{"name": "f", "where": "length > 1", "vote": t}]} for t in ("x", "y")
    ]
    (tmp_path / "recipe.yaml").write_text(json.dumps({"name": "r", "corpus": "c", "label": tasks}))
    done = run(documents, "-f", tmp_path / "recipe.yaml", "--task", "y", "--json")
    assert json.loads(done.output)["labels"] == {"bad": 0, "y": 2, "none": 1}
    for arguments, told in (((), "choose one with --task: x, y"), (("--task", "z"), "no task z; there are: x, y")):
        failed = run(documents, "-f", tmp_path / "recipe.yaml", *arguments)
        assert isinstance(failed.exception, ValueError) and told in str(failed.exception)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("classes: [bad, good]", "give functions that vote, or scores"),
        (
            "classes: [bad, good]\nfunctions: [{name: f, where: 'x >', vote: bad}]",
            "functions.0.rule: labelling function f: unable to parse",
        ),
        ("- 1\n- 2", "choose one with --task"),
        ("just words", "expected a mapping"),
        ("{", "is not YAML"),
        (None, "is not there"),
    ],
)
def test_a_wrong_file_of_functions_is_one_line(documents: Path, tmp_path: Path, content: str | None, told: str) -> None:
    path = tmp_path / "other.yaml"
    if content is not None:
        path.write_text(content)
    failed = run(documents, "-f", path)
    assert isinstance(failed.exception, ValueError)
    assert "other.yaml" in str(failed.exception) and told in str(failed.exception), failed.exception


def test_a_function_named_like_a_column_of_the_labels_is_refused(documents: Path, tmp_path: Path) -> None:
    (tmp_path / "functions.yaml").write_text(FUNCTIONS.replace("name: long", "name: votes"))
    failed = run(documents, "-f", tmp_path / "functions.yaml", "-o", tmp_path / "labels.parquet")
    assert "cannot be called votes" in str(failed.exception)
    assert not (tmp_path / "labels.parquet").exists()


def test_scores_are_weighed_without_thresholds(tmp_path: Path) -> None:
    scores = {c: [i + (7 * i + j) % 20 for i in range(60)] for j, c in enumerate("abc")}
    pl.DataFrame({"id": [str(i) for i in range(60)], **scores}).write_parquet(tmp_path / "d.parquet")
    (tmp_path / "f.yaml").write_text("classes: [low, high]\nmodel: weaver\nscores: [a, b, c]\n")
    done = run(tmp_path / "d.parquet", "-f", tmp_path / "f.yaml", "-o", tmp_path / "l.parquet")
    assert "correlated with high by +" in done.output and "labels by weaver: low " in done.output, (done.output, done.exception)
    labels = pl.read_parquet(tmp_path / "l.parquet")
    assert labels["label"][0] == "low" and labels["label"][-1] == "high"
    assert json.loads(run(tmp_path / "d.parquet", "-f", tmp_path / "f.yaml", "--json").output)["model"] == "weaver"
