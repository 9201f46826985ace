"""What surrounds a model that knows nothing of it: activation checkpointing, compilation, spreading over processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from training.config import ParallelConfig
from training.model import Transformer


def parallelize(model: Transformer, mesh: DeviceMesh | None, config: ParallelConfig, dtype: torch.dtype) -> nn.Module:
    """The model as it is trained. Names of parameters in checkpoints stay those of the bare model.

    mesh: one dimension, the processes that share the batch; None for one process. dtype: of matrix products; FSDP gathers
    weights in it and reduces gradients in float32.
    """
    if config.activation_checkpointing:
        _checkpoint_blocks(model)
    if config.compile:
        for block in model.blocks:
            block.compile()  # one graph, reused by every block
    if mesh is None:
        return model
    if config.strategy == "fsdp":
        return _shard(model, mesh, dtype)
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(model, process_group=mesh.get_group(), gradient_as_bucket_view=True)


@contextmanager
def gradient_sync(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Exchange gradients in the backward passes inside, or keep them local: only an accumulation's last need travel."""
    from torch.nn.parallel import DistributedDataParallel

    if isinstance(model, DistributedDataParallel) and not enabled:
        with model.no_sync():
            yield
        return
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(enabled)  # type: ignore[operator]
    yield


def _checkpoint_blocks(model: Transformer) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    wrap: Any = partial(checkpoint_wrapper, preserve_rng_state=False)  # nothing here draws random numbers
    for name, block in list(model.blocks.named_children()):
        model.blocks.register_module(name, wrap(block))


def _shard(model: Transformer, mesh: DeviceMesh, dtype: torch.dtype) -> nn.Module:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model
