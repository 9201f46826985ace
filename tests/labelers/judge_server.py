"""A chat endpoint on 127.0.0.1 whose replies a test decides."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class JudgeServer:
    """Asks `reply` for (status, text or body, headers) per question, and keeps the questions."""

    def __init__(self, reply: Callable[[str, int], tuple[int, Any, dict[str, str]]]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.busy = self.most_busy = 0
        lock, times = threading.Lock(), dict[str, int]()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][-1]["content"]
                with lock:
                    times[prompt] = times.get(prompt, 0) + 1
                    server.asked.append(body | {"path": self.path})
                    server.headers.append(dict(self.headers))
                    server.busy += 1
                    server.most_busy = max(server.most_busy, server.busy)
                status, told, headers = reply(prompt, times[prompt])
                told = {"choices": [{"message": {"role": "assistant", "content": told}}]} if isinstance(told, str) else told
                with lock:
                    server.busy -= 1
                content = json.dumps(told).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> JudgeServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextlib.contextmanager
def judge_server(reply: Callable[[str, int], Any]) -> Iterator[JudgeServer]:
    """reply(prompt, how often it was asked): a text, or (status, text or JSON body, headers)."""

    def full(prompt: str, time: int) -> tuple[int, Any, dict[str, str]]:
        told = reply(prompt, time)
        return told if isinstance(told, tuple) else (200, told, {})

    with JudgeServer(full) as server:
        yield server
