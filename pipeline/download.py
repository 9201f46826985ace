"""Polite, resumable HTTP downloads into a cache folder that several processes may share."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import requests

THROTTLED = frozenset({403, 408, 425, 429})
"""Statuses worth another try, beside all of 5xx. Common Crawl answers 403 to clients that ask too much."""
_OFFLINE: ContextVar[bool] = ContextVar("offline", default=False)
_PIECE = 1 << 18
_PROGRESS = 64  # an attempt that brings this part of a file, or more, counts as no failure; so their number is bounded


class NotHereError(ValueError):
    """A file that would have to be downloaded, where nothing may be."""


@contextmanager
def offline() -> Iterator[None]:
    """Within it, `fetch` gives what the cache has, and raises NotHereError for the rest: a survey asks no server."""
    token = _OFFLINE.set(True)
    try:
        yield
    finally:
        _OFFLINE.reset(token)


@dataclass(frozen=True)
class _Partial:
    """What is known of a file of which a part is here: enough to ask for the rest, and for nothing else's."""

    url: str
    length: int | None
    etag: str | None
    modified: str | None

    @property
    def validator(self) -> str | None:
        """For If-Range (RFC 9110, 13.1.5): a strong ETag, else the date; None where what follows could be another file's."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


@dataclass(frozen=True)
class Downloader:
    """Fetches URLs into `cache`. Picklable; safe to use from many threads and processes at once.

    per_host: connections at once to one host, over all processes that share the cache. retries: attempts without progress
    before ConnectionError. backoff: seconds before the first retry, doubled each time up to `backoff_limit`, times a random
    number from 0.5 to 1. timeout: seconds without a byte. contact: a URL or e-mail address for the User-Agent.
    """

    cache: str
    per_host: int = 2
    retries: int = 8
    backoff: float = 1.0
    backoff_limit: float = 120.0
    timeout: float = 60.0
    contact: str = ""

    def path(self, url: str) -> Path:
        """Where the cache keeps a URL. ValueError unless it is http or https."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{url} is no http or https URL")
        # Nothing in a URL may leave the cache folder, nor look like our own unfinished files.
        names = [n.replace("\0", "_") for n in unquote(parts.path).split("/") if n]
        names = [n if not n.startswith(".") else f"_{n}" for n in names]
        if not names or parts.path.endswith("/"):
            names.append("index")
        if parts.query:
            names[-1] += "-" + hashlib.sha1(parts.query.encode()).hexdigest()[:16]
        return Path(self.cache).expanduser().joinpath(_host(url), *names)

    def fetch(self, url: str) -> Path:
        """The local copy of a URL, complete. It is downloaded once, and from where an earlier attempt ended.

        FileNotFoundError if the server has no such file; ConnectionError, with the last reason, when retries are used up;
        NotHereError within `offline()`.
        """
        target = self.path(url)
        if target.exists():
            return target
        if _OFFLINE.get():
            raise NotHereError(f"{url} is not downloaded yet: build does that")
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self._state(f"file-{hashlib.sha1(url.encode()).hexdigest()}")):
            if not target.exists():
                self._download(url, target)
        return target

    def forget(self, url: str) -> None:
        """Delete the local copy and what is left of unfinished ones."""
        target = self.path(url)
        for path in (target, *_beside(target)):
            path.unlink(missing_ok=True)

    # --- one file

    def _download(self, url: str, target: Path) -> None:
        import requests

        part, note = _beside(target)
        failures = 0
        with requests.Session() as session:
            session.headers.update({"User-Agent": self.user_agent, "Accept-Encoding": "identity"})
            while True:
                before = part.stat().st_size if part.exists() else 0
                after: float | None = None
                try:
                    self._attempt(session, url, part, note)
                    break
                except _ThrottledError as told:
                    reason, after = str(told), told.after
                except _OtherFileError as told:
                    part.unlink(missing_ok=True)
                    reason = str(told)
                except _BrokenError as told:
                    reason = str(told)
                except requests.RequestException as error:
                    reason = _one_line(error)
                size, length = (part.stat().st_size if part.exists() else 0), _read_note(note, url)
                gained = size - before
                failures = 0 if gained > 0 and gained * _PROGRESS >= (length.length or 0 if length else 0) else failures + 1
                if failures > self.retries:
                    raise ConnectionError(
                        f"{url}: gave up after {failures} attempts in a row, {size} bytes here; the last: {reason}. "
                        "Run again to go on"
                    )
                delay = min(self.backoff_limit, self.backoff * 2 ** max(failures - 1, 0)) * random.uniform(0.5, 1)
                if after is not None:
                    delay = max(delay, after)
                    self._pause(url, delay)  # told to one, meant for all
                time.sleep(delay)
        _sync(part)
        part.replace(target)
        note.unlink(missing_ok=True)

    def _attempt(self, session: requests.Session, url: str, part: Path, note: Path) -> None:
        """One request. Returns when `part` is the whole file."""
        import requests
        import urllib3

        known = _read_note(note, url)
        have = part.stat().st_size if part.exists() else 0
        headers: dict[str, str] = {}
        if known is not None and known.length is not None and have == known.length and have:
            return  # it was killed between the last byte and the renaming
        if known is not None and known.validator and have:
            headers = {"Range": f"bytes={have}-", "If-Range": known.validator}
        with self._slot(url), session.get(url, headers=headers, stream=True, timeout=self.timeout) as response:
            start = _accept(response, url, have if headers else 0, known)
            if start == 0:
                known = _begin(response, url, part, note)
            assert known is not None
            total = known.length
            with part.open("r+b") as out:
                out.seek(start)
                out.truncate()
                try:
                    for piece in response.raw.stream(_PIECE, decode_content=False):
                        out.write(piece)
                except urllib3.exceptions.HTTPError as error:
                    raise _BrokenError(f"the connection broke at byte {out.tell()}: {_one_line(error)}") from error
                except requests.RequestException as error:
                    raise _BrokenError(_one_line(error)) from error
                size = out.tell()
        if total is not None and size != total:
            raise (_OtherFileError if size > total else _BrokenError)(f"{size} bytes came where {total} were announced")

    @property
    def user_agent(self) -> str:
        """The tool, its version, and whom to ask."""
        try:
            number = version("menagerie")
        except PackageNotFoundError:
            number = "0"
        return f"menagerie/{number}" + (f" (+{self.contact})" if self.contact else "")

    # --- one host

    def _state(self, name: str) -> Path:
        folder = Path(self.cache).expanduser() / ".state"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    @contextmanager
    def _slot(self, url: str) -> Iterator[None]:
        """One of `per_host` places at a host, once the host wants to be asked."""
        host = _host(url)
        places = [self._state(f"host-{host}-{place}") for place in range(self.per_host)]
        while True:
            self._wait(host)
            for place in places:
                with _locked(place, wait=False) as mine:
                    if mine:
                        self._wait(host)
                        yield
                        return
            time.sleep(random.uniform(0.02, 0.1))

    def _wait(self, host: str) -> None:
        """Sleep while a pause lasts. It is the modification time of a file, so that other processes see it."""
        try:
            until = self._state(f"pause-{host}").stat().st_mtime
        except FileNotFoundError:
            return
        while (left := until - time.time()) > 0:
            time.sleep(min(left, self.backoff_limit))

    def _pause(self, url: str, seconds: float) -> None:
        path = self._state(f"pause-{_host(url)}")
        until = time.time() + seconds
        path.touch()
        if path.stat().st_mtime < until:
            os.utime(path, (until, until))


