"""The Ray executor does what the inline one does, byte for byte, and survives the death of a worker."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.corpus import Corpus
from pipeline.stage import Stage
from tests.workflows.test_engine import all_stages, content
from tests.workflows.test_engine import run as run_inline
from tests.workflows.toy_stages import Count, CountParams, Split, SplitParams
from workflows import cluster
from workflows.cluster import RayExecutor, _bundle, ray_executor
from workflows.engine import Engine
from workflows.progress import Progress

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ray_executor(Corpus(str(tmp_path_factory.mktemp("ray"))).storage, cpus=2):
        yield


def run_on_ray(folder: Path, *stages: Stage, one_machine: bool = False) -> None:
    """one_machine: as in a session that `ray_executor` has started itself, without what that costs each time."""
    corpus = Corpus(str(folder))
    with ray_executor(corpus.storage) as executor:
        executor = RayExecutor(corpus.storage, one_machine) if one_machine else executor
        engine = Engine(corpus, executor, Progress(quiet=True))
        for stage in stages:
            engine.run(stage)


@pytest.mark.parametrize("one_machine", [False, True])
def test_ray_and_inline_write_the_same_bytes(tmp_path: Path, ray_session: None, one_machine: bool) -> None:
    run_inline(tmp_path / "inline", *all_stages())
    run_on_ray(tmp_path / "ray", *all_stages(), one_machine=one_machine)
    assert content(tmp_path / "ray") == content(tmp_path / "inline")


def test_a_worker_killed_in_a_task_costs_nothing(tmp_path: Path, ray_session: None) -> None:
    death = tmp_path / "died"
    run_on_ray(tmp_path / "ray", Count(CountParams()), Split(SplitParams(die_on=str(death))))
    assert death.exists(), "no worker died, so nothing was shown"
    run_inline(tmp_path / "inline", Count(CountParams()), Split(SplitParams()))
    assert content(tmp_path / "ray") == content(tmp_path / "inline")


def test_an_error_on_ray_names_stage_and_partition(tmp_path: Path, ray_session: None) -> None:
    with pytest.raises(ValueError, match="split failed on toy/0002: toy/0002 is not to my taste"):
        run_on_ray(tmp_path, Count(CountParams()), Split(SplitParams(fail_on="toy/0002")))


def test_a_build_that_failed_leaves_no_session_behind(tmp_path: Path) -> None:
    """In a process of its own: what outlived the session would start a second one, or end the process a minute later."""
    script = f"""
import threading
from pathlib import Path

import ray

from tests.workflows.test_cluster import run_on_ray
from tests.workflows.toy_stages import Count, CountParams, Split, SplitParams

try:
    run_on_ray(Path({str(tmp_path)!r}), Count(CountParams()), Split(SplitParams(fail_on="toy/0002")))
except ValueError as error:
    kept = error
assert "not to my taste" in str(kept)
assert not ray.is_initialized()
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
try:
    ray.put(1)
except Exception as error:
    print(type(error).__name__)
assert not ray.is_initialized()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr


def test_a_task_that_kills_its_process_every_time_is_given_up_with_its_name(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "TASK_RETRIES", 1)
    with pytest.raises(RuntimeError, match="the work on toy/0001 was lost 2 times"):
        run_on_ray(tmp_path, Count(CountParams()), Split(SplitParams(always_die_on="toy/0001")))


def test_small_items_go_out_together_and_the_last_ones_alone() -> None:
    assert _bundle(finished=0, left=300, slots=2, seconds=0.0) == 1  # nothing is known yet
    assert _bundle(finished=100, left=200, slots=2, seconds=2.5) == 4  # 50 ms each
    assert _bundle(finished=100, left=200, slots=2, seconds=0.01) == cluster.BUNDLE_ITEMS
    assert _bundle(finished=100, left=200, slots=2, seconds=100.0) == 1
    assert _bundle(finished=290, left=10, slots=2, seconds=0.1) == 2  # so that no slot waits for another's bundle
    assert _bundle(finished=300, left=0, slots=0, seconds=1.0) == 1
