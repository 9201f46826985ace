"""The same run in one process, under torchrun and on Ray Train; and from one number of processes to another."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training.tiny import tiny_run, two_components
from training.config import RunConfig
from training.loop import train
from training.metrics import read_metrics
from training.ray import train_on_ray

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-6
"""Of losses, relative: float32 gradients are summed in another order."""


def losses(folder: str) -> list[float]:
    return [loss for line in read_metrics(Path(folder)) for loss in (line["loss"], *line["losses"].values(), line["grad_norm"])]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """An undisturbed run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    config = tiny_run(folder, two_components(folder), schedule__kind="constant", log__interval=1)
    train(config, lambda line: None)
    return config


def test_two_sharded_processes_then_one_give_the_losses_of_one(alone: RunConfig, tmp_path: Path) -> None:
    """torchrun with two gloo processes and FSDP2 to step 8; their checkpoint goes on in this process."""
    config = replace(alone, folder=str(tmp_path / "run"), steps=8, micro_batch=1)
    parallel, log = replace(config.parallel, strategy="fsdp"), replace(config.log, asynchronous=True)
    config = replace(config, parallel=parallel, log=log)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.to_dict()))
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "workflows.cli", "train"]
    said = subprocess.run(
        [sys.executable, *command, str(tmp_path / "run.yaml")], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert said.returncode == 0, said.stderr[-3000:]
    assert said.stdout.count("step 8/8") == 1  # one process speaks
    assert "on 2 x cpu" in said.stdout
    result = train(replace(alone, folder=config.folder), lambda line: None)
    assert result.resumed_from == 8
    assert losses(config.folder) == pytest.approx(losses(alone.folder), rel=TOLERANCE)


@pytest.mark.xdist_group("ray")
def test_ray_with_two_workers_gives_the_losses_of_one_process(alone: RunConfig, tmp_path: Path) -> None:
    ray: Any = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
    try:
        result = train_on_ray(replace(alone, folder=str(tmp_path / "run")), 2)
    finally:
        ray.shutdown()
    assert (result.steps, result.resumed_from) == (12, 0)
    assert losses(result.folder) == pytest.approx(losses(alone.folder), rel=TOLERANCE)


def test_ray_in_this_process_is_the_same_run_to_the_bit(alone: RunConfig, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    result = train_on_ray(replace(alone, folder=str(tmp_path / "run")), 0)
    assert losses(result.folder) == losses(alone.folder)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (Path(alone.folder) / "model.safetensors").read_bytes()
