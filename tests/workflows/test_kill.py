"""SIGKILL at random moments, to the build or to a Ray worker: run again, and every byte is as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.workflows.small_crawl import tables_of, write_crawl, write_recipe

_ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def start(recipe: Path, corpus: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "workflows.cli", "build", str(recipe), "--set", f"corpus={corpus}", *options]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_ENVIRONMENT, start_new_session=True
    )


def finish(recipe: Path, corpus: Path, *options: str) -> float:
    begun = time.monotonic()
    process = start(recipe, corpus, *options)
    _, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints.decode()
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes], float]:
    """The recipe, what an undisturbed in-process build leaves, and how long it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_crawl(folder / "crawl", files=4, pages=80)
    recipe = write_recipe(folder, folder / "crawl", train=False)
    seconds = finish(recipe, folder / "corpus")
    return recipe, tables_of(folder / "corpus"), seconds


@pytest.mark.xdist_group("kill")
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_build_resumes_to_identical_bytes(
    undisturbed: tuple[Path, dict[str, bytes], float], tmp_path: Path, seed: int
) -> None:
    recipe, expected, seconds = undisturbed
    moments = random.Random(seed)
    for _ in range(3):
        process = start(recipe, tmp_path / "corpus")
        try:
            process.wait(timeout=moments.uniform(0.15, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(recipe, tmp_path / "corpus")
    assert tables_of(tmp_path / "corpus") == expected


@pytest.mark.xdist_group("ray")
def test_a_build_on_ray_whose_driver_and_workers_are_killed_ends_with_the_bytes_of_an_inline_build(
    undisturbed: tuple[Path, dict[str, bytes], float], tmp_path: Path
) -> None:
    recipe, expected, _ = undisturbed
    options = ("--engine", "ray", "--cpus", "2", "--until", "deduplicate")
    corpus = tmp_path / "corpus"
    moments = random.Random(7)
    # The driver dies in the middle of a stage.
    process = start(recipe, corpus, *options)
    family = _wait_for(process, corpus / "receipts" / "mine", moments.uniform(0.0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _wait_until_gone(family)
    # Workers die while the driver lives: Ray starts their tasks again.
    process = start(recipe, corpus, *options)
    killed = 0
    while process.poll() is None and killed < 3:
        time.sleep(moments.uniform(0.05, 0.4))
        workers = [p for p in _family(process.pid) if _is_worker(p)]
        if workers:
            _kill(moments.choice(workers))
            killed += 1
    _, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints.decode()
    assert killed, "no worker was killed, so nothing was shown"
    left = tables_of(corpus)
    assert left == {path: expected[path] for path in left}
    assert {path.split("/")[0] for path in left} == {
        "raw",
        "documents",
        "signals",
        "minhash",
        "duplicates",
        "rejects",
        "global",
    }


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_worker(process: psutil.Process) -> bool:
    """Whether a process of the build's own Ray is a worker that is running a task of a stage (not one of Ray's agents)."""
    try:
        return " ".join(process.cmdline()).startswith("ray::menagerie:")
    except psutil.Error:
        return False


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _wait_for(process: subprocess.Popen[bytes], folder: Path, more: float) -> list[psutil.Process]:
    """Wait until a stage has its first receipt and a little longer; returns the build's processes."""
    deadline = time.monotonic() + 120
    while not folder.exists():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(more)
    return _family(process.pid)


def _wait_until_gone(family: list[psutil.Process]) -> None:
    """Ray's processes end when their driver does; whatever is left after a while is ended here, by id."""
    _, alive = psutil.wait_procs(family, timeout=30)
    for process in alive:
        _kill(process)
