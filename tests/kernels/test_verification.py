"""What checks kernels must itself be right; boundaries of documents; which implementation runs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch
from torch import Tensor

from kernels import check
from kernels.dispatch import implementation
from kernels.documents import document_starts_of, resolve_documents
from kernels.verification import CONVOLUTION_LIMITS, Case, relative_error, verify


def double(x: Tensor) -> Tensor:
    return 2 * x


def case(function: object, dtype: torch.dtype = torch.float32) -> Case:
    return Case("op", "test", function, double, {"x": torch.ones(4, 5, dtype=torch.float64)}, dtype)  # type: ignore[arg-type]


def test_a_right_operator_passes() -> None:
    report = verify(case(double), "cpu")
    assert not report.failures
    assert report.errors == {"out0": 0.0, "dx": 0.0}


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (lambda x: 2.0001 * x, "out0: relative error"),
        (lambda x: 2 * x + 1e-3 * (x.detach() - x), "dx: relative error"),
        (lambda x: torch.where(x > 0, torch.nan, x), "out0: relative error inf"),
        (lambda x: 2 * x + 1e-3 * torch.rand_like(x), "two runs differ"),
        (lambda x: 2 * x[:2], "out0: relative error inf"),
    ],
)
def test_a_wrong_operator_fails_and_says_how(wrong: object, what: str) -> None:
    failures = verify(case(wrong), "cpu").failures
    assert what in "; ".join(failures)


def test_no_more_than_twice_the_error_of_plain_torch() -> None:
    within_limit = case(lambda x: 2 * x * (1 + 6e-3), torch.bfloat16)
    assert any("allowed 2.00e-03" in failure for failure in verify(within_limit, "cpu").failures)


def test_float32_gradients_of_narrow_cases_are_held_to_the_cases_limits() -> None:
    def skewed(x: Tensor, w: Tensor) -> Tensor:
        return 2 * x.detach() * w.detach().to(x.dtype) + (1 + 6e-3) * 2 * (w - w.detach()).to(x.dtype) * x.detach()

    both = {name: torch.full((64,), value, dtype=torch.float64) for name, value in (("x", 3.0), ("w", 5.0))}
    chosen = Case("op", "wide", skewed, lambda x, w: 2 * x * w, both, torch.bfloat16, ("w",), ("x",), limits=CONVOLUTION_LIMITS)
    assert "dw: relative error" in "; ".join(verify(chosen, "cpu").failures)
    assert not verify(dataclasses.replace(chosen, wide_limits={"dw": 1e-2}), "cpu").failures


def test_relative_error_of_zero_is_the_norm() -> None:
    assert relative_error(torch.tensor([3.0, 4.0]), torch.zeros(2)) == 5.0
    assert relative_error(torch.tensor(1.5), torch.tensor(1.0)) == 0.5


def test_document_starts_follow_boundaries_and_rows() -> None:
    cu_seqlens = torch.tensor([0, 2, 2, 5, 8])  # an empty document, and one that a row's start cuts
    expected = [[0, 0, 2, 2], [0, 1, 1, 1]]
    assert document_starts_of(cu_seqlens, 2, 4).tolist() == expected
    assert resolve_documents("op", cu_seqlens, None, 2, 4).tolist() == expected  # type: ignore[union-attr]
    assert resolve_documents("op", None, None, 2, 4) is None
    with pytest.raises(ValueError, match="not both"):
        resolve_documents("op", cu_seqlens, torch.zeros(2, 4, dtype=torch.int32), 2, 4)


def test_where_a_tensor_is_decides_what_runs(reference_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert implementation("conv_fir", torch.zeros(1)).__name__ == "kernels.conv_fir.reference"
    if torch.cuda.is_available():
        assert implementation("conv_fir", torch.zeros(1, device="cuda")).__name__ == "kernels.conv_fir.triton"
        return
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert implementation("conv_fir", torch.zeros(1)).__name__ == "kernels.conv_fir.triton"
    assert implementation("conv_fir", torch.zeros(1, dtype=torch.float64)).__name__ == "kernels.conv_fir.reference"


def test_importing_kernels_imports_no_triton() -> None:
    code = "import sys, kernels.conv_fir, kernels.conv_toeplitz, kernels.conv_modal; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["conv_fur"], "no operator is called conv_fur; there are"),
        (["--device", "cudo"], "--device is 'cudo'; it may be cuda"),
        (["swiglu"], "torch sees no CUDA device here"),
    ],
)
def test_the_check_says_in_one_line_why_it_cannot_start(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check.main(arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_a_case_that_spoils_the_gpu_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(check, "_spoilt", False)
    monkeypatch.setattr(check, "cases", lambda _: iter([case(double), case(double), case(double)]))
    monkeypatch.setattr(check, "verify", fail)
    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    lines = check.check("op", "cuda")
    assert lines is not None
    assert [right for _, right in lines] == [False] * 3
    assert "illegal memory access" in lines[0][0]
    assert all("not run" in line for line, _ in lines[1:])
    assert check.check("op", "cuda") is None  # so its cases are run elsewhere


@pytest.mark.parametrize("outcome", [None, BrokenProcessPool("died")])
def test_a_share_whose_process_was_lost_runs_in_another(outcome: Exception | None) -> None:
    future: Future[list[tuple[str, bool]] | None] = Future()
    if outcome is None:
        future.set_result(None)
    else:
        future.set_exception(outcome)
    lines = check._found(future, "swiglu", "cpu", 0, 12)
    assert lines
    assert all(right for _, right in lines)


def test_the_check_names_its_operators() -> None:
    assert {"conv_fir", "conv_toeplitz", "conv_modal"} <= set(check.operators())
