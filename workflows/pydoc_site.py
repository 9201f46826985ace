"""A web site that is on every machine: Python's own documentation server, on loopback, and a polite crawl of it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.crawl import CrawlParams, CrawlReport, crawl, finished, read_report

_LOOPBACK = "127.0.0.1"
_START_SECONDS = 30
_STOP_SECONDS = 5
# The server of `python -m pydoc -b` without its prompt and browser. It ends when its standard input does, so it never
# outlives the process that started it. Modules that print when they are imported do so into the void.
_SERVER = """
import os, pydoc, sys
server = pydoc._start_server(pydoc._url_handler, sys.argv[1], int(sys.argv[2]))
if server.error is not None:
    sys.exit(str(server.error))
print(server.url, flush=True)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
sys.stdin.buffer.read()
os._exit(0)
"""
# To document a module is to import it. These do something then, test Python itself, or describe the machine.
_NOT_DOCUMENTED = (
    r"antigravity|this|idlelib|test|turtledemo|lib2to3|__hello__|__phello__|_test\w*|_xxtestfuzz|xx\w+|_xx\w+|_sysconfigdata\w+"
)
EXCLUDE = (
    rf"/({_NOT_DOCUMENTED})(\.[\w.]+)?\.html$",
    r"/([\w.]+\.)?(__main__|tests?|idle_test)(\.[\w.]+)?\.html$",
    r"/(search|get)\?",
    r"\.(css|py)$",
)


@contextmanager
def documentation_server(port: int = 0) -> Iterator[str]:
    """The URL of a documentation server of the standard library alone, while the context lasts.

    port: 0 for a free one. It runs in an interpreter of its own without site-packages, environment or user site, so that
    what is installed does not show. ValueError if it does not start (a taken port, say).
    """
    # A virtual environment's interpreter is a link to this one, which knows the same standard library.
    interpreter = getattr(sys, "_base_executable", None) or sys.executable
    command = [interpreter, "-I", "-S", "-W", "ignore", "-c", _SERVER, _LOOPBACK, str(port)]
    with tempfile.TemporaryFile() as complaints, tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, cwd=folder)
        try:
            assert server.stdout is not None
            url = _first_line(server.stdout)
            if not url:
                complaints.seek(0)
                told = complaints.read().decode(errors="replace").strip().splitlines() or ["no answer"]
                raise ValueError(f"Python's documentation server did not start on {_LOOPBACK}:{port}: {told[-1]}")
            yield url
        finally:
            _stop(server)


def documentation_crawl(url: str, pages: int, files: int) -> CrawlParams:
    """How a documentation server at `url` is crawled: gently, though it is on this machine and serves one page at a time."""
    return CrawlParams(
        start=(url, f"{url}topics.html", f"{url}keywords.html"),
        max_pages=pages,
        delay=0.02,
        exclude=EXCLUDE,
        files=files,
        user_agent="menagerie/0.1 (a demonstration on loopback)",
    )


def crawl_documentation(
    folder: str | Path, pages: int = 400, files: int = 4, port: int = 0, progress: Callable[[int, str], None] | None = None
) -> CrawlReport:
    """Crawl this Python's documentation into WARC files in `folder`, or return the report of an earlier such crawl.

    pages: at most; the standard library has some hundred. See `pipeline.crawl.crawl`.
    """
    before = read_report(folder)
    if before is not None and before.params.get("start"):
        # The port may be another today; the site is the same.
        url = str(before.params["start"][0])  # type: ignore[index]
        if found := finished(documentation_crawl(url, pages, files), folder):
            return found
    with documentation_server(port) as url:
        return crawl(documentation_crawl(url, pages, files), folder, "pydoc", progress)


def _first_line(stream: IO[bytes]) -> str:
    """The first line, or nothing if none comes in time (the reading thread then ends with the server)."""
    import threading

    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.append(stream.readline()), daemon=True)
    reader.start()
    reader.join(_START_SECONDS)
    return lines[0].decode().strip() if lines else ""


def _stop(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None and server.stdout is not None
    server.stdin.close()
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    server.stdout.close()
