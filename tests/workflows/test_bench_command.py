"""`menagerie bench`: arguments reach the script, its exit code comes back, and what cannot run says why in one line."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner

from workflows.cli import main
from workflows.commands import bench as command
from workflows.commands.bench import bench


def test_every_verb_has_its_script() -> None:
    assert [script for script, _ in command._SCRIPTS.values() if not (command._FOLDER / script).is_file()] == []


def test_arguments_and_exit_code_pass_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "minhash.py").write_text(
        "import sys; from pathlib import Path\n"
        "Path(__file__).with_suffix('.txt').write_text(' '.join(sys.argv[1:]))\n"
        "sys.exit(3)\n"
    )
    monkeypatch.setattr(command, "_FOLDER", tmp_path)
    assert CliRunner().invoke(bench, ["minhash", "a.parquet", "--documents", "7"]).exit_code == 3
    assert (tmp_path / "minhash.txt").read_text() == "a.parquet --documents 7"


def test_a_missing_script_or_gpu_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for verb, says in (("kernels", "torch sees no CUDA device here"), ("signals", "benchmarks are in the source tree")):
        if verb == "signals":
            monkeypatch.setattr(command, "_FOLDER", tmp_path)
        with pytest.raises(SystemExit) as exit_:
            main(["bench", verb])
        assert exit_.value.code == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert says in line


def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "kernels.py"
    spec = importlib.util.spec_from_file_location("kernels_bench", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kernels_bench", module)
    spec.loader.exec_module(module)
    return module


def test_the_table_names_what_torch_does_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    module = benchmark(monkeypatch)
    rows = [
        module.Row("norm", "a", "forward", 1.0, 2.0, {"torch.compile": 3.0, "liger": 1.0}),
        module.Row("attention", "b", "forward", 1.0, 2.0, {"cuDNN": 1.0, "torch.compile": None}),
    ]
    assert module.slower_than_torch(rows[:1]) == "no row is slower than torch here"
    told = module.slower_than_torch(rows)
    assert told.splitlines()[1:] == ["  attention b forward: cuDNN takes 0.50 of the time"]
    assert rows[0].best_peer == ("liger", 0.5)
