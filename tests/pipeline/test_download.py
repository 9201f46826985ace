"""What the downloader promises to whoever reads a file, and to whoever serves it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.download import Downloader

CONTENT = random.Random(7).randbytes(300_000)
NAME = "crawl-data/x.warc.gz"


@pytest.fixture
def downloader(tmp_path: Path) -> Downloader:
    return Downloader(
        str(tmp_path / "cache"), retries=3, backoff=0.01, backoff_limit=0.05, timeout=5, contact="https://example.org"
    )


@pytest.fixture
def server(crawl_server: Any) -> Any:
    crawl_server.files[NAME] = CONTENT
    return crawl_server


def left_over(downloader: Downloader) -> list[str]:
    """Files in the cache besides complete ones and locks."""
    root = Path(downloader.cache)
    return sorted(str(p.relative_to(root)) for p in root.rglob(".*") if p.is_file() and ".state" not in p.parts)


def test_a_file_is_downloaded_once_and_under_our_name(server: Any, downloader: Downloader) -> None:
    first, second = downloader.fetch(server.url + NAME), downloader.fetch(server.url + NAME)
    assert first == second and first.read_bytes() == CONTENT
    (request,) = server.requests
    assert request.user_agent.startswith("menagerie/") and request.user_agent.endswith("(+https://example.org)")
    assert left_over(downloader) == []


@pytest.mark.parametrize("status", [403, 429, 500, 502, 503, 504])
def test_a_throttling_server_is_asked_again(server: Any, act: Any, downloader: Downloader, status: int) -> None:
    server.script[NAME] = [act(status=status), act(status=status)]
    assert downloader.fetch(server.url + NAME).read_bytes() == CONTENT
    assert [r.status for r in server.requests] == [status, status, 200]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept(server: Any, act: Any, downloader: Downloader, form: str) -> None:
    told = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    server.script[NAME] = [act(status=503, retry_after=told)]
    assert downloader.fetch(server.url + NAME).read_bytes() == CONTENT
    refused, served = server.requests
    assert served.time - refused.time >= 0.9


def test_a_pause_holds_for_every_file_of_the_host(server: Any, act: Any, downloader: Downloader) -> None:
    others = [f"crawl-data/{n}.warc.gz" for n in range(4)]
    server.files.update(dict.fromkeys(others, CONTENT[:1000]))
    server.script[NAME] = [act(status=429, retry_after="1")]
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(downloader.fetch, server.url + NAME)
        while not server.requests:
            time.sleep(0.005)
        time.sleep(0.1)
        rest = [pool.submit(downloader.fetch, server.url + name) for name in others]
        assert first.result().read_bytes() == CONTENT
        assert all(each.result().stat().st_size == 1000 for each in rest)
    refused, *later = server.requests
    assert len(later) == 5 and min(r.time for r in later) - refused.time >= 0.9


def test_no_more_connections_at_once_than_allowed(server: Any, act: Any, downloader: Downloader) -> None:
    names = [f"crawl-data/{n}.warc.gz" for n in range(12)]
    for name in names:
        server.files[name] = CONTENT[:2000]
        server.script[name] = [act(wait=0.05)]
    with ThreadPoolExecutor(12) as pool:
        assert all(p.stat().st_size == 2000 for p in pool.map(lambda n: downloader.fetch(server.url + n), names))
    assert server.most_at_once == downloader.per_host == 2
    assert len(server.requests) == 12


def test_a_broken_connection_is_resumed_where_it_broke(server: Any, act: Any, downloader: Downloader) -> None:
    server.script[NAME] = [act(cut=100_000), act(cut=50_000)]
    assert downloader.fetch(server.url + NAME).read_bytes() == CONTENT
    assert [r.range for r in server.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert [r.status for r in server.requests] == [200, 206, 206]


def test_progress_is_no_failure_however_often_the_connection_breaks(server: Any, act: Any, downloader: Downloader) -> None:
    server.script[NAME] = [act(cut=20_000) for _ in range(14)]
    assert downloader.fetch(server.url + NAME).read_bytes() == CONTENT
    assert len(server.requests) == 15


def test_a_server_that_ignores_ranges_starts_again(server: Any, act: Any, downloader: Downloader) -> None:
    server.script[NAME] = [act(cut=100_000), act(ignore_range=True)]
    assert downloader.fetch(server.url + NAME).read_bytes() == CONTENT
    assert [r.status for r in server.requests] == [200, 200]


def test_a_wrong_range_is_not_believed(server: Any, act: Any, downloader: Downloader) -> None:
    server.script[NAME] = [act(cut=100_000), act(shift=-5)]
    assert downloader.fetch(server.url + NAME).read_bytes() == CONTENT
    assert [r.range for r in server.requests] == [None, "bytes=100000-", None]


def test_without_a_validator_nothing_is_resumed(server: Any, act: Any, downloader: Downloader) -> None:
    server.validators = False
    server.script[NAME] = [act(cut=100_000)]
    assert downloader.fetch(server.url + NAME).read_bytes() == CONTENT
    assert [r.range for r in server.requests] == [None, None]


def test_a_file_that_changes_in_between_is_never_two_halves(server: Any, act: Any, downloader: Downloader) -> None:
    server.script[NAME] = [act(cut=100_000), act(status=503), act(status=503), act(status=503), act(status=503)]
    with pytest.raises(ConnectionError, match="100000 bytes here; the last: status 503"):
        downloader.fetch(server.url + NAME)
    server.files[NAME] = CONTENT[::-1]
    assert downloader.fetch(server.url + NAME).read_bytes() == CONTENT[::-1]


def test_a_wrong_length_is_one_clear_error_and_no_file(server: Any, act: Any, downloader: Downloader) -> None:
    server.script[NAME] = [act(announce=len(CONTENT) + 10) for _ in range(30)]
    server.validators = False
    with pytest.raises(ConnectionError, match=rf"{NAME}: gave up after 4 attempts") as told:
        downloader.fetch(server.url + NAME)
    assert "\n" not in str(told.value)
    assert not downloader.path(server.url + NAME).exists()
    assert len(server.requests) == 5  # the first brought bytes, so it is no failure


def test_a_wrong_length_once_does_no_harm(server: Any, act: Any, downloader: Downloader) -> None:
    server.script[NAME] = [act(announce=len(CONTENT) + 10)]
    assert downloader.fetch(server.url + NAME).read_bytes() == CONTENT
    assert [r.status for r in server.requests] == [200, 416, 200]


def test_a_file_that_is_not_there_is_asked_for_once(server: Any, downloader: Downloader) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        downloader.fetch(server.url + "crawl-data/none.gz")
    assert len(server.requests) == 1


def test_retries_end_in_one_line_that_says_why(server: Any, act: Any, downloader: Downloader) -> None:
    server.script[NAME] = [act(status=403)] * 20
    with pytest.raises(
        ConnectionError, match="gave up after 4 attempts in a row, 0 bytes here; the last: status 403 Forbidden"
    ):
        downloader.fetch(server.url + NAME)
    assert len(server.requests) == 4


def test_a_refused_connection_is_one_clear_error(downloader: Downloader) -> None:
    with pytest.raises(ConnectionError, match="gave up after 4 attempts"):
        downloader.fetch("http://127.0.0.1:9/x")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mixture_of_faults_gives_the_same_bytes(server: Any, act: Any, tmp_path: Path, data: st.DataObject) -> None:
    faults = st.sampled_from(["throttle", "cut", "ignore", "length", "shift"])
    script = []
    for fault in data.draw(st.lists(faults, max_size=6)):
        cut = data.draw(st.integers(0, len(CONTENT)))
        acts = {
            "throttle": act(status=data.draw(st.sampled_from([403, 429, 503]))),
            "cut": act(cut=cut),
            "ignore": act(ignore_range=True, cut=cut),
            "length": act(announce=len(CONTENT) * 2),
            "shift": act(shift=1, cut=cut),
        }
        script.append(acts[fault])
    server.script[NAME] = script
    name = f"cache-{random.getrandbits(64)}"
    got = Downloader(str(tmp_path / name), retries=8, backoff=0.001, backoff_limit=0.002).fetch(server.url + NAME)
    assert got.read_bytes() == CONTENT
    server.script[NAME] = []


def test_many_threads_download_a_file_once(server: Any, act: Any, downloader: Downloader) -> None:
    server.script[NAME] = [act(wait=0.1)]
    with ThreadPoolExecutor(6) as pool:
        paths = list(pool.map(lambda _: downloader.fetch(server.url + NAME), range(6)))
    assert {p.read_bytes() for p in paths} == {CONTENT} and server.count(NAME) == 1


def start_process(downloader: Downloader, url: str) -> subprocess.Popen[bytes]:
    """Another process that fetches a URL."""
    told = f"from pipeline.download import Downloader; {downloader!r}.fetch({url!r})"
    return subprocess.Popen([sys.executable, "-c", told], cwd=Path(__file__).parents[2])


def test_two_processes_share_a_cache_and_its_limit(server: Any, act: Any, downloader: Downloader) -> None:
    names = [f"crawl-data/{n}.warc.gz" for n in range(3)]
    for name in names:
        server.files[name] = CONTENT
        server.script[name] = [act(wait=0.2)]
    strict = Downloader(downloader.cache, per_host=1, backoff=0.01)
    workers = [start_process(strict, server.url + name) for name in names for _ in range(2)]
    assert [worker.wait(60) for worker in workers] == [0] * 6
    assert [server.count(name) for name in names] == [1, 1, 1]
    assert server.most_at_once == 1
    assert all(strict.path(server.url + name).read_bytes() == CONTENT for name in names)


def test_a_killed_download_goes_on_where_it_was(server: Any, act: Any, downloader: Downloader) -> None:
    slow = random.Random(3).randbytes(4_000_000)
    server.files[NAME] = slow
    server.script[NAME] = [act(announce=len(slow), cut=2_500_000)]
    url = server.url + NAME
    # The server breaks off once; with a long pause before the retry the process is certainly between two attempts.
    worker = start_process(replace(downloader, backoff=60.0, backoff_limit=60.0), url)
    part = downloader.path(url).with_name(f".{downloader.path(url).name}.part")
    while not (part.exists() and part.stat().st_size == 2_500_000):
        assert worker.poll() is None
        time.sleep(0.02)
    worker.kill()
    worker.wait(10)
    assert not downloader.path(url).exists()
    assert downloader.fetch(url).read_bytes() == slow
    assert [r.range for r in server.requests] == [None, "bytes=2500000-"]
    assert left_over(downloader) == []


@pytest.mark.parametrize("url", ["ftp://x/y", "x.warc.gz", "http://"])
def test_only_web_addresses_are_fetched(downloader: Downloader, url: str) -> None:
    with pytest.raises(ValueError, match="no http or https URL"):
        downloader.fetch(url)


@given(path=st.text(st.characters(exclude_categories=["Cs"]), max_size=30), query=st.text("ab%/.=&", max_size=10))
def test_no_url_leaves_the_cache(path: str, query: str) -> None:
    downloader = Downloader("/nowhere/cache")
    got = downloader.path(f"http://example.org/{path}?{query}")
    assert Path(os.path.normpath(got)).is_relative_to("/nowhere/cache/example.org")
    assert ".state" not in got.parts and not got.name.startswith(".")
