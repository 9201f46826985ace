from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers

from pipeline import tables
from pipeline.mix import Mix, MixParams, Plan, plan_path
from pipeline.plan import MixturePlan

PARAMS = MixParams.model_validate(
    {
        "name": "small",
        "tables": ["documents", "duplicates"],
        "select": [{"name": "short", "drop": "length < 10"}, {"name": "duplicate", "keep": '"keep_sim0.8"'}],
        "components": [
            {"name": "english", "languages": ["en"], "weight": 3, "max_epochs": 4},
            {"name": "head", "buckets": ["head"], "weight": 1, "max_epochs": 4},
        ],
        "heldout": 0.2,
    }
)


def corpus(n: int, first: int = 0) -> dict[str, pa.Table]:
    """Documents `first` to `first + n`, a few of every kind."""
    numbers = range(first, first + n)
    ids = pa.array([f"d/{i}" for i in numbers], pa.string())
    documents = {
        "id": ids,
        "length": pa.array([(i * 37) % 100 for i in numbers], pa.int64()),
        "language": pa.array([("en", "de", None)[i % 3] for i in numbers], pa.string()),
        "bucket": pa.array([("head", "tail")[i % 2] for i in numbers], pa.string()),
        "source_domain": pa.array([f"site{i % 7}" for i in numbers], pa.string()),
    }
    duplicates = {"id": ids, "keep_sim0.8": pa.array([i % 5 > 0 for i in numbers], pa.bool_())}
    return {"documents": pa.table(documents), "duplicates": pa.table(duplicates)}


def planned(params: MixParams, *parts: dict[str, pa.Table]) -> bytes:
    stage = Plan(params)
    merged = stage.merge([stage.summarise("p", part) for part in parts])
    return stage.finish("all", merged).files["plan.json"]


def mixed(params: MixParams, plan: bytes, part: dict[str, pa.Table], folder: Path) -> pa.Table:
    (folder / "plan.json").write_bytes(plan)
    stage = pickle.loads(pickle.dumps(Mix(params)))
    stage.setup({"plan": folder / "plan.json"})
    result = stage.run("p", part)
    assert result.rows_in == result.tables[f"mixture/{params.name}"].num_rows and not result.drops
    return result.tables[f"mixture/{params.name}"]


