"""The verbs train, evaluate and generate on plain files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.training.tiny import random_documents, tiny_run, two_components, write_shards
from workflows.commands.train import evaluate, generate, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = tiny_run(folder, two_components(folder))
    (folder / "run.yaml").write_text(yaml.safe_dump(config.to_dict()))
    write_shards(folder, random_documents(8, 5, high=64), "web", "heldout")
    done = CliRunner().invoke(train, [str(folder / "run.yaml"), "--set", "steps=6", "--set", "log.interval=3"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("starting: 0.04M parameters, 6 steps of 128 tokens (code 25.0%, web 75.0%)")
    assert [line.split()[:2] for line in lines[1:3]] == [["step", "3/6"], ["step", "6/6"]]
    assert lines[-1].startswith("done: 6 steps, 768 tokens, loss ")
    return folder


def test_train_goes_on_and_tells_programs_the_result(folder: Path) -> None:
    done = CliRunner().invoke(train, [str(folder / "run.yaml"), "--set", "steps=8", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["steps"], result["resumed_from"]) == (8, 6)
    assert "resuming at step 6" in done.stderr


def test_evaluate_finds_the_held_out_shards(folder: Path) -> None:
    done = CliRunner().invoke(evaluate, [str(folder / "run"), "--json"])
    assert done.exit_code == 0, done.output
    assert list(json.loads(done.stdout)) == ["web"]  # code holds nothing out
    assert json.loads(done.stdout)["web"]["documents"] == 5
    named = ["--held-out", f"mine={folder}/web/heldout/manifest.json", "--max-tokens", "1"]
    table = CliRunner().invoke(evaluate, [str(folder / "run"), *named])
    assert table.exit_code == 0, table.output
    assert "mine" in table.output
    assert "perplexity" in table.output


def test_generate_goes_on_from_the_prompt(folder: Path) -> None:
    done = CliRunner().invoke(generate, [str(folder / "run"), "--prompt", "abc", "--tokens", "5", "--temperature", "0"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("abc")


def test_mistakes_are_told_in_one_line(folder: Path, tmp_path: Path) -> None:
    for command, arguments, told in [
        (train, [str(tmp_path / "no.yaml")], "no.yaml is missing"),
        (train, [str(folder / "run.yaml"), "--set", "stepz=3"], "unknown setting stepz"),
        (evaluate, [str(tmp_path)], "config.yaml is missing"),
        (evaluate, [str(folder / "run"), "--held-out", "web"], "write it as component=path"),
        (generate, [str(tmp_path)], "config.json is missing"),
    ]:
        failed = CliRunner().invoke(command, arguments)
        assert isinstance(failed.exception, ValueError)
        assert told in str(failed.exception)
