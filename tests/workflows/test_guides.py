from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import yaml
from pydantic import TypeAdapter

from labelers.functions import apply
from labelers.functions_python import PythonParams
from labelers.functions_yaml import AnyFunctionParams, load_functions
from labelers.spans_join import RELATIONS, UNIONS
from labelers.stages import LabelParams
from labelers.stages_embed import EmbedParams
from labelers.stages_fit import VoteSummary, fit_summary
from pipeline.mix import MixParams
from workflows.section import load_section

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_recipes_of_the_guides_are_valid() -> None:
    label, functions, judge, scores, embeddings = blocks("labelling.md", "yaml")
    (mix,) = blocks("mixtures.md", "yaml")
    assert LabelParams.model_validate(yaml.safe_load(label)["label"][0]).task == "quality"
    for each in yaml.safe_load(functions) + yaml.safe_load(judge):
        assert TypeAdapter(AnyFunctionParams).validate_python(each).name == each["name"]
    assert LabelParams.model_validate(yaml.safe_load(scores)["label"][0]).model == "weaver"
    told = yaml.safe_load(embeddings)
    assert [EmbedParams.model_validate(e).kind for e in told["embeddings"]] == ["fasttext", "tfidf", "transformer"]
    assert LabelParams.model_validate(told["label"][0]).model == "liger"
    assert MixParams.model_validate(yaml.safe_load(mix)["mix"]).name == "main"


def test_the_tutorial_on_labels_is_valid() -> None:
    rules, distill, mix = (yaml.safe_load(b) for b in blocks("tutorial-labels.md", "yaml"))
    assert LabelParams.model_validate({"task": "quality", **rules, **distill}).distill is not None
    assert MixParams.model_validate(mix["mix"]).tables[-1] == "labels/quality"


def test_the_guide_to_spans_runs_and_tells_what_comes_out() -> None:
    (source,) = blocks("spans.md", "python")
    found: dict = {}
    exec(source, found)
    assert found["share"].tolist() == [0.2, 0.0] and found["votes"].tolist() == [0, 1]
    assert list(zip(found["outside"].start.tolist(), found["outside"].end.tolist(), strict=True)) == [(10, 20), (40, 45)]
    for relation in (*RELATIONS, *UNIONS):
        if relation not in ("after", "met_by", "overlapped_by", "started_by", "contains", "finished_by"):
            assert f"`{relation}`" in (DOCS / "spans.md").read_text(encoding="utf-8")
    (rules,) = blocks("spans.md", "yaml")
    for each in yaml.safe_load(rules):
        TypeAdapter(AnyFunctionParams).validate_python(each)


def test_the_quality_task_that_ships_votes_on_real_documents(shared: Path) -> None:
    params = load_section(DOCS.parent / "recipes" / "labels" / "quality.yaml", "label", LabelParams, {})
    assert len(params.functions) >= 15
    documents = pl.read_parquet(shared / "rpv2" / "documents.parquet", columns=["id", "raw_content"])
    frame = documents.join(pl.read_parquet(shared / "rpv2" / "signals.parquet"), on="id")
    summary = VoteSummary.measure(apply(load_functions(params.functions, {}), params.classes, frame), params.classes)
    fitted = fit_summary(summary, params)
    assert summary.statistics.labelled == frame.height and 0.1 < fitted.metrics["class_balance"]["low"] < 0.9
    accuracies = dict(zip(summary.statistics.functions, fitted.model.accuracies_, strict=True))
    assert accuracies["whole_sentences"] > 0.7 and accuracies["short_lines"] > 0.7


def test_the_labelling_functions_of_the_guide_run(tmp_path: Path) -> None:
    (source,) = blocks("labelling.md", "python")
    (tmp_path / "f.py").write_text(source)
    functions = load_functions([PythonParams(python="f.py")], {"python:f.py": tmp_path / "f.py"})
    frame = pl.DataFrame(
        {"id": ["a", "b"], "ccnet_length": [100, 50], "ccnet_nlines": [1, 1], "raw_content": ["a tablespoon", "x"]}
    )
    votes = apply(functions, ("low", "high"), frame)
    assert votes.to_pydict() == {"id": ["a", "b"], "long_lines": [1, 0], "recipe": [1, -1]}
