"""One HTTP exchange, kept byte for byte as it went over the wire, within limits of size and time."""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

_DECODERS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's window bits for the content encodings that a request accepts."""
MAX_INFLATION = 50
_HEAD_END = re.compile(rb"\r?\n\r?\n")


class FetchError(Exception):
    """No usable response. `reason` is a snake_case word that is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """timeout: seconds without a byte; deadline: seconds for all of it; max_bytes: of the response, with its headers."""

    timeout: float = 20.0
    deadline: float = 60.0
    max_bytes: int = 10 << 20


@dataclass(frozen=True)
class Exchange:
    """A request and its response.

    request, response: the bytes sent and received, headers and transfer encoding included. body: transfer encoding undone.
    truncated: whether the response was cut at Limits.max_bytes. headers: names in lower case; of several, the last.
    """

    url: str
    date: datetime
    address: str
    request: bytes
    response: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool

    @property
    def content_type(self) -> str:
        """Media type in lower case, without parameters; empty if there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str | None:
        """What Content-Type says."""
        for part in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = part.partition("=")
            if name.strip().lower() == "charset":
                return value.strip(" \"'").lower() or None
        return None

    @property
    def payload(self) -> bytes:
        """What follows the headers, as received."""
        end = _HEAD_END.search(self.response)
        return self.response[end.end() :] if end else b""

    @property
    def content(self) -> bytes:
        """The body with its content encoding undone; at most MAX_INFLATION times its size, so that none explodes."""
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in _DECODERS:
            return self.body
        try:
            return zlib.decompressobj(_DECODERS[encoding]).decompress(self.body, MAX_INFLATION * len(self.body))
        except zlib.error:
            return b""


def fetch(url: str, user_agent: str, limits: Limits = Limits()) -> Exchange:
    """GET a URL over a connection of its own; redirects are not followed.

    FetchError with reason `connection_failed`, `timeout`, `incomplete_response` or `invalid_response`.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=limits.timeout)
    until = time.monotonic() + limits.deadline
    date = datetime.now(UTC)
    wire: _Wire | None = None
    try:
        connection.connect()
        assert connection.sock is not None
        wire = _Wire(connection.sock, limits, until)
        connection.sock = wire  # type: ignore[assignment]
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"User-Agent": user_agent, "Accept": "text/html,*/*;q=0.5", "Accept-Encoding": "gzip", "Connection": "close"}
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        try:
            body = response.read()
        except http.client.IncompleteRead as cut:
            if not wire.full:
                raise FetchError("incomplete_response", f"{url} closed the connection early") from cut
            body = cut.partial
        if not _HEAD_END.search(wire.received):
            raise FetchError("incomplete_response", f"{url} closed the connection within its headers")
        found = {name.lower(): value for name, value in response.getheaders()}
        return Exchange(
            url, date, wire.address, bytes(wire.sent), bytes(wire.received), response.status, found, body, wire.full
        )
    except TimeoutError as error:
        raise FetchError("timeout", f"{url}: {error}") from error
    except (http.client.HTTPException, ValueError) as error:
        closed = isinstance(error, http.client.RemoteDisconnected)
        raise FetchError("connection_failed" if closed else "invalid_response", f"{url}: {error!r}") from error
    except OSError as error:  # after TimeoutError, which is one
        raise FetchError("connection_failed", f"{url}: {error}") from error
    finally:
        if wire is not None:
            wire.socket.close()
        connection.close()


class _Wire:
    """What http.client needs of a socket, recording both directions."""

    def __init__(self, connected: socket.socket | ssl.SSLSocket, limits: Limits, until: float) -> None:
        self.socket = connected
        self.address: str = connected.getpeername()[0]
        self.sent, self.received = bytearray(), bytearray()
        self.limits, self.until = limits, until
        self.full = False

    def sendall(self, data: bytes) -> None:
        self._patience()
        self.socket.sendall(data)
        self.sent += data

    def receive(self, buffer: memoryview) -> int:
        room = self.limits.max_bytes - len(self.received)
        if room <= 0:
            self.full = True
            return 0  # looks like the end of the stream
        self._patience()
        count = self.socket.recv_into(buffer[:room])
        self.received += buffer[:count]
        return count

    def _patience(self) -> None:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"not done within {self.limits.deadline:g} s")
        self.socket.settimeout(min(self.limits.timeout, left))

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Stream(self))

    def close(self) -> None:
        """http.client closes its socket once the headers say that the response is the last; the body is still to come."""


class _Stream(io.RawIOBase):
    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.receive(memoryview(buffer).cast("B"))
