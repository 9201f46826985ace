"""Checkpoints: whole or absent, as many as wanted, the same whether written aside or at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.tiny import tiny_run, two_components
from training.checkpoint import Checkpoints, latest_step
from training.config import ModelConfig, OptimizerConfig
from training.distributed import Process
from training.loop import train
from training.model import Transformer
from training.optimizer import build_optimizer

ALONE = Process(0, 1, torch.device("cpu"))


def made(seed: int, layers: int = 2) -> tuple[Transformer, torch.optim.Optimizer]:
    model = Transformer(ModelConfig(vocabulary=64, layers=layers, d_model=32, heads=4)).initialise(seed)
    optimizer = build_optimizer(model, OptimizerConfig())
    for _ in range(2):
        model(torch.arange(64).view(2, 32)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def tensors(model: Transformer, optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    yield from model.state_dict().values()
    for state in optimizer.state_dict()["state"].values():
        yield from state.values()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, asynchronous: bool) -> None:
    checkpoints = Checkpoints(tmp_path, ALONE, keep=0, asynchronous=asynchronous)
    model, optimizer = made(1)
    expected = [t.clone() for t in tensors(model, optimizer)]
    checkpoints.save(5, model, optimizer, {"note": [1.5, "x"]})
    for parameter in model.parameters():  # training goes on while it is written
        parameter.data.add_(1.0)
    checkpoints.wait()
    other, moments = made(2)
    assert checkpoints.load(5, other, moments) == {"step": 5, "note": [1.5, "x"]}
    assert all(torch.equal(a, b) for a, b in zip(tensors(other, moments), expected, strict=True))
    assert [group["weight_decay"] for group in moments.param_groups] == [0.1, 0.0]


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, ALONE, keep=2)
    for step in (2, 4, 6, 8):
        checkpoints.save(step, *made(step), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000006", "step-00000008"]
    assert checkpoints.latest() == 8


def test_what_was_being_written_is_swept_away_and_the_last_whole_one_counts(tmp_path: Path) -> None:
    Checkpoints(tmp_path, ALONE, keep=2).save(2, *made(1), {})
    (tmp_path / ".step-00000004").mkdir()
    (tmp_path / ".step-00000004" / "__0_0.distcp").write_bytes(b"half")
    Checkpoints(tmp_path, ALONE, keep=2).save(4, *made(1), {})
    (tmp_path / "latest").write_text("step-00000002")  # killed after the rename, before `latest` was replaced
    again = Checkpoints(tmp_path, ALONE, keep=2)
    assert again.latest() == 2
    again.save(4, *made(3), {"second": True})
    assert again.load(4, *made(0))["second"]
    assert not list(tmp_path.glob(".*"))


def test_a_checkpoint_that_is_gone_or_of_another_model_is_an_error(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, ALONE, keep=2)
    assert checkpoints.latest() is None
    checkpoints.save(2, *made(1), {})
    with pytest.raises(ValueError, match="does not fit this model"):
        checkpoints.load(2, *made(1, layers=3))
    (tmp_path / "latest").write_text("step-00000009")
    with pytest.raises(ValueError, match=r"names 'step-00000009', which is no checkpoint: point it at one of \[2\]"):
        latest_step(tmp_path)


def test_a_run_that_writes_checkpoints_aside_is_the_same_run(tmp_path: Path) -> None:
    shards = two_components(tmp_path)
    weights: list[Any] = []
    for asynchronous in (False, True):
        folder = tmp_path / str(asynchronous)
        config = tiny_run(tmp_path, shards, folder=str(folder), log__asynchronous=asynchronous)
        train(config, lambda line: None)
        weights.append((folder / "model.safetensors").read_bytes())
        assert latest_step(folder / "checkpoints") == 12
        assert len(list((folder / "checkpoints").glob("step-*"))) == 2
    assert weights[0] == weights[1]
