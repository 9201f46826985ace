"""What a run records: metrics.jsonl (the record that resuming rewinds), TensorBoard, and Weights & Biases when asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.config import LogConfig
from training.files import write_atomically

METRICS = "metrics.jsonl"
TIMINGS = ("seconds", "tokens_per_second", "mfu")
"""The fields that two equal runs may differ in."""


@dataclass
class Meter:
    """Sums over the steps since the last line of the log; part of the checkpoint, so that a resumed run's lines are equal.

    losses, tokens: (components,) float64; norm: the largest gradient norm.
    """

    losses: Tensor
    tokens: Tensor
    steps: int = 0
    norm: float = 0.0
    last_norm: float = 0.0

    @classmethod
    def empty(cls, components: int) -> Meter:
        return cls(torch.zeros(components, dtype=torch.float64), torch.zeros(components, dtype=torch.float64))

    def add(self, losses: Tensor, tokens: Tensor, norm: float) -> None:
        """One step: loss summed over target tokens, and target tokens, by component, over all processes."""
        self.losses += losses
        self.tokens += tokens
        self.steps += 1
        self.norm = max(self.norm, norm)
        self.last_norm = norm

    def line(self, names: Sequence[str]) -> dict[str, Any]:
        """Mean loss per token, overall and per component that was read, and gradient norms."""
        read = self.tokens > 0
        means = (self.losses / self.tokens.clamp(min=1)).tolist()
        return {
            "loss": float(self.losses.sum() / self.tokens.sum()),
            "losses": {name: means[k] for k, name in enumerate(names) if read[k]},
            "grad_norm": self.last_norm,
            "grad_norm_max": self.norm,
        }

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        sums = {name: dict(zip(names, getattr(self, name).tolist(), strict=True)) for name in ("losses", "tokens")}
        return {**sums, "steps": self.steps, "norm": self.norm, "last_norm": self.last_norm}

    @classmethod
    def from_dict(cls, values: dict[str, Any], names: Sequence[str]) -> Meter:
        """The meter that `to_dict` described; components that came since have read nothing."""
        sums = {
            name: torch.tensor([values[name].get(n, 0.0) for n in names], dtype=torch.float64) for name in ("losses", "tokens")
        }
        return cls(**{**values, **sums})


@dataclass
class MetricsLog:
    """The log of one run, written by the first process only. Opening it at a step forgets every line after that step."""

    folder: Path
    config: LogConfig
    run: dict[str, Any]
    start: int = 0
    _board: Any = field(default=None, repr=False)
    _wandb: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        kept = [line for line in read_metrics(self.folder) if line["step"] <= self.start]
        write_atomically(self.folder / METRICS, b"".join(_encode(line) for line in kept))
        if self.config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # purge_step hides what an earlier attempt wrote after the step that is resumed.
            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.start + 1)
        if self.config.wandb_project is not None:
            self._wandb = _open_wandb(self.config.wandb_project, self.folder, self.run)

    def write(self, line: dict[str, Any]) -> None:
        """Add one line; its `step` counts steps done."""
        with (self.folder / METRICS).open("ab") as out:
            out.write(_encode(line))
        numbers = _flat(line)
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, line["step"])
            self._board.flush()
        if self._wandb is not None:
            self._wandb.log(numbers, step=line["step"])

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, oldest first; none if there is no such file. A line cut short by a kill ends it."""
    path = folder / METRICS
    lines = []
    for text in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        if not text.endswith(b"\n"):
            break
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _encode(line: dict[str, Any]) -> bytes:
    return (json.dumps(line) + "\n").encode()


def _flat(line: dict[str, Any]) -> dict[str, float]:
    numbers = {name: value for name, value in line.items() if isinstance(value, int | float) and name != "step"}
    return {**numbers, **{f"loss/{name}": value for name, value in line["losses"].items()}}


def _open_wandb(project: str, folder: Path, run: dict[str, Any]) -> Any:
    try:
        import wandb  # type: ignore[import-not-found]
    except ImportError as error:
        raise ValueError("log.wandb_project is set, but wandb is not installed: pip install wandb, or leave it out") from error
    return wandb.init(project=project, dir=folder, name=folder.name, id=folder.name, resume="allow", config=run)