def _host(url: str) -> str:
    """Host and port as a file name, without user and password."""
    return urlsplit(url).netloc.rpartition("@")[2].replace(":", "_")


class _ThrottledError(Exception):
    """The server asks for patience; `after`: for how many seconds, at least."""

    def __init__(self, reason: str, after: float) -> None:
        super().__init__(reason)
        self.after = after


class _BrokenError(Exception):
    """An attempt that ended early; what came of it is kept where it can be used."""


class _OtherFileError(_BrokenError):
    """What is here cannot be a part of what the server has now."""


def _accept(response: requests.Response, url: str, asked: int, known: _Partial | None) -> int:
    """From which byte on the body is the file's; raises what the status means otherwise."""
    status = response.status_code
    if status in (404, 410):
        raise FileNotFoundError(f"{url}: the server has no such file ({status})")
    if status in THROTTLED or status >= 500:
        raise _ThrottledError(f"status {status} {response.reason}", _retry_after(response))
    if status == 200:
        return 0  # a server may ignore a range, and must where the file is another by now
    if status == 416 and asked:
        raise _OtherFileError(f"the server has nothing from byte {asked} on")
    if status != 206 or not asked or known is None:
        raise ConnectionError(f"{url}: unexpected status {status} {response.reason}")
    told = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", told.strip())
    if match is None or int(match[1]) != asked:
        raise _OtherFileError(f"bytes from {asked} on were asked for, and {told or 'no range'} came")
    if known.length is not None and match[2] not in ("*", str(known.length)):
        raise _OtherFileError(f"the file had {known.length} bytes, and has {match[2]} now")
    if known.etag and response.headers.get("ETag", known.etag) != known.etag:
        raise _OtherFileError(f"the file was {known.etag}, and is {response.headers['ETag']} now")
    return asked


def _retry_after(response: requests.Response) -> float:
    """Seconds from Retry-After (a number or a date); 0 if it is absent or senseless."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    value = response.headers.get("Retry-After")
    if value is None:
        return 0.0
    try:
        return min(Retry().parse_retry_after(value), 3600.0)
    except InvalidHeader:
        return 0.0


def _begin(response: requests.Response, url: str, part: Path, note: Path) -> _Partial:
    """An empty part and a note of what it is a part of; in this order, so that a note never speaks of another's bytes."""
    headers = response.headers
    length = headers.get("Content-Length", "")
    partial = _Partial(url, int(length) if length.isdigit() else None, headers.get("ETag"), headers.get("Last-Modified"))
    part.write_bytes(b"")
    beside = note.with_name(f"{note.name}.{uuid.uuid4().hex}")
    beside.write_text(json.dumps(asdict(partial)))
    beside.replace(note)
    return partial


def _read_note(note: Path, url: str) -> _Partial | None:
    try:
        partial = _Partial(**json.loads(note.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return partial if partial.url == url else None


def _beside(target: Path) -> tuple[Path, Path]:
    return target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.part.json")


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock that dies with the process; yields whether it is held."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        yield held
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
