from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import yaml

from labelers.functions import apply
from labelers.functions_python import PythonParams
from labelers.functions_yaml import load_functions
from labelers.stages import LabelParams
from pipeline.mix import MixParams

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_recipes_of_the_guides_are_valid() -> None:
    (label,) = blocks("labelling.md", "yaml")
    (mix,) = blocks("mixtures.md", "yaml")
    assert LabelParams.model_validate(yaml.safe_load(label)["label"][0]).task == "quality"
    assert MixParams.model_validate(yaml.safe_load(mix)["mix"]).name == "main"


def test_the_labelling_functions_of_the_guide_run(tmp_path: Path) -> None:
    (source,) = blocks("labelling.md", "python")
    (tmp_path / "f.py").write_text(source)
    functions = load_functions([PythonParams(python="f.py")], {"python:f.py": tmp_path / "f.py"})
    frame = pl.DataFrame(
        {"id": ["a", "b"], "ccnet_length": [100, 50], "ccnet_nlines": [1, 1], "raw_content": ["a tablespoon", "x"]}
    )
    votes = apply(functions, ("low", "high"), frame)
    assert votes.to_pydict() == {"id": ["a", "b"], "long_lines": [1, 0], "recipe": [1, -1]}
