"""A web server for tests: serves a folder's layout from memory, and misbehaves as a test scripts it."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass(frozen=True)
class Act:
    """How one request is answered. status: an error; cut: break the connection after so many body bytes."""

    status: int | None = None
    retry_after: str | None = None
    cut: int | None = None
    ignore_range: bool = False
    announce: int | None = None  # a false Content-Length
    shift: int = 0  # send another range than the one asked for
    wait: float = 0.0


@dataclass(frozen=True)
class Request:
    """What the server saw, and when."""

    path: str
    time: float
    status: int
    range: str | None
    user_agent: str | None


@dataclass
class CrawlServer:
    """`files` by path; `script[path]` is used up one act per request. `validators`: send ETag and Last-Modified."""

    files: dict[str, bytes] = field(default_factory=dict)
    script: dict[str, list[Act]] = field(default_factory=lambda: defaultdict(list))
    requests: list[Request] = field(default_factory=list)
    validators: bool = True
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def count(self, path: str) -> int:
        return sum(request.path == path for request in self.requests)


def _handler(server: CrawlServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            with server.lock:
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
                act = server.script[path].pop(0) if server.script[path] else Act()
                arrived = time.time()
            time.sleep(act.wait)
            with server.lock:
                server.at_once -= 1  # before the answer, since the client may ask again before this thread goes on
            self._answer(path, act, arrived)

        def _note(self, path: str, arrived: float, status: int) -> None:
            """Before the answer is sent, so that a client that has it finds the request counted."""
            request = Request(path, arrived, status, self.headers.get("Range"), self.headers.get("User-Agent"))
            with server.lock:
                server.requests.append(request)

        def _answer(self, path: str, act: Act, arrived: float) -> None:
            status = act.status or (200 if path in server.files else 404)
            if status != 200:
                self._note(path, arrived, status)
                return self._refuse(status, act)
            content = server.files[path]
            etag = f'"{hashlib.md5(content).hexdigest()}"'
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            fresh = self.headers.get("If-Range") in (None, etag) and server.validators
            start = 0
            if asked and fresh and not act.ignore_range:
                start = int(asked[1])
                if start >= len(content):
                    self._note(path, arrived, 416)
                    return self._refuse(416, act)
                start, status = start + act.shift, 206
            self._note(path, arrived, status)
            body = content[start:]
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(body) if act.announce is None else act.announce))
            if server.validators:
                self.send_header("ETag", etag)
                self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(body[: act.cut] if act.cut is not None else body)
            if act.cut is not None or act.announce is not None:
                self.close_connection = True

        def _refuse(self, status: int, act: Act) -> None:
            self.send_response(status)
            if act.retry_after is not None:
                self.send_header("Retry-After", act.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


@pytest.fixture
def crawl_server() -> Iterator[CrawlServer]:
    """A server on loopback, with nothing to serve yet."""
    server = CrawlServer()
    web = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    web.daemon_threads = True
    server.url = f"http://127.0.0.1:{web.server_address[1]}/"
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    web.shutdown()
    web.server_close()
    thread.join()


@pytest.fixture
def act() -> type[Act]:
    """How a test scripts the server: `crawl_server.script[path] = [act(status=503), act(cut=10)]`."""
    return Act
