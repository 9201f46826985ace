"""docs/kernels.md says what was measured: its tables are those of the committed results."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def report() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "report_kernels.py"
    spec = importlib.util.spec_from_file_location("report_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(**changes: object) -> dict[str, object]:
    about = {"device": "card", "torch": "2", "triton": "3", "copy_tb_per_s": 4.0, "gemm_tflop_per_s": 700.0}
    plain = {"operator": "norm", "shape": "a", "direction": "forward", "floor": 1.0, "measured": 1.5, "notes": "", "extra": {}}
    return plain | {"peers": {"torch.compile": 3.0, "liger": None}, "about": about} | changes


def test_the_guide_holds_the_committed_results(report: ModuleType) -> None:
    guide = report.GUIDE.read_text(encoding="utf-8")
    operators = report.load()
    assert report.fill(guide, operators) == guide
    for name, rows in operators.items():
        assert not any(report.best_peer(r) for r in rows) or (report.PLOTS / f"{name}.svg").is_file()


def test_tables_are_filled_in_place_and_rows_without_one_are_an_error(report: ModuleType, tmp_path: Path) -> None:
    guide = "before\n<!-- measured: norm -->\nold\n<!-- end -->\nafter <!-- measured: rope -->\n<!-- end -->\n"
    filled = report.fill(guide, {"norm": [row(extra={"peak_gb": 0.5, "tokens": 5000})]})
    assert "| a | forward | 1.5 | 1 | 1.50 | torch.compile 3 ms | 2.00 | peak gb 0.5; tokens 5,000 |" in filled
    assert "old" not in filled
    assert report.fill(filled, {"norm": [row(extra={"peak_gb": 0.5, "tokens": 5000})]}) == filled
    with pytest.raises(ValueError, match="has no place for monarch"):
        report.fill(guide, {"monarch": [row()]})
    report.plot("norm", [row()], tmp_path / "plots" / "norm.svg")
    first = (tmp_path / "plots" / "norm.svg").read_bytes()
    report.plot("norm", [row()], tmp_path / "plots" / "norm.svg")
    assert first == (tmp_path / "plots" / "norm.svg").read_bytes()
