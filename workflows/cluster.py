"""The executor on Ray: descriptors of tasks go through Ray Data, receipts come back; shuffles are Ray Data's own."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.stage import Resources
from pipeline.storage import Storage

T = TypeVar("T")
R = TypeVar("R")

OBJECT_STORE_BYTES = 256 << 20
"""A local Ray's object store. Tasks read and write files themselves; only descriptors, receipts and shuffles pass through."""

HANDS_AHEAD = 3
"""A worker takes 1 / (HANDS_AHEAD x workers) of what is left: Ray Data takes some 0.2 s to give a worker its next block."""

_ONE_THREAD = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
"""A task has one core: a library that starts a thread per core in every task would only get in the way of the others."""
_WORKER_ENVIRONMENT = {**_ONE_THREAD, "TOKENIZERS_PARALLELISM": "false", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}


@contextlib.contextmanager
def ray_executor(corpus: Storage, address: str | None = None, cpus: int | None = None) -> Iterator[RayExecutor]:
    """Connect to a cluster (`address`, or `RAY_ADDRESS`), or start a local Ray that ends with this block."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray.data import DataContext

    address = address or os.environ.get("RAY_ADDRESS") or None
    started = not ray.is_initialized()
    if started:
        options: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "runtime_env": {"env_vars": _WORKER_ENVIRONMENT},
        }
        if address is None:
            options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        try:
            ray.init(address=address or "local", **options)
        except ConnectionError as error:
            raise ConnectionError(
                f"no Ray cluster answers at {address}: start one (`ray start --head`), or leave --address out"
            ) from error
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield RayExecutor(corpus)
    finally:
        if started:
            ray.shutdown()


class RayExecutor:
    """See `pipeline.stage.Executor`."""

    def __init__(self, corpus: Storage) -> None:
        self._storage = corpus

    def map(self, function: Callable[[T], R], items: Sequence[T], resources: Resources = Resources()) -> Iterator[R]:
        """Items go through Ray Data in small hands, to tasks whose processes keep the function and its models, or to actors."""
        if not items:
            return
        import ray

        cluster = ray.cluster_resources()
        slots = max(1, int(cluster.get("CPU", 1) // max(resources.cpus, 1e-9)))
        if resources.gpus:
            slots = min(slots, max(1, int(cluster.get("GPU", 0) // resources.gpus)))
        dealt = _deal(items, slots)
        rows = ray.data.from_items([{"items": pickle.dumps(some)} for some in dealt], override_num_blocks=len(dealt))
        told = pickle.dumps(function)
        fn: Any
        options: dict[str, Any] = {
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus or None,
            "memory": resources.memory or None,
        }
        if resources.gpus:  # a process that ran a task with a GPU ends after it, and its models with it
            size = min(slots, len(dealt))
            pool = ray.data.ActorPoolStrategy(min_size=size, max_size=size, initial_size=size)
            fn = _Apply
            results = rows.map(fn, fn_constructor_args=(told,), compute=pool, **options)
        else:
            fn = _apply
            results = rows.map(fn, fn_args=(told,), **options)
        for row in results.iter_rows():
            yield from pickle.loads(row["results"])

    def map_groups(self, files: Sequence[str], key: str, function: Callable[[pa.Table], pa.Table]) -> Iterator[pa.Table]:
        import ray

        workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        dealt = _deal(files, workers)
        # Not `read_parquet`: it looks into every file first, one by one, which takes longer than the shuffle.
        paths = ray.data.from_items([{"paths": some} for some in dealt], override_num_blocks=len(dealt))
        read: Any = _read
        rows = paths.map_batches(read, fn_args=(self._storage,), batch_format="pyarrow", batch_size=None)
        groups = rows.groupby(key, num_partitions=2 * workers).map_groups(function, batch_format="pyarrow")
        yield from groups.iter_batches(batch_size=None, batch_format="pyarrow")


def _deal(items: Sequence[T], workers: int) -> list[list[T]]:
    """Items in hands that grow smaller (guided self-scheduling, Polychronopoulos & Kuck 1987), down to one item.

    A hand is a row in a block of its own, Ray Data's unit of scheduling: large ones at first, since each costs a wait;
    single items at the end, so that workers end together.
    """
    hands, start = [], 0
    while start < len(items):
        size = max(1, (len(items) - start) // (HANDS_AHEAD * workers))
        hands.append(list(items[start : start + size]))
        start += size
    return hands


def _read(batch: pa.Table, storage: Storage) -> pa.Table:
    """The rows of the files that a batch names."""
    paths = [path for some in batch["paths"].to_pylist() for path in some]
    read = (pq.read_table(path, filesystem=storage.filesystem).replace_schema_metadata(None) for path in paths)
    return pa.concat_tables(read)


def _apply(row: dict[str, Any], function: bytes) -> dict[str, Any]:
    """Items and results are pickled here, so that Ray Data sees plain bytes."""
    call = _loaded(function)
    return {"results": pickle.dumps([call(item) for item in pickle.loads(row["items"])])}


@lru_cache(maxsize=1)
def _loaded(function: bytes) -> Callable[[Any], Any]:
    """The function of the stage that this process works on, with what it has loaded; Ray gives a process task after task."""
    return pickle.loads(function)


class _Apply:
    """The same in an actor."""

    def __init__(self, function: bytes) -> None:
        self._function = function

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return _apply(row, self._function)
