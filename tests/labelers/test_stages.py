from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from labelers.dev import DevSet
from labelers.label_stages import label_stages
from labelers.stages import Label, LabelParams, Vote
from labelers.stages_distill import tell
from labelers.stages_embed import Embed, EmbedParams, FitEmbedder, embed_stages
from labelers.stages_fit import FitLabels
from pipeline.stage import GlobalStage, PartitionStage
from pipeline.tables import embeddings_schema, labels_schema, votes_schema
from tests.labelers.judge_server import judge_server

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


def test_a_task_calibrates_on_its_dev_set(tmp_path: Path) -> None:
    rows = [{"id": f"d/{i}", "label": "good" if i % 3 else "bad"} for i in range(0, N, 2)]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = TOLD | {"dev": str(tmp_path / "dev.jsonl"), "calibrate": "temperature"}
    fit = FitLabels(LabelParams.model_validate(told))
    fit.setup({"dev": tmp_path / "dev.jsonl"})
    result = fit.finish("all", fit.merge([fit.summarise("p", {"votes/quality": vote()})]))
    assert (
        result.metrics["reliability"]["calibration"] == "temperature" and b'"kind": "temperature"' in result.files["model.json"]
    )
    assert result.metrics["reliability"]["log_loss"] < result.metrics["reliability"]["log_loss_before"]
    other = FitLabels(LabelParams.model_validate(TOLD | {"dev": told["dev"]}))
    other.setup({"dev": tmp_path / "dev.jsonl"})
    plain = other.finish("all", other.merge([other.summarise("p", {"votes/quality": vote()})]))
    assert plain.metrics["reliability"]["calibration"] is None and other != fit
    (tmp_path / "dev.jsonl").write_text('{"id": "elsewhere", "label": "good"}\n')
    fit.setup({"dev": tmp_path / "dev.jsonl"})
    result = fit.finish("all", fit.merge([fit.summarise("p", {"votes/quality": vote()})]))
    assert any("nothing is calibrated" in told for told in result.metrics["warnings"])
    with pytest.raises(ValueError, match="calibrate needs dev"):
        LabelParams.model_validate(TOLD | {"calibrate": "temperature"})


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
        ({"functions": []}, "give functions that vote, or scores"),
        ({"functions": [], "scores": ["words"]}, "weaver and scores go together"),
        ({"model": "liger"}, "liger and embeddings go together"),
        ({"functions": [{"python": "x.py", "vote": "good"}]}, "Extra inputs"),
        ({"functions": ["x.py"]}, "dictionary"),
        ({"task": "a/b"}, "pattern"),
        ({"options": {"seed": "one"}}, "option seed is 'one', and not a whole number"),
        ({"distill": {"options": {"epoch": 2}}}, "fasttext classifier takes no option epoch"),
    ],
)
def test_a_wrong_task_is_found_when_the_recipe_is_read(fields: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        LabelParams.model_validate(TOLD | fields)


WORDS = {"good": "quark lepton boson photon field energy", "bad": "cheap pills buy now offer click"}


def corpus(n: int = 240, seed: int = 0) -> tuple[dict[str, pa.Table], np.ndarray]:
    """Documents of good or bad words; length tells which, mostly; a third has no length. And which they are."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 2, n)
    texts = [" ".join(rng.choice(WORDS[("bad", "good")[g]].split(), 12)) for g in gold.tolist()]
    words = np.where(rng.random(n) < 0.85, gold, 1 - gold) * 40.0
    missing = rng.random(n) < 1 / 3
    ids = pa.array([f"d/{i}" for i in range(n)], pa.string())
    documents = pa.table({"id": ids, "raw_content": pa.array(texts, pa.large_string())})
    return {"documents": documents, "signals": pa.table({"id": ids, "words": pa.array(words, mask=missing)})}, gold


RULES = [
    {"name": "long", "column": "words", "min": 20, "vote": "good", "otherwise": "bad"},
    {"name": "physics", "keywords": ["quark", "boson"], "vote": "good"},
    {"name": "adverts", "keywords": ["pills", "click"], "vote": "bad"},
    {"name": "energy", "keywords": ["energy", "offer"], "min": 3, "vote": "good"},
]


def build(params: LabelParams, folder: Path, tables: dict[str, pa.Table], parts: int = 3) -> dict[str, pa.Table]:
    """Run a task's stages on `parts` partitions as the engine does; the tables of all partitions together."""
    n = len(tables["documents"])
    edges = [n * i // parts for i in range(parts + 1)]
    split = [{name: t.slice(a, b - a) for name, t in tables.items()} for a, b in itertools.pairwise(edges)]
    metrics: dict[str, dict] = {}
    for stage in label_stages(params):
        files = {key: folder / path if path.startswith("global/") else Path(path) for key, path in stage.files().items()}
        stage.setup(files)  # type: ignore[attr-defined]
        if isinstance(stage, GlobalStage):
            summaries = [stage.summarise(f"p{i}", part) for i, part in enumerate(split)]
            result = stage.finish("all", stage.merge([stage.merge(summaries[:2]), *summaries[2:]]))
            for path, content in result.files.items():
                target = folder / "global" / stage.name / path
                target.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, bytes):
                    target.write_bytes(content)
            metrics[stage.name] = dict(result.metrics)
        else:
            assert isinstance(stage, PartitionStage)
            for i, part in enumerate(split):
                part |= stage.run(f"p{i}", {name: part[name] for name in stage.input_tables()}).tables  # type: ignore[arg-type]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return {name: pa.concat_tables([part[name] for part in split]) for name in split[0]}


def task(**fields: object) -> LabelParams:
    return LabelParams.model_validate({"task": "quality", "classes": ["bad", "good"], "functions": RULES, **fields})


def accuracy(labels: pa.Table, gold: np.ndarray) -> float:
    named = np.array([{"bad": 0, "good": 1, None: -1}[name] for name in labels["label"].to_pylist()])
    return float((named == gold).mean())


@pytest.mark.parametrize("model", ["auto", "dawid-skene", "flyingsquid", "matrix-completion", "majority"])
def test_every_label_model_labels_a_corpus(model: str, tmp_path: Path) -> None:
    tables, gold = corpus()
    built = build(task(model=model), tmp_path, tables)
    assert accuracy(built["labels/quality"], gold) > (0.7 if model == "majority" else 0.85)  # which leaves ties open
    fit = json.loads((tmp_path / "metrics.json").read_text())["fit-labels/quality"]
    assert fit["documents"] == 240 and sum(fit["class_balance"].values()) == pytest.approx(1) and fit["effective_functions"] > 2


def test_a_dev_set_scores_functions_and_models_and_is_not_learned_from(tmp_path: Path) -> None:
    tables, gold = corpus()
    dev = pa.table({"id": [f"d/{i}" for i in range(0, 240, 4)], "label": [("bad", "good")[g] for g in gold[::4].tolist()]})
    pq.write_table(dev, tmp_path / "dev.parquet")
    plain = build(task(), tmp_path / "a", tables)
    told = build(task(dev=str(tmp_path / "dev.parquet"), distill={"documents": 120}), tmp_path / "b", tables)
    assert told["weak/quality"].equals(plain["labels/quality"])  # the model is the same
    metrics = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert metrics["fit-labels/quality"]["dev"]["documents"] == 60 and metrics["fit-labels/quality"]["dev"]["accuracy"] > 0.8
    card = metrics["distill/quality"]
    assert card["dev"]["documents"] == 60 and set(card["dev"]["comparison"]) == {"label model", "distilled"}
    assert card["documents"] == 108 and card["held_out"]["documents"] == 12  # 120 sampled, a tenth of them held out
    assert "distilled" in tell(card) and "agrees with the label model" in tell(card)


@pytest.mark.parametrize("apply", ["everywhere", "unlabelled"])
def test_a_distilled_classifier_labels_what_no_function_votes_on(apply: str, tmp_path: Path) -> None:
    tables, gold = corpus()
    rules = [dict(r, keywords=[r["keywords"][0]]) if "keywords" in r else r for r in RULES]
    built = build(task(functions=rules, distill={"apply": apply}), tmp_path, tables)
    weak, labels = built["weak/quality"], built["labels/quality"]
    assert weak["label"].null_count > 0 == labels["label"].null_count
    assert accuracy(labels, gold) > max(0.9, accuracy(weak, gold))
    assert labels["votes"].equals(weak["votes"])
    voted = np.array(weak["votes"]) > 0
    same = np.array(labels["p_good"])[voted] == np.array(weak["p_good"])[voted]
    assert same.all() == (apply == "unlabelled")


def test_liger_labels_documents_near_to_those_with_votes(tmp_path: Path) -> None:
    tables, gold = corpus()
    params = EmbedParams.model_validate({"name": "words", "kind": "tfidf", "dimension": 8})
    fit, embed = embed_stages(params)
    assert isinstance(fit, FitEmbedder) and isinstance(embed, Embed)
    summaries = [fit.summarise("p", {"documents": tables["documents"].slice(a, 80)}) for a in (0, 80, 160)]
    files = fit.finish("all", fit.merge(summaries)).files
    for name, content in files.items():
        assert isinstance(content, bytes)
        (tmp_path / name).write_bytes(content)
    assert set(embed.files()) == set(files)
    embed.setup({name: tmp_path / name for name in files})
    tables["embeddings/words"] = embed.run("p", tables).tables["embeddings/words"]
    assert tables["embeddings/words"].schema.equals(embeddings_schema(8))
    words = {"quark": "good", "lepton": "good", "pills": "bad", "offer": "bad"}
    sparse = [{"name": word, "keywords": [word], "min": 4, "vote": vote} for word, vote in words.items()]
    alone = build(task(functions=sparse, model="flyingsquid"), tmp_path / "a", tables)
    extended = build(
        task(functions=sparse, model="liger", embeddings="words", options={"base": "flyingsquid", "radius": 0.6}),
        tmp_path / "b", tables,
    )  # fmt: skip
    assert accuracy(extended["labels/quality"], gold) > accuracy(alone["labels/quality"], gold) + 0.2
    with pytest.raises(ValidationError, match="go together"):
        task(model="liger")


def test_an_embedder_learns_from_a_tasks_labels(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    tables, _ = corpus()
    tables["labels/quality"] = build(task(), tmp_path, tables)["labels/quality"]
    options = {"epochs": 2}
    fit, embed = embed_stages(
        EmbedParams.model_validate(
            {"name": "taught", "kind": "contrastive", "task": "quality", "dimension": 8, "options": options}
        )
    )
    assert isinstance(fit, FitEmbedder)
    for name, content in fit.finish("all", fit.merge([fit.summarise("p", tables)])).files.items():
        (tmp_path / name).write_bytes(content)  # type: ignore[arg-type]
    embed.setup({name: tmp_path / name for name in embed.files()})  # type: ignore[attr-defined]
    assert embed.run("p", tables).tables["embeddings/taught"]["embedding"].type.list_size == 8  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "contrastive"}, "kind contrastive needs task"),
        ({"kind": "transformer"}, "kind transformer needs model"),
        ({"kind": "tfidf", "task": "quality"}, "takes no task, which is for contrastive"),
        ({"kind": "word2vec"}, "Input should be"),
    ],
)
def test_wrong_embeddings_are_found_when_the_recipe_is_read(fields: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        EmbedParams.model_validate({"name": "x", **fields})


def test_judges_that_do_not_answer_are_counted_and_told(tmp_path: Path) -> None:
    tables, _ = corpus(3)
    with judge_server(lambda *_: (500, "", {})) as server:
        function = {"name": "judge", "judge": server.url, "model": "m", "prompt": "{text}", "answers": {"yes": "good"},
                    "retries": 0, "cache": str(tmp_path / "c.sqlite")}  # fmt: skip
        stage = Vote(task(functions=[function]))
        stage.setup({})
        metrics = stage.run("p", tables).metrics
    assert metrics["faults"] == {"judge": {"HTTP 500": 3}}
    assert "judge abstains on 3 documents for want of an answer: HTTP 500 3" in metrics["warnings"][0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([{"id": "d/0"}], "no column label"),
        ([{"id": "d/0", "label": "great"}], "has the label 'great'; the classes are: bad, good"),
        ([{"id": "d/0", "label": "bad"}, {"id": "d/0", "label": "good"}], "there with two labels"),
        ([{"id": "d/0", "label": None}], "no document has a label"),
    ],
)
def test_a_wrong_dev_set_is_told(content: list[dict], told: str, tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    path.write_text("\n".join(map(json.dumps, content)))
    with pytest.raises(ValueError, match=f"dev.jsonl: .*{told}"):
        DevSet.read(path, ["bad", "good"])


def test_weaver_weighs_scores_of_different_scales(tmp_path: Path) -> None:
    n, rng = 1500, np.random.default_rng(0)
    gold = (rng.random(n) < 0.4).astype(int)
    scores = {
        "a": gold + rng.normal(0, 0.7, n), "b": np.exp(2 * gold + rng.normal(0, 1.2, n)),
        "c": 100 * gold + rng.normal(0, 120, n),
        "noise": rng.random(n),
    }  # fmt: skip
    missing = rng.random(n) < 0.1
    ids = pa.array([f"d/{i}" for i in range(n)], pa.string())
    signals = pa.table({"id": ids, **{k: pa.array(v, mask=missing if k == "a" else None) for k, v in scores.items()}})
    tables = {"documents": pa.table({"id": ids, "raw_content": pa.array(["x"] * n, pa.large_string())}), "signals": signals}
    dev = pa.table({"id": ids[:100], "label": [("bad", "good")[g] for g in gold[:100].tolist()]})
    pq.write_table(dev, tmp_path / "dev.parquet")
    params = task(functions=[], scores=["a", "b", "c", "noise"], model="weaver", dev=str(tmp_path / "dev.parquet"))
    labels = build(params, tmp_path, tables)["labels/quality"]
    assert accuracy(labels, gold) > 0.82 and labels["votes"].to_pylist()[:50] == [3 + (not m) for m in missing[:50].tolist()]
    told = json.loads((tmp_path / "metrics.json").read_text())["fit-labels/quality"]
    assert told["dev"]["documents"] == 100 and told["class_balance"]["good"] == pytest.approx(0.4, abs=0.1)
    assert any("noise" in w for w in told["warnings"])
    with pytest.raises(ValueError, match="there is no column d"):
        build(task(functions=[], scores=["d"], model="weaver"), tmp_path, tables)
