"""The guides to signals, rules and classifiers say what is, and their examples run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from pipeline.mix import MixParams
from quality import registry
from quality.annotate import AnnotateParams
from quality.registry import registered
from quality.rules import RULE_SETS
from workflows.cli import menagerie
from workflows.commands.signals import told_range
from workflows.rule_filters import expand_rules

DOCS = Path(__file__).parents[2] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page(name), re.DOTALL)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registered()))


def test_the_guides_list_every_signal_with_its_range() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (.*) \| ([^|]*) \|$", page("signals.md").split("## Word lists")[0] + page("rules.md"), re.MULTILINE
    )
    told = {name: bounds.strip() for name, _, bounds in rows if name.startswith(("ccnet", "rps", "gopher_", "c4_", "fineweb_"))}
    assert told == {each.name: told_range(each.range) for each in registered().values()}


def test_the_guide_lists_every_rule_set() -> None:
    assert re.findall(r"^\| `(\w+)` \| [^|]* \|$", page("rules.md"), re.MULTILINE) == list(RULE_SETS)


def test_the_recipes_of_the_guides_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("signals.md", "rules.md", "classifiers.md", "custom-signals.md"):
        for block in blocks(name, "yaml"):
            told: dict[str, Any] = yaml.safe_load(block)
            if "annotate" in told:
                (tmp_path / "house_signals.py").write_text(blocks("custom-signals.md", "python")[0] + "# again\n")
                monkeypatch.chdir(tmp_path)
                AnnotateParams.model_validate(told["annotate"])
            if "mix" in told:
                mixture = MixParams.model_validate(expand_rules(told["mix"]))
                assert name != "rules.md" or len(mixture.select) == 1 + 23 + 3


def test_the_signals_of_the_guide_work(tmp_path: Path) -> None:
    (source,) = blocks("custom-signals.md", "python")
    (tmp_path / "house_signals.py").write_text(source)
    texts = ["Why? Because a.org says so. Really?", "", "a.org"]
    pages = pa.table({"raw_content": texts, "source_domain": ["a.org", "b.org", None]})
    pq.write_table(pages, tmp_path / "pages.parquet")
    out = tmp_path / "signals.parquet"
    names = "house_questions,house_mentions_host"
    arguments = [
        "annotate",
        tmp_path / "pages.parquet",
        "-o",
        out,
        "--module",
        tmp_path / "house_signals.py",
        "--signals",
        names,
    ]
    done = CliRunner().invoke(menagerie, [str(a) for a in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    table = pq.read_table(out)
    assert table["house_questions"].to_pylist() == [pytest.approx(0.5), None, 0.0]
    assert table["house_mentions_host"].to_pylist() == [1.0, 0.0, None]
    assert (
        table.schema.field("house_questions").metadata[b"definition"]
        == b"Question marks over sentences; null without sentences."
    )
    body = [line for line in source.split("\n\n\n")[1].splitlines() if line]
    assert len(body) <= 10


def test_the_verbs_and_options_of_the_guides_exist() -> None:
    for name in ("signals.md", "rules.md", "classifiers.md", "custom-signals.md"):
        for line in re.findall(r"^(?:\$ )?menagerie (.*)$", page(name).replace("\\\n", " "), re.MULTILINE):
            words = line.split()
            verb = words[:2] if words[0] == "models" else words[:1]
            shown = CliRunner().invoke(menagerie, [*verb, "--help"])
            assert shown.exit_code == 0, line
            for option in re.findall(r"--[a-z][a-z0-9-]*", line.split("#")[0]):
                assert option in shown.output, (line, option)
