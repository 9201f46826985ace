"""Checkpoints: torch's distributed format, one folder per step, whole or absent.

A checkpoint is written to a hidden folder, synced, and renamed; `latest` is replaced afterwards. Whatever moment a run is
killed at, `latest` names a whole checkpoint, and what was being written is swept away by the next start. Saved by any number
of processes, it loads in any other number.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from training.distributed import Process
from training.files import write_atomically

_NAME = re.compile(r"^step-(\d{8})$")
_STATE = "state.json"


@dataclass
class _Writing:
    """A save that is being written aside."""

    future: Future[Any]
    step: int
    state: dict[str, Any]
    published: bool = False


class Checkpoints:
    """The checkpoints of one run. Every process of the run calls every method at the same time.

    folder: where they lie; keep: how many, 0 for all; asynchronous: write while training goes on (one at a time).
    """

    def __init__(self, folder: Path, process: Process, keep: int, asynchronous: bool = False) -> None:
        self.folder, self.process, self.keep, self.asynchronous = folder, process, keep, asynchronous
        self._writing: _Writing | None = None
        # A save that is written aside talks to the other processes while training does: it needs a group of its own.
        self._group: Any = torch.distributed.new_group(backend="gloo") if asynchronous and process.world > 1 else None
        # Saving in one process without a process group is meant, and torch warns from whatever thread it does so.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        if process.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".step-*"):
                shutil.rmtree(left)
        process.barrier()

    def latest(self) -> int | None:
        """The step of the checkpoint to resume from, or None."""
        return latest_step(self.folder)

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Save the model, the optimizer and `state` (plain values, equal on every process) as of `step` steps done."""
        self.wait()
        weights, moments = get_state_dict(model, optimizer)
        tensors: dict[str, Any] = {"model": weights, "optimizer": moments}
        options = {"checkpoint_id": self._hidden(step), "no_dist": self.process.world == 1}
        if self.asynchronous:
            future: Any = async_save(tensors, process_group=self._group, **options)
            self._writing = _Writing(future, step, state)
        else:
            save(tensors, **options)
            if self.process.is_first:
                self._publish(step, state)
            self.process.barrier()

    def poll(self) -> None:
        """Publish an asynchronous save if every process is done with it; the first process knows. Waits for nothing."""
        if self.process.is_first and self._writing is not None and self._writing.future.done():
            self._finish(self._writing)

    def wait(self) -> None:
        """Wait for an asynchronous save and publish it; raises what went wrong in it."""
        if self._writing is not None:
            self._finish(self._writing)
            self._writing = None
            self.process.barrier()

    def _finish(self, writing: _Writing) -> None:
        writing.future.result()
        if self.process.is_first and not writing.published:
            self._publish(writing.step, writing.state)
            writing.published = True

    def load(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Fill the model and the optimizer from a checkpoint; returns its `state`. ValueError if it does not fit the model."""
        path = self.folder / _name(step)
        weights, moments = get_state_dict(model, optimizer)
        tensors: dict[str, Any] = {"model": weights, "optimizer": moments}
        try:
            load(tensors, checkpoint_id=path, no_dist=self.process.world == 1)
        except (RuntimeError, CheckpointException, ValueError) as error:
            raise ValueError(f"{path} does not fit this model ({error}): train in a new folder") from error
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
        return json.loads((path / _STATE).read_text())

    def _publish(self, step: int, state: dict[str, Any]) -> None:
        beside, final = self._hidden(step), self.folder / _name(step)
        write_atomically(beside / _STATE, json.dumps({"step": step, **state}).encode())
        if final.exists():  # left by a run that was killed before `latest` named it
            self._discard(final)
        beside.rename(final)
        _sync(self.folder)
        write_atomically(self.folder / "latest", final.name.encode())
        for old in _complete(self.folder)[: -self.keep] if self.keep else []:
            self._discard(self.folder / _name(old))

    def _hidden(self, step: int) -> Path:
        return self.folder / f".{_name(step)}"

    def _discard(self, path: Path) -> None:
        # Renamed first, so that a half-deleted folder never looks like a checkpoint.
        hidden = path.with_name(f".{path.name}.old")
        path.rename(hidden)
        shutil.rmtree(hidden)


def latest_step(folder: Path) -> int | None:
    """The step of the checkpoint that `latest` names, or None where there is none. ValueError if that one is gone."""
    pointer = folder / "latest"
    if not pointer.is_file():
        return None
    match = _NAME.match(pointer.read_text())
    if match is None or not (folder / match[0] / _STATE).is_file():
        raise ValueError(
            f"{pointer} names {pointer.read_text()!r}, which is no checkpoint: point it at one of {_complete(folder)}"
        )
    return int(match[1])


def _complete(folder: Path) -> list[int]:
    return sorted(int(m[1]) for p in folder.iterdir() if (m := _NAME.match(p.name)))


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