@settings(deadline=None)
@given(st.integers(30, 200), st.lists(st.integers(0, 200), max_size=4))
def test_plan_and_mixture_do_not_depend_on_partitions(
    tmp_path_factory: pytest.TempPathFactory, n: int, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("mix")
    edges = sorted({0, n, *(c for c in cuts if c < n)})
    whole = corpus(n)
    parts = [{k: t.slice(a, b - a) for k, t in whole.items()} for a, b in itertools.pairwise(edges)]
    plan = planned(PARAMS, whole)
    assert planned(PARAMS, *parts) == plan
    one = mixed(PARAMS, plan, whole, folder)
    assert pa.concat_tables([mixed(PARAMS, plan, part, folder) for part in parts]).equals(one)


def test_a_mixture_marks_every_document_and_realises_the_plan(tmp_path: Path) -> None:
    part = corpus(600)
    plan = MixturePlan.from_json(planned(PARAMS, part))
    marked = mixed(PARAMS, plan.to_json(), part, tmp_path)
    assert marked.schema.equals(tables.MIXTURE)
    assert marked["id"].equals(part["documents"]["id"])
    rows, lengths = marked.to_pylist(), part["documents"]["length"].to_pylist()
    for row in rows:
        assert (row["component"] is None) != (row["reason"] is None)
        assert (row["split"] is None) == (row["component"] is None)
        assert (row["repeats"] > 0) == (row["split"] == "train")
    # Repeating each document as planned gives the weights, in tokens.
    tokens = {
        c.name: sum(r["repeats"] * n / 4 for r, n in zip(rows, lengths, strict=True) if r["component"] == c.name)
        for c in plan.components
    }
    assert tokens["english"] / sum(tokens.values()) == pytest.approx(0.75, abs=1e-3)
    assert sum(tokens.values()) == pytest.approx(plan.tokens, rel=1e-3)
    for c in plan.components:
        assert sum(r["component"] == c.name and r["split"] == "train" for r in rows) == c.documents
        assert sum(r["component"] == c.name and r["split"] == "heldout" for r in rows) == c.heldout_documents > 0
    for reason, dropped in plan.drops.items():
        assert sum(r["reason"] == reason for r in rows) == dropped.documents > 0
    assert plan.selected + sum(d.documents for d in plan.drops.values()) == plan.documents == 600


def test_metrics_count_components_splits_and_reasons(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(planned(PARAMS, corpus(60)))
    stage = Mix(PARAMS)
    stage.setup({"plan": tmp_path / "plan.json"})
    metrics = stage.run("p", corpus(60)).metrics
    assert sum(metrics["component"].values()) + sum(metrics["reason"].values()) == 60
    assert sum(metrics["split"].values()) == sum(metrics["component"].values())
    assert json.loads(json.dumps(metrics)) == metrics


def test_whole_sites_can_be_held_out(tmp_path: Path) -> None:
    params = PARAMS.model_copy(update={"heldout_by": "source_domain", "heldout": 0.5})
    part = corpus(300)
    marked = mixed(params, planned(params, part), part, tmp_path)
    splits: dict[str, set[str]] = {}
    for site, split in zip(part["documents"]["source_domain"].to_pylist(), marked["split"].to_pylist(), strict=True):
        if split is not None:
            splits.setdefault(site, set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "heldout"}
    with pytest.raises(ValueError, match="heldout_by: there is no column site"):
        Plan(params.model_copy(update={"heldout_by": "site"})).summarise("p", part)


def test_a_tokenizer_measures_characters_per_token(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    params = MixParams.model_validate(
        {
            "tables": ["documents"],
            "components": [{"name": "all"}],
            "tokenizer": str(tmp_path / "tokenizer.json"),
            "heldout": 0,
            "sample": 5,
        }
    )
    text = "seven letters make no token"  # 5 words and the end of the document: 6 tokens
    documents = pa.table({"id": [f"d/{i}" for i in range(20)], "length": [len(text)] * 20, "raw_content": [text] * 20})
    stage = Plan(params)
    assert stage.files() == {"tokenizer": str(tmp_path / "tokenizer.json")}
    stage.setup({"tokenizer": tmp_path / "tokenizer.json"})
    summary = stage.summarise("p", {"documents": documents})
    assert summary["sampled_tokens"].to_pylist() == [5 * 6]
    plan = MixturePlan.from_json(stage.finish("all", summary).files["plan.json"])
    assert (plan.measured, plan.tokens) == (True, 20 * 6)
    with pytest.raises(ValueError, match=r"is no tokenizer\.json"):
        (tmp_path / "broken.json").write_text("{}")
        stage.setup({"tokenizer": tmp_path / "broken.json"})


def test_stages_of_two_mixtures_keep_apart() -> None:
    other = PARAMS.model_copy(update={"name": "large"})
    assert (Plan(PARAMS).name, Mix(PARAMS).name, Mix(other).name) == ("plan/small", "mix/small", "mix/large")
    assert Mix(other).files() == {"plan": plan_path("large")} == {"plan": "global/plan/large/plan.json"}
    assert Mix(PARAMS).input_tables() == ("documents", "duplicates") and Mix(PARAMS).output_tables() == ("mixture/small",)


def test_tables_that_do_not_align_are_refused() -> None:
    part = corpus(10)
    with pytest.raises(ValueError, match="hold different documents"):
        Plan(PARAMS).summarise("s/0", part | {"duplicates": corpus(10, 1)["duplicates"]})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"components": []}, "at least 1"),
        ({"components": [{"name": "a"}, {"name": "a"}]}, "two components are called a"),
        ({"components": [{"name": "a", "weight": 1}, {"name": "b"}]}, "some components have a weight"),
        ({"components": [{"name": "a", "where": "x >"}]}, "unable to parse"),
        ({"components": [{"name": "a", "weight": 0}]}, "greater than 0"),
        (
            {"components": [{"name": "a"}], "select": [{"name": "f", "keep": "x"}, {"name": "f", "keep": "y"}]},
            "two filters are called f",
        ),
        ({"components": [{"name": "a"}], "heldout": 1.0}, "less than 1"),
        ({"components": [{"name": "a"}], "weights": {}}, "Extra inputs"),
    ],
)
def test_a_wrong_mixture_is_found_when_the_recipe_is_read(fields: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        MixParams.model_validate(fields)
