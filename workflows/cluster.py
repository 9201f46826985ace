"""The executor on Ray: descriptors of tasks go out, receipts come back; shuffles are Ray Data's own."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
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

TASK_RETRIES = 10
"""How often a task whose process died starts again; one that dies every time must not be tried for ever."""

MIN_AHEAD = 8
"""Tasks handed out at least, so that an autoscaler sees that there is more to do than there is room for."""

BUNDLE_SECONDS, BUNDLE_ITEMS = 0.2, 16
"""Small items go out together, as many as take so long, for a task costs some 6 ms of processor time besides its work."""

_ONE_THREAD = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
"""A task has one core: a library that starts a thread per core in every task would only get in the way of the others."""
_WORKER_ENVIRONMENT = {**_ONE_THREAD, "TOKENIZERS_PARALLELISM": "false", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}

_LOCAL_RAY = {"RAY_idle_worker_killing_time_threshold_ms": "60000"}
"""A process that waits is ended after a minute, not a second: a shuffle between two stages would cost both their warm ones."""


@contextlib.contextmanager
def ray_executor(corpus: Storage, address: str | None = None, cpus: int | None = None) -> Iterator[RayExecutor]:
    """Connect to a cluster (`address`, or `RAY_ADDRESS`), or start a local Ray that ends with this block."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A thread of Ray Data that outlives the session must not start another one, which nobody ends: its end, a minute later,
    # would be this process's.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    import ray

    address = address or os.environ.get("RAY_ADDRESS") or None
    started = not ray.is_initialized()
    if started:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        inherited: dict[str, str] = {}
        if address is None:
            options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
            inherited = _WORKER_ENVIRONMENT | _LOCAL_RAY  # a runtime environment would replace the processes started ahead
        else:
            options["runtime_env"] = {"env_vars": _WORKER_ENVIRONMENT}
        try:
            with _environment(inherited):
                ray.init(address=address or "local", **options)
        except ConnectionError as error:
            raise ConnectionError(
                f"no Ray cluster answers at {address}: start one (`ray start --head`), or leave --address out"
            ) from error
    try:
        yield RayExecutor(corpus, one_machine=started and address is None)
    finally:
        if started:
            ray.shutdown()


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables that processes started in this block inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class RayExecutor:
    """See `pipeline.stage.Executor`. one_machine: the session is a local Ray of few slots, not a cluster."""

    def __init__(self, corpus: Storage, one_machine: bool = False) -> None:
        self._storage = corpus
        self._one_machine = one_machine

    def map(self, function: Callable[[T], R], items: Sequence[T], resources: Resources = Resources()) -> Iterator[R]:
        """One Ray task per item, or per few small ones, some more handed out than there are slots for.

        Processes keep the function and its models.

        Plain tasks, not Ray Data: a dataset takes some 0.2 s per block, and its threads outlive an iteration that is given up.
        """
        if not items:
            return
        import ray
        from ray.exceptions import RayError, RayTaskError

        # Without `max_calls=0` a process would end after one task with a GPU, and its models with it.
        task: Any = ray.remote(max_calls=0, max_retries=TASK_RETRIES)(_apply).options(
            name=f"menagerie:{getattr(getattr(function, 'stage', None), 'name', 'work')}",  # for `ray list tasks`, `top`
            num_cpus=resources.cpus,
            num_gpus=resources.gpus or None,
            memory=resources.memory or None,
        )
        told = ray.put(pickle.dumps(function))
        todo = deque(items)
        given: dict[Any, list[T]] = {}
        finished, begun = 0, time.monotonic()
        try:
            while True:
                slots = self._slots(resources)
                size = _bundle(finished, len(todo), slots, time.monotonic() - begun)
                while todo and len(given) < max(MIN_AHEAD, 2 * slots):
                    bundle = [todo.popleft() for _ in range(min(size, len(todo)))]
                    given[task.remote(told, bundle)] = bundle
                if not given:
                    return
                for done in ray.wait(list(given), num_returns=1)[0]:
                    bundle = given.pop(done)
                    try:
                        results = ray.get(done)
                    except RayTaskError:
                        raise
                    except RayError as error:
                        raise _lost(bundle, error) from error
                    finished += len(bundle)
                    yield from results
        finally:  # the caller may stop at a failure
            if ray.is_initialized():
                for waiting in given:
                    ray.cancel(waiting)

    def _slots(self, resources: Resources) -> int:
        """Tasks that the cluster, as large as it is now, runs at a time."""
        import ray

        cluster = ray.cluster_resources()
        slots = cluster.get("CPU", 1) // max(resources.cpus, 1e-9)
        if resources.gpus:
            slots = min(slots, cluster.get("GPU", 0) // resources.gpus)
        return int(slots)

    def map_groups(self, files: Sequence[str], key: str, function: Callable[[pa.Table], pa.Table]) -> Iterator[pa.Table]:
        import ray
        from ray.data import DataContext
        from ray.data.context import ShuffleStrategy

        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        dealt = [list(files[start::workers]) for start in range(min(workers, len(files)))]
        usual = context.shuffle_strategy
        if self._one_machine:
            # Tasks of the hash shuffle have a runtime environment of their own, for which three processes would start and
            # load everything anew: longer than a shuffle of this size takes.
            context.shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
        try:
            # Not `read_parquet`: it looks into every file first, one by one, which takes longer than the shuffle.
            paths = ray.data.from_items([{"paths": some} for some in dealt], override_num_blocks=len(dealt))
            read: Any = _read
            rows = paths.map_batches(read, fn_args=(self._storage,), batch_format="pyarrow", batch_size=None)
            groups = rows.groupby(key, num_partitions=2 * workers).map_groups(function, batch_format="pyarrow")
            yield from groups.iter_batches(batch_size=None, batch_format="pyarrow")
        finally:
            context.shuffle_strategy = usual


def _read(batch: pa.Table, storage: Storage) -> pa.Table:
    """The rows of the files that a batch names."""
    paths = [path for some in batch["paths"].to_pylist() for path in some]
    read = (pq.read_table(path, filesystem=storage.filesystem).replace_schema_metadata(None) for path in paths)
    return pa.concat_tables(read)


def _bundle(finished: int, left: int, slots: int, seconds: float) -> int:
    """How many items the next task takes: by the time that items took so far, and never so many that slots wait at the end."""
    if not finished:
        return 1
    each = seconds * max(slots, 1) / finished
    return max(1, min(BUNDLE_ITEMS, int(BUNDLE_SECONDS / max(each, 1e-6)), left // max(2 * slots, 1)))


def _apply(function: bytes, items: Sequence[Any]) -> list[Any]:
    work = _loaded(function)
    return [work(item) for item in items]


@lru_cache(maxsize=1)
def _loaded(function: bytes) -> Callable[[Any], Any]:
    """The function of the stage that this process works on, with what it has loaded; Ray gives a process task after task."""
    return pickle.loads(function)


def _lost(items: Sequence[Any], error: Exception) -> RuntimeError:
    """What to say of a task whose process died each time that it was tried."""
    told = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    names = [str(getattr(item, "partition", item)) for item in items]
    which = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    return RuntimeError(f"the work on {which} was lost {TASK_RETRIES + 1} times: {told}")
