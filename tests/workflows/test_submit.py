"""`menagerie submit` through a real Ray head on this machine, with its Jobs API."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.workflows.small_crawl import tables_of, write_crawl, write_recipe

pytestmark = pytest.mark.xdist_group("ray")

_ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
_ENVIRONMENT["PATH"] = (
    f"{Path(sys.executable).parent}{os.pathsep}{_ENVIRONMENT.get('PATH', '')}"  # a job's `python` is the head's
)
_ENVIRONMENT |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # as a real cluster asks for one


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The dashboard address of a Ray head that this test starts, and ends by its own processes."""
    dashboard = _free_port()
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: a socket's path has at most 107 characters
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats",
        "--node-ip-address=127.0.0.1", f"--port={_free_port()}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={_free_port()}", f"--dashboard-agent-listen-port={_free_port()}",
        "--num-cpus=2", "--object-store-memory=100000000", f"--temp-dir={folder}",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_ENVIRONMENT, start_new_session=True
    )
    try:
        address = f"http://127.0.0.1:{dashboard}"
        _wait_for(f"{address}/api/version", process)
        yield address
    finally:
        members = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        _, alive = psutil.wait_procs(members, timeout=10)
        for member in alive:
            member.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, "the head ended"
        assert time.monotonic() < deadline, "the head's dashboard does not answer"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:  # it asks for a token, so it answers
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)


def submit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workflows.cli", "submit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, env=_ENVIRONMENT)


def test_a_submitted_recipe_is_built_once_to_the_bytes_of_a_local_build(head: str, tmp_path: Path) -> None:
    write_crawl(tmp_path / "crawl", files=2, pages=24)
    recipe = write_recipe(tmp_path, tmp_path / "crawl", train=False)
    until = ("--until", "deduplicate")
    done = submit(str(recipe), "--address", head, *until)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "menagerie-small-" in done.stdout
    assert "submitted" in done.stdout
    assert "deduplicate" in done.stdout, "the job's own progress is shown"
    assert "succeeded" in done.stdout

    again = submit(str(recipe), "--address", head, *until)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "is there already, succeeded" in again.stdout

    corpus = tmp_path / "local"
    command = [sys.executable, "-m", "workflows.cli", "build", str(recipe), "--set", f"corpus={corpus}", *until]
    subprocess.run(command, check=True, capture_output=True)
    assert tables_of(tmp_path / "corpus") == tables_of(corpus)


def test_a_failed_job_is_said_so_and_may_be_submitted_again(head: str, tmp_path: Path) -> None:
    write_crawl(tmp_path / "crawl", files=1, pages=4)
    recipe = write_recipe(tmp_path, tmp_path / "crawl", train=False)
    missing = ("--set", "ingest.source.paths=['/no/such/crawl.warc.gz']", "--until", "ingest")
    failed = submit(str(recipe), "--address", head, *missing)
    assert failed.returncode == 1
    assert "/no/such/crawl.warc.gz" in failed.stdout
    again = submit(str(recipe), "--address", head, *missing, "--no-wait")
    assert again.returncode == 0
    assert "-2: submitted" in again.stdout


def test_an_address_that_nobody_answers_is_one_line(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tmp_path / "crawl", train=False)
    failed = submit(str(recipe), "--address", f"http://127.0.0.1:{_free_port()}")
    assert failed.returncode == 1
    assert len(failed.stderr.strip().splitlines()) == 1
    assert "no Ray dashboard answers at" in failed.stderr
