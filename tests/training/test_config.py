"""Runs as YAML says them: strict, with errors that say where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from training.config import DataConfig, ModelConfig, RunConfig, load_config


def values(**changes: Any) -> dict[str, Any]:
    return {"folder": "run", "data": {"components": {"web": {"manifest": "web/manifest.json"}}}, **changes}


def test_a_run_survives_the_way_to_yaml_and_back() -> None:
    config = RunConfig.from_dict(
        values(optimizer={"lr": "3e-4", "betas": [0.9, 0.99]}, model={"d_model": 128, "heads": 4}, log={"wandb_project": None})
    )
    assert config.optimizer.lr == 3e-4
    assert config.optimizer.betas == (0.9, 0.99)
    assert RunConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stepz": 3}, "unknown setting stepz"),
        ({"model": {"d_modell": 3}}, "model: unknown setting d_modell"),
        ({"model": {"d_model": "wide"}}, "model.d_model must be a whole number, not 'wide'"),
        ({"model": {"layers": 2.5}}, "model.layers must be a whole number"),
        ({"model": {"layers": True}}, "model.layers must be a whole number"),
        ({"model": {"tied": 1}}, "model.tied must be true or false"),
        ({"model": {"d_model": 100, "heads": 12}}, "no even width"),
        ({"model": {"heads": 12, "kv_heads": 5}}, "cannot share 5 kv_heads"),
        ({"optimizer": {"lr": 0}}, "lr is 0.0, must be positive"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr must be finite"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer.betas must have 2 entries"),
        ({"schedule": {"kind": "linear"}}, "schedule.kind is 'linear', must be one of"),
        ({"schedule": {"warmup": 2000}}, "longer than the run"),
        ({"data": {"components": {}}}, "data: components is empty"),
        ({"data": {"components": {"web": {}}}}, "data.components.web: missing setting manifest"),
        ({"data": {"components": {"web": {"manifest": "m", "weight": 0}}}}, "every weight is 0"),
        ({"data": {"components": {"web": {"manifest": "m"}}, "schedule": [[5, {"wab": 1}]]}}, "names wab"),
        (
            {"data": {"components": {"web": {"manifest": "m"}}, "schedule": [[5, {"web": 1}], [5, {"web": 1}]]}},
            "must come after",
        ),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"data": 3}, "DataConfig takes a mapping"),
    ],
)
def test_a_wrong_setting_is_an_error_that_says_where(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("(", r"\(")):
        RunConfig.from_dict(values(**changes))


def test_settings_of_the_command_line_replace_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values(steps=7)))
    config = load_config("run.yaml", ["steps=9", "optimizer.lr=1e-3", "data.components.web.weight=2"])
    assert (config.steps, config.optimizer.lr, config.data.components["web"].weight) == (9, 1e-3, 2.0)
    assert config.folder == str(tmp_path / "run")
    assert config.data.components["web"].manifest == str(tmp_path / "web/manifest.json")
    with pytest.raises(ValueError, match=r"run\.yaml: unknown setting speed"):
        load_config("run.yaml", ["speed=9"])
    with pytest.raises(ValueError, match=r"no\.yaml is missing"):
        load_config("no.yaml")
    with pytest.raises(ValueError, match=r"name\.of\.setting=value"):
        load_config("run.yaml", ["steps"])


def test_a_recipe_holds_these_settings_as_pydantic_fields() -> None:
    pydantic = pytest.importorskip("pydantic")
    recipe = pydantic.create_model("Recipe", model=(ModelConfig, ModelConfig()), data=(DataConfig, ...))
    data = {"components": {"web": {"manifest": "m", "weight": 2}}, "schedule": [[3, {"web": 1.0}]]}
    read = recipe.model_validate({"model": {"layers": 3}, "data": data})
    assert read.model == ModelConfig(layers=3)
    assert read.data.components["web"].weight == 2.0
    assert recipe.model_json_schema()["$defs"]["ModelConfig"]["properties"]["layers"]["description"].startswith("Blocks")
    with pytest.raises(ValueError, match="layerz"):
        recipe.model_validate({"model": {"layerz": 3}, "data": data})
    with pytest.raises(ValueError, match="must be positive"):
        recipe.model_validate({"model": {"layers": 0}, "data": data})
