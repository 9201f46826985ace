"""The processes of a run: one alone, those that torchrun started, or those that Ray Train started. Same code for all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh


@dataclass(frozen=True)
class Process:
    """This process among those of a run."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def mesh(self) -> DeviceMesh | None:
        """All processes along one dimension, over which the batch is divided; None for one process."""
        return init_device_mesh(self.device.type, (self.world,), mesh_dim_names=("data",)) if self.world > 1 else None

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()


@contextmanager
def join_processes(device: str) -> Iterator[Process]:
    """This process's place: in a process group that is there already (Ray Train), in one that torchrun's environment
    describes, or alone. device: "auto", "cpu" or "cuda". ValueError if CUDA is asked for and absent."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no CUDA device: set device to cpu or auto")
    cuda = device != "cpu" and torch.cuda.is_available()
    there = dist.is_available() and dist.is_initialized()
    world = dist.get_world_size() if there else int(os.environ.get("WORLD_SIZE", "1"))
    place = torch.device("cpu")
    if cuda:
        place = torch.device("cuda", torch.cuda.current_device() if there else int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
    if there or world == 1:
        yield Process(dist.get_rank() if there else 0, world, place)
        return
    # Gloo beside NCCL, because checkpoints are coordinated on the CPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", device_id=place if cuda else None)
    try:
        yield Process(dist.get_rank(), world, place)
    finally:
        dist.destroy_process_group()
