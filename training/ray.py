"""The train function on Ray Train. Ray is imported when it is called, nowhere else in this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.config import RunConfig, with_absolute_paths
from training.loop import TrainResult, train


def train_on_ray(config: RunConfig, workers: int, gpu: bool = False, failures: int = 3) -> TrainResult:
    """Train in `workers` processes of Ray Train, one per GPU if `gpu`; 0: in this process, without a cluster.

    The run's folder must be one that every worker sees. A worker that dies costs what happened since the last checkpoint, at
    most `failures` times. The function that runs is `training.train`, so results are those of torchrun.
    """
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchTrainer

    config = with_absolute_paths(config, Path.cwd())  # workers start in another folder
    folder = Path(config.folder)
    # Ray keeps its own account below the run; a new attempt needs a new name, and resuming is the checkpoints' business.
    attempts = len(list((folder / "ray").glob("attempt-*")))
    trainer = TorchTrainer(
        _train_in_worker,
        train_loop_config=config.to_dict(),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RayRunConfig(
            name=f"attempt-{attempts:03d}",
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=failures),
        ),
    )
    result = trainer.fit()
    if result.error is not None:
        raise result.error
    return TrainResult(**result.return_value)  # type: ignore[attr-defined]


def _train_in_worker(values: dict[str, Any]) -> dict[str, Any]:
    return train(RunConfig.from_dict(values)).to_dict()
