"""The command line's frame: quick help, one-line errors, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workflows.cli import VERBS

HEAVY = (
    "pyarrow",
    "polars",
    "numpy",
    "ray",
    "torch",
    "pydantic",
    "fastwarc",
    "resiliparse",
    "rich",
    "yaml",
    "scipy",
    "tokenizers",
)


def menagerie(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workflows.cli", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_help_loads_no_heavy_module() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from workflows.cli import menagerie\n"
        "assert CliRunner().invoke(menagerie, ['--help']).exit_code == 0\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_heavy_modules(verb: str) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from workflows.cli import menagerie\n"
        f"result = CliRunner().invoke(menagerie, [{verb!r}, '--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        "assert 'Usage: ' in result.output\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_recipe_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = menagerie("build", str(tmp_path / "none.yaml"))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "none.yaml is not there" in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = menagerie("build", str(tmp_path / "none.yaml"), "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_an_unknown_option_is_usage_and_exit_code_2() -> None:
    assert menagerie("build", "--no-such-option").returncode == 2
    assert menagerie("no-such-verb").returncode == 2
