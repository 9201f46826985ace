"""`menagerie label` on plain files of votes, and with distilled classifiers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from labelers import load_model
from tests.labelers.test_analysis import noisy
from workflows.cli import menagerie

FUNCTIONS = """
classes: [advert, physics]
functions:
  - {name: particles, keywords: [quark, boson], vote: physics}
  - {name: pills, keywords: [pills], vote: advert}
  - {name: offers, keywords: [offer, click], vote: advert}
  - {name: energy, keywords: [energy, photon], min: 3, vote: physics}
"""
WORDS = ("cheap pills buy now offer click", "quark lepton boson photon field energy")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(menagerie, ["label", *map(str, arguments)])


def told(*arguments: str | Path) -> str:
    done = run(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def failure(*arguments: str | Path) -> str:
    done = run(*arguments)
    assert isinstance(done.exception, ValueError), done.output
    return str(done.exception)


@pytest.fixture
def votes(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """An .npz file of votes, and the truth."""
    matrix, gold = noisy()
    np.savez(tmp_path / "votes.npz", L=matrix, L_test=matrix[:50], other=matrix.astype(float), k=2)
    return tmp_path / "votes.npz", gold


def test_fit_apply_analyze_and_explain_a_file_of_votes(
    votes: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    path, gold = votes
    output = told("fit", path, "--classes", "bad,good", "-o", tmp_path / "model.json")
    assert "class balance: bad" in output and "model.json: " in output and "of 4 functions, fitted on 4,000 documents" in output
    model = load_model((tmp_path / "model.json").read_bytes())
    assert model.classes == ("bad", "good")
    output = told("apply", path, "-m", tmp_path / "model.json", "-o", tmp_path / "labels.parquet")
    labels = pl.read_parquet(tmp_path / "labels.parquet")
    assert labels.columns == ["id", "label", "p_bad", "p_good", "votes"] and labels["id"][0] == "votes.npz/0"
    assert (labels["label"] == pl.Series(["bad", "good"]).gather(gold)).mean() > 0.8  # type: ignore[operator]
    assert f"good {labels['label'].eq('good').sum():,}" in output
    told("apply", path, "--key", "L_test", "-m", tmp_path / "model.json", "-o", tmp_path / "few.jsonl")
    assert pl.read_ndjson(tmp_path / "few.jsonl").height == 50
    dev = pl.DataFrame({"id": [f"votes.npz/{i}" for i in range(300)], "label": [str(g) for g in gold[:300].tolist()]})
    dev.write_parquet(tmp_path / "dev.parquet")
    output = told("analyze", path, "--dev", tmp_path / "dev.parquet")
    assert all(part in output for part in ("f0", "0, 1", "precision on dev", "on the dev set (300 documents): accuracy 0.8"))
    about = json.loads(told("analyze", path, "-m", tmp_path / "model.json", "--json"))
    assert about["documents"] == 4000 and len(about["functions"]) == 4
    output = told("explain", path, "-m", tmp_path / "model.json", "--id", "votes.npz/7")
    assert output.startswith("votes.npz/7: ") and "class balance" in output
    about = json.loads(told("explain", path, "-m", tmp_path / "model.json", "--id", "votes.npz/7", "--json"))
    assert about["prior"] + sum(s[2] for s in about["shares"]) == pytest.approx(about["log_odds"])


def test_votes_go_through_parquet_with_their_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[i % 2].split(), 8)) for i in range(200)]
    pl.DataFrame({"id": [f"d{i}" for i in range(200)], "text": texts}).write_parquet(tmp_path / "documents.parquet")
    (tmp_path / "f.yaml").write_text(FUNCTIONS)
    assert "votes of 4 functions on 200 documents" in told(
        "vote", tmp_path / "documents.parquet", "-f", tmp_path / "f.yaml", "-o", tmp_path / "votes.parquet"
    )
    assert pl.read_parquet(tmp_path / "votes.parquet").columns == ["id", "particles", "pills", "offers", "energy"]
    output = told("fit", tmp_path / "votes.parquet", "-o", tmp_path / "m", "--balance", ".5,.5", "--model", "dawid-skene")
    assert "class balance: advert 50.0%, physics 50.0%" in output  # the file tells what its classes are called
    told("run", tmp_path / "documents.parquet", "-f", tmp_path / "f.yaml", "-o", tmp_path / "labels.parquet")
    about = json.loads(told("analyze", tmp_path / "labels.parquet", "--classes", "advert,physics", "--json"))
    assert [f["function"] for f in about["functions"]] == ["particles", "pills", "offers", "energy"]  # not the count of votes

    truth = pl.DataFrame(
        {"id": [f"d{i}" for i in range(0, 200, 5)], "label": [("advert", "physics")[i % 2] for i in range(0, 200, 5)]}
    )
    truth.write_parquet(tmp_path / "dev.parquet")
    output = told(
        "distill", tmp_path / "documents.parquet", "--labels", tmp_path / "labels.parquet", "-o", tmp_path / "classifier",
        "--dev", tmp_path / "dev.parquet", "--option", "epochs=20",
    )  # fmt: skip
    assert "fasttext classifier distilled from" in output and "on the dev set (40 documents" in output
    card = json.loads((tmp_path / "classifier" / "card.json").read_text())
    assert card["classes"] == ["advert", "physics"] and card["dev"]["comparison"]["distilled"]["accuracy"] > 0.9
    output = told("classify", tmp_path / "documents.parquet", "-m", tmp_path / "classifier", "-o", tmp_path / "c.parquet")
    found = pl.read_parquet(tmp_path / "c.parquet")
    assert found.columns == ["id", "label", "p_advert", "p_physics"] and "advert " in output
    assert (found["label"] == pl.Series([("advert", "physics")[i % 2] for i in range(200)])).mean() > 0.95  # type: ignore[operator]


def test_a_task_that_is_distilled_ends_in_the_classifiers_labels(tmp_path: Path) -> None:
    texts = [f"{WORDS[i % 2]} {i}" if i % 3 else WORDS[i % 2].split()[i % 4] for i in range(120)]
    pl.DataFrame({"id": [str(i) for i in range(120)], "text": texts}).write_parquet(tmp_path / "documents.parquet")
    (tmp_path / "f.yaml").write_text(FUNCTIONS + "distill: {options: {epochs: 20}}\n")
    output = told(tmp_path / "documents.parquet", "-f", tmp_path / "f.yaml", "-o", tmp_path / "labels.parquet")
    assert "labels by the fasttext classifier distilled from" in output and "none 0" in output
    labels = pl.read_parquet(tmp_path / "labels.parquet")
    assert labels["label"].null_count() == 0 < (labels["votes"] == 0).sum()
    about = json.loads(told(tmp_path / "documents.parquet", "-f", tmp_path / "f.yaml", "--json"))
    assert about["distilled"]["kind"] == "fasttext" and about["labels"]["none"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nothing.npz", "-o", "m"], "there is no such file"),
        (["fit", "votes.npz", "-o", "m", "--key", "L_valid"], "no votes called L_valid; name one with --key: L, L_test"),
        (["fit", "votes.npz", "-o", "m", "--key", "other"], "votes are whole numbers"),
        (["fit", "votes.npz", "-o", "m", "--model", "best"], "there is no label model best; there are: auto"),
        (["fit", "votes.npz", "-o", "m", "--option", "steps=3"], "takes no option steps"),
        (["fit", "votes.npz", "-o", "m", "--option", "seed=x"], "option seed is 'x', and not a whole number"),
        (["fit", "votes.npz", "-o", "m", "--model", "dawid-skene", "--option", "iterations=2.5"], "and not a whole number"),
        (["fit", "votes.npz", "-o", "m", "--model", "dawid-skene", "--option", "strength=x"], "and not a number"),
        (["fit", "votes.npz", "-o", "m", "--model", "flyingsquid", "--option", "signs=1"], "and not true or false"),
        (["fit", "votes.npz", "-o", "m", "--option", "seed"], "write it as name=value"),
        (["fit", "votes.npz", "-o", "m", "--balance", ".5"], "has 1 shares; there are 2 classes"),
        (["fit", "votes.npz", "-o", "m", "--balance", "x,y"], "write it as numbers"),
        (["fit", "votes.npz", "-o", "m", "--balance", ".5,.6"], "sum to 1"),
        (["fit", "wrong.npz", "-o", "m"], "wrong.npz: "),
        (["fit", "votes.npz", "-o", "votes.npz"], "is an input too"),
        (["fit", "text.parquet", "-o", "m"], "no column of whole numbers, so no votes"),
        (
            ["fit", "numbered.parquet", "-o", "m"],
            "numbered.parquet holds documents (column text), and no votes: `menagerie label vote`",
        ),
        (["fit", "votes.npz", "-o", "m", "--calibrate", "temperature"], "calibrate needs dev"),
        (["analyze", "votes.npz", "-m", "m", "--calibrate", "isotonic"], "--calibrate goes with a model that is fitted here"),
        (["fit", "nulls.parquet", "-o", "m"], "function f has 1 nulls: an abstention is -1"),
        (["fit", "empty.npz", "-o", "m"], "empty.npz: "),
        (["apply", "votes.npz", "-m", "text.parquet", "-o", "x.parquet"], "text.parquet is no file of a label model"),
        (["apply", "votes.npz", "-m", "none", "-o", "x.parquet"], "name what `menagerie label fit -o` wrote"),
        (["distill", "text.parquet", "--labels", "text.parquet", "-o", "c"], "no probabilities p_<class> and votes"),
        (
            ["distill", "text.parquet", "--labels", "soft.parquet", "-o", "c", "--option", "epochs=x"],
            "fasttext classifier: option epochs is 'x', and not a whole number",
        ),
        (["classify", "text.parquet", "-m", "c", "-o", "x.parquet"], "name a folder that `menagerie label distill` wrote"),
    ],
)
def test_what_is_wrong_is_one_line(
    votes: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("wrong.npz", L=np.array([[0, 2], [-2, 1]]), k=2)
    pl.DataFrame({"id": ["a"], "label": ["x"], "p_x": [0.9], "p_y": [0.1], "votes": [1]}).write_parquet("soft.parquet")
    np.savez("empty.npz", L=np.zeros((0, 3), np.int8))
    pl.DataFrame({"id": ["a"], "text": ["b"]}).write_parquet("text.parquet")
    pl.DataFrame({"id": ["a"], "text": ["b"], "length": [1]}).write_parquet("numbered.parquet")
    pl.DataFrame({"id": ["a", "b"], "f": [0, None]}, schema_overrides={"f": pl.Int8}).write_parquet("nulls.parquet")
    told_in_error = failure(*arguments)
    assert message in told_in_error and "validation error" not in told_in_error


def test_columns_that_are_taken_for_votes_are_told(tmp_path: Path) -> None:
    lines = [{"id": str(i), "f": i % 2, "g": (i + 1) % 2, "url": "x"} for i in range(10)]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = told("fit", tmp_path / "votes.jsonl", "-o", tmp_path / "m")
    assert "taken for votes: f, g; left out: url" in output.replace("\n", " ")


def test_probabilities_are_calibrated_on_a_dev_set(votes: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, gold = votes
    known = range(0, len(gold), 8)
    truth = pl.DataFrame({"id": [f"votes.npz/{i}" for i in known], "label": [str(gold[i]) for i in known]})
    truth.write_parquet(tmp_path / "dev.parquet")
    plain = told("analyze", path, "--dev", tmp_path / "dev.parquet", "--model", "majority", "--option", "accuracy=0.99")
    assert "reliability, sure / right: " in plain and "calibration error" in plain and "log loss" in plain
    about = json.loads(
        told("fit", path, "--dev", tmp_path / "dev.parquet", "--model", "majority", "--option", "accuracy=0.99",
             "--calibrate", "temperature", "-o", tmp_path / "m", "--json")
    )  # fmt: skip
    reliability = about["reliability"]
    assert reliability["calibration"] == "temperature" and sum(reliability["documents"]) <= len(known)
    assert reliability["error"] < 0.5 * reliability["error_before"] and reliability["log_loss"] < reliability["log_loss_before"]
    model = load_model((tmp_path / "m").read_bytes())
    assert model.calibration_ is not None and model.calibration_["temperature"] > 1.5


def test_models_and_votes_of_other_functions_do_not_mix(votes: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, _ = votes
    told("fit", path, "-o", tmp_path / "m")
    np.savez(tmp_path / "three.npz", L=noisy(50)[0][:, :3])
    for verb in (["apply", tmp_path / "three.npz", "-m", tmp_path / "m", "-o", tmp_path / "x.parquet"],
                 ["analyze", tmp_path / "three.npz", "-m", tmp_path / "m"],
                 ["explain", tmp_path / "three.npz", "-m", tmp_path / "m", "--id", "three.npz/0"]):  # fmt: skip
        assert "f0, f1, f2" in failure(*verb)
    assert "has no document z; the first is votes.npz/0" in failure("explain", path, "-m", tmp_path / "m", "--id", "z")
    assert "the model's classes are 0,1" in failure("explain", path, "-m", tmp_path / "m", "--id", "z", "--classes", "a,b")


def test_help_lists_every_verb() -> None:
    output = told("--help")
    for verb in ("run", "vote", "fit", "apply", "analyze", "explain", "distill", "classify"):
        assert f"  {verb} " in output
        assert "Usage" in told(verb, "--help")
