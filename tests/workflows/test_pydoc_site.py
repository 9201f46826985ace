"""Python's documentation is served by a process of its own, without what is installed, and crawled as a real site."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from workflows.pydoc_site import EXCLUDE, crawl_documentation, documentation_server


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        return response.read().decode()


def _refuses(url: str) -> bool:
    try:
        _get(url)
    except OSError:
        return True
    return False


def test_the_server_documents_the_standard_library_and_ends_with_its_context() -> None:
    with documentation_server() as url:
        assert url.startswith("http://127.0.0.1:")
        index = _get(url)
        assert 'href="json.html"' in index and 'href="builtins.html"' in index
        assert "numpy" not in index and "site-packages" not in index
        assert "loads" in _get(f"{url}json.html")
        assert "while" in _get(f"{url}keywords.html")
    assert _refuses(url)


def test_a_taken_port_is_named() -> None:
    with documentation_server() as url:
        port = int(url.rsplit(":", 1)[1].strip("/"))
        with pytest.raises(ValueError, match=rf"127\.0\.0\.1:{port}: .*in use"), documentation_server(port):
            pass


def test_the_server_does_not_outlive_a_killed_parent() -> None:
    code = (
        "import sys, time\nfrom workflows.pydoc_site import documentation_server\n"
        "with documentation_server() as url:\n    print(url, flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert "Index of Modules" in _get(url)
        parent.kill()
    until = time.monotonic() + 10
    while not _refuses(url) and time.monotonic() < until:
        time.sleep(0.1)
    assert _refuses(url)


@pytest.mark.parametrize(
    ("page", "left_out"),
    [
        ("antigravity.html", True), ("this.html", True), ("idlelib.run.html", True), ("test.html", True),
        ("test.support.html", True), ("turtledemo.clock.html", True), ("lib2to3.pgen2.html", True), ("_testcapi.html", True),
        ("unittest.__main__.html", True), ("__main__.html", True), ("sqlite3.test.html", True), ("distutils.tests.html", True),
        ("search?key=x", True), ("get?key=x", True), ("pydoc_data/_pydoc.css", True), ("__phello__.spam.html", True),
        ("json.html", False), ("unittest.html", False), ("doctest.html", False), ("turtle.html", False),
        ("topic?key=TRUTHVALUE", False), ("topics.html", False), ("", False), ("__future__.html", False),
    ],
)  # fmt: skip
def test_modules_whose_import_does_something_are_left_out(page: str, left_out: bool) -> None:
    assert any(re.search(pattern, f"http://127.0.0.1:7464/{page}") for pattern in EXCLUDE) == left_out


def test_a_crawl_gives_pages_of_text_once(tmp_path: Path) -> None:
    report = crawl_documentation(tmp_path, pages=40, files=2)
    assert report.pages == 40 and dict(report.statuses) == {"200": 40} and not report.failed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["crawl.json", "pydoc-00000.warc.gz", "pydoc-00001.warc.gz"]
    times = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    titles = []
    for file in sorted(tmp_path.glob("*.warc.gz")):
        with file.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                titles += re.findall(r"<title>Pydoc: (.*?)</title>", record.reader.read().decode())
    assert len(titles) == 40
    assert titles[:3] == ["Index of Modules", "Topics", "Keywords"]
    assert not any(title.startswith("Error") for title in titles)
    assert crawl_documentation(tmp_path, pages=40, files=2) == report
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == times
