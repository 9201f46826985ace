from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from labelers.stages import Label, LabelParams, Vote
from labelers.stages_fit import FitLabels
from pipeline.tables import labels_schema, votes_schema

N = 60
IDS = pa.array([f"d/{i}" for i in range(N)], pa.string())
TABLES = {
    "documents": pa.table({"id": IDS, "language": [("en", "de", None)[i % 3] for i in range(N)]}),
    "signals": pa.table({"id": IDS, "words": pa.array([i if i % 7 else None for i in range(N)], pa.float64())}),
}
TOLD = {
    "model": "majority",
    "task": "quality",
    "classes": ["bad", "good"],
    "functions": [
        {"name": "wordy", "column": "words", "min": 20, "vote": "good", "otherwise": "bad"},
        {"name": "english", "column": "language", "values": ["en"], "vote": "good"},
        {"name": "german", "where": "language = 'de' and words < 40", "vote": "bad"},
    ],
}
PARAMS = LabelParams.model_validate(TOLD)


def vote(params: LabelParams = PARAMS, tables: dict[str, pa.Table] = TABLES) -> pa.Table:
    stage = pickle.loads(pickle.dumps(Vote(params)))
    stage.setup({key: Path(path) for key, path in stage.files().items()})
    result = stage.run("p", tables)
    assert result.rows_in == N and set(result.tables) == {f"votes/{params.task}"}
    return result.tables[f"votes/{params.task}"]


def label(params: LabelParams, votes: pa.Table, folder: Path) -> pa.Table:
    fit = FitLabels(params)
    (table,) = fit.input_tables()
    files = fit.finish("all", fit.merge([fit.summarise("p", {table: votes})])).files
    model = files["model.json"]
    assert isinstance(model, bytes)
    (folder / "model.json").write_bytes(model)
    stage = Label(params)
    assert stage.files() == {"model": f"global/{fit.name}/model.json"}
    stage.setup({"model": folder / "model.json"})
    return stage.run("p", {table: votes}).tables[f"labels/{params.task}"]


def test_votes_become_labels(tmp_path: Path) -> None:
    votes = vote()
    assert votes.schema.equals(votes_schema(["wordy", "english", "german"]))
    labels = label(PARAMS, votes, tmp_path)
    assert labels.schema.equals(labels_schema(["bad", "good"]))
    for v, row in zip(votes.to_pylist(), labels.to_pylist(), strict=True):
        cast = [v[f] for f in ("wordy", "english", "german") if v[f] >= 0]
        assert row["id"] == v["id"] and row["votes"] == len(cast)
        good, bad = cast.count(1), cast.count(0)
        assert row["label"] == (None if good == bad else "good" if good > bad else "bad")
        assert row["p_good"] == (0.5 if good == bad else float(good > bad)) == 1 - row["p_bad"]


def test_ties_are_broken_only_when_asked(tmp_path: Path) -> None:
    votes = vote()
    kept = label(PARAMS, votes, tmp_path)["label"].to_pylist()
    broken = label(LabelParams.model_validate(TOLD | {"tie_break": "random"}), votes, tmp_path)
    assert None in kept
    for before, after, cast in zip(kept, broken["label"].to_pylist(), broken["votes"].to_pylist(), strict=True):
        assert (after is None) == (cast == 0)
        assert before in (None, after)


def test_fitting_merges_partitions_to_the_same_bytes() -> None:
    votes, fit = vote(), FitLabels(PARAMS)
    name = "votes/quality"
    whole = fit.finish("all", fit.merge([fit.summarise("p", {name: votes})]))
    parts = [fit.summarise(str(a), {name: votes.slice(a, 13)}) for a in range(0, N, 13)]
    for merged in (fit.merge(parts), fit.merge([fit.merge(parts[:2]), fit.merge(parts[2:])])):
        other = fit.finish("all", merged)
        assert other.files["model.json"] == whole.files["model.json"]
        assert other.files["analysis.parquet"].equals(whole.files["analysis.parquet"])
        assert other.metrics == whole.metrics
    assert whole.metrics["documents"] == N


def test_a_stage_depends_only_on_its_own_parameters() -> None:
    other = LabelParams.model_validate(TOLD | {"tie_break": "random"})
    assert Vote(other) == Vote(PARAMS) and FitLabels(other) == FitLabels(PARAMS) and Label(other) != Label(PARAMS)


def test_tasks_keep_apart() -> None:
    other = LabelParams.model_validate(TOLD | {"task": "topic"})
    assert [s(PARAMS).name for s in (Vote, FitLabels, Label)] == ["vote/quality", "fit-labels/quality", "label/quality"]
    assert Vote(other).name == "vote/topic" and Label(other).input_tables() == ("votes/topic",)


def test_the_python_file_belongs_to_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "functions.py"
    path.write_text(
        "from labelers import labeling_function\n\n@labeling_function(columns=['words'])\ndef none(d): return None\n"
    )
    params = LabelParams.model_validate(TOLD | {"functions": [{"python": str(path)}]})
    assert Vote(params).files() == {f"python:{path}": str(path)}
    assert vote(params)["none"].to_pylist() == [-1] * N


def test_votes_of_other_functions_need_a_new_fit(tmp_path: Path) -> None:
    votes = vote()
    label(PARAMS, votes, tmp_path)
    stage = Label(PARAMS)
    stage.setup({"model": tmp_path / "model.json"})
    with pytest.raises(
        ValueError, match="fitted on the functions wordy, english, german, and the votes are those of wordy, german"
    ):
        stage.run("p", {"votes/quality": votes.drop(["english"])})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"classes": ["good"]}, "at least 2"),
        ({"classes": ["good", "good"]}, "named twice"),
        ({"classes": ["yes", "no"]}, "votes 'good', which is no class of this task; the classes are: yes, no"),
        ({"model": "flying"}, "no label model flying"),
        ({"functions": []}, "at least 1"),
        ({"functions": [{"python": "x.py", "vote": "good"}]}, "Extra inputs"),
        ({"functions": ["x.py"]}, "dictionary"),
        ({"task": "a/b"}, "pattern"),
    ],
)
def test_a_wrong_task_is_found_when_the_recipe_is_read(fields: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        LabelParams.model_validate(TOLD | fields)
