"""A polite crawl of one site into WARC files: breadth first, in an order that depends on the site alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urljoin, urlsplit, urlunsplit

from pydantic import Field

from pipeline.exchange import Exchange, FetchError, Limits, fetch
from pipeline.links import links, normalised
from pipeline.stage import Params
from pipeline.warc_records import exchange_records, warcinfo

if TYPE_CHECKING:
    from protego import Protego

REPORT = "crawl.json"
_TRY_AGAIN = (429, 500, 502, 503, 504)
_ROBOTS_REDIRECTS = 5  # RFC 9309, 2.3.1.2
_ROBOTS_BYTES = 512 << 10  # RFC 9309, 2.5, asks for 500 KiB at least


class CrawlParams(Params):
    """A crawl of the pages of one host below one path."""

    start: tuple[str, ...] = Field(min_length=1, description="URLs to begin with, all of one host.")
    prefix: str | None = Field(
        default=None, description="Path that every URL begins with; by default the first start URL's folder."
    )
    max_pages: int = Field(default=1000, gt=0, description="URLs to request at most.")
    max_bytes: int = Field(default=10 << 20, ge=1 << 10, description="Bytes of one response; a longer one is cut and says so.")
    delay: float = Field(default=1.0, ge=0, description="Seconds between requests; robots.txt may ask for more.")
    concurrency: int = Field(default=2, ge=1, le=2, description="Requests under way at a time.")
    timeout: float = Field(default=20.0, gt=0, description="Seconds to wait for a byte.")
    deadline: float = Field(default=60.0, gt=0, description="Seconds to wait for a whole response.")
    retries: int = Field(
        default=2, ge=0, description="Further tries after a lost connection, or status 429, 500, 502, 503 or 504."
    )
    max_wait: float = Field(
        default=60.0, ge=0, description="Seconds to wait before a further try; who asks for more is given up."
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="Regular expressions; a URL in which one is found is not requested."
    )
    user_agent: str = Field(
        default="menagerie/0.1", min_length=1, description="User-Agent; robots.txt is read for its first word."
    )
    files: int = Field(default=1, gt=0, description="WARC files to spread the pages over.")


@dataclass(frozen=True)
class CrawlReport:
    """What a crawl did.

    files: names in the folder, each with its pages and bytes. statuses: responses by status. failed: URLs without a
    response, by reason. skipped: distinct links not followed, by reason (outside, excluded, robots, not_http, over_limit).
    """

    params: Mapping[str, object]
    files: Mapping[str, Mapping[str, int]]
    pages: int
    bytes: int
    statuses: Mapping[str, int]
    failed: Mapping[str, int]
    skipped: Mapping[str, int]
    seconds: float


def crawl(
    params: CrawlParams, folder: str | os.PathLike[str], name: str = "crawl", progress: Callable[[int, str], None] | None = None
) -> CrawlReport:
    """Crawl a site into `<folder>/<name>-00000.warc.gz` and so on, and `crawl.json`, which is written last.

    A folder whose crawl.json tells of the same parameters is left as it is; a crawl that was interrupted starts again.
    progress(pages, url) is called after each response. ValueError if robots.txt cannot be read or allows no start URL.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    if found := finished(params, target):
        return found
    begun = time.monotonic()
    spool_path = target / f".{name}.spool.tmp"
    crawler = _Crawler(params, progress)
    try:
        with spool_path.open("w+b") as spool:
            crawler.run(spool)
            files = _split(spool, crawler.ends, params, target, name)
    finally:
        spool_path.unlink(missing_ok=True)
    report = CrawlReport(
        params=params.model_dump(mode="json"),
        files=files,
        pages=len(crawler.ends),
        bytes=sum(told["bytes"] for told in files.values()),
        statuses=dict(sorted(crawler.statuses.items())),
        failed=dict(sorted(crawler.failed.items())),
        skipped={reason: count for reason, count in sorted(crawler.skipped.items()) if count},
        seconds=round(time.monotonic() - begun, 3),
    )
    _replace(target / REPORT, lambda out: out.write((json.dumps(asdict(report), indent=1) + "\n").encode()))
    return report


def read_report(folder: str | os.PathLike[str]) -> CrawlReport | None:
    """What an earlier crawl into a folder said; None without one."""
    try:
        return CrawlReport(**json.loads((Path(folder) / REPORT).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def finished(params: CrawlParams, folder: str | os.PathLike[str]) -> CrawlReport | None:
    """The report of an earlier crawl with the same parameters whose files are all there; else None."""
    report, folder = read_report(folder), Path(folder)
    if report is None:
        return None
    sizes = {name: (folder / name).stat().st_size for name in report.files if (folder / name).is_file()}
    whole = sizes == {name: told["bytes"] for name, told in report.files.items()}
    return report if whole and report.params == params.model_dump(mode="json") else None


def _split(spool: BinaryIO, ends: list[int], params: CrawlParams, folder: Path, name: str) -> dict[str, dict[str, int]]:
    """Cut the spool where pages end, into files of equal numbers of pages. Records are gzip members, so cutting is copying."""
    about = {
        "software": "menagerie",
        "format": "WARC File Format 1.1",
        "conformsTo": "http://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/",
        "http-header-user-agent": params.user_agent,
        "robots": "obey",
    }
    files: dict[str, dict[str, int]] = {}
    bounds = [0, *ends]
    for number in range(params.files):
        first, last = (len(ends) * n // params.files for n in (number, number + 1))
        file = folder / f"{name}-{number:05d}.warc.gz"

        def copy(out: BinaryIO, file: Path = file, first: int = first, last: int = last) -> None:
            out.write(warcinfo(file.name, about, datetime.now(UTC)))
            spool.seek(bounds[first])
            left = bounds[last] - bounds[first]
            while left:
                piece = spool.read(min(left, shutil.COPY_BUFSIZE))  # type: ignore[attr-defined]
                out.write(piece)
                left -= len(piece)

        _replace(file, copy)
        files[file.name] = {"pages": last - first, "bytes": file.stat().st_size}
    return files


def _replace(target: Path, write: Callable[[BinaryIO], object]) -> None:
    beside = target.with_name(f".{target.name}.tmp")
    try:
        with beside.open("wb") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


@dataclass
class _Gate:
    """Lets one request begin at a time, `delay` seconds apart or more; `hold` keeps everybody waiting."""

    delay: float
    _next: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + self.delay
        time.sleep(max(begin - now, 0))

    def hold(self, seconds: float) -> None:
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class _Crawler:
    def __init__(self, params: CrawlParams, progress: Callable[[int, str], None] | None) -> None:
        self.params, self.progress = params, progress
        self.statuses: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.ends: list[int] = []  # where each page's records end in the spool
        self._limits = Limits(params.timeout, params.deadline, params.max_bytes)
        self._gate = _Gate(params.delay)
        self._exclude = [_compile(pattern) for pattern in params.exclude]
        self._queue: deque[str] = deque()
        self._seen: set[str] = set()
        self._requested = 0
        starts = [_start(url) for url in params.start]
        sites = {urlsplit(url)[:2] for url in starts}
        if len(sites) > 1:
            raise ValueError(f"a crawl is of one site; the start URLs are of {sorted('://'.join(s) for s in sites)}")
        self._starts, self._site = starts, sites.pop()
        path = urlsplit(starts[0]).path
        self._prefix = params.prefix if params.prefix is not None else path[: path.rindex("/") + 1]

    def run(self, spool: BinaryIO) -> None:
        """Fetch in the order of discovery, some at a time; take the results in that order, whichever comes first."""
        self._robots = self._read_robots()
        self._gate.delay = max(self._gate.delay, _asked_delay(self._robots, self.params.user_agent))
        for url in self._starts:
            self._discover(url)
        if not self._queue:
            raise ValueError(f"nothing to crawl: robots.txt, prefix or exclude leave out {', '.join(self._starts)}")
        under_way: deque[tuple[str, Future[Exchange]]] = deque()
        pool = ThreadPoolExecutor(self.params.concurrency, thread_name_prefix="crawl")
        try:
            while self._queue or under_way:
                while self._queue and len(under_way) < self.params.concurrency and self._requested < self.params.max_pages:
                    url = self._queue.popleft()
                    self._requested += 1
                    under_way.append((url, pool.submit(self._fetch, url)))
                if not under_way:
                    self.skipped["over_limit"] += len(self._queue)
                    break
                url, result = under_way.popleft()
                self._take(url, result, spool)
        finally:
            pool.shutdown(cancel_futures=True)

    def _take(self, url: str, result: Future[Exchange], spool: BinaryIO) -> None:
        try:
            exchange = result.result()
        except FetchError as error:
            self.failed[error.reason] += 1
            return
        self.statuses[str(exchange.status)] += 1
        spool.write(exchange_records(exchange))
        self.ends.append(spool.tell())
        for link in links(exchange):
            self._discover(link)
        if self.progress is not None:
            self.progress(len(self.ends), url)

    def _discover(self, link: str) -> None:
        url = normalised(link)
        key = link if url is None else url
        if key in self._seen:
            return
        self._seen.add(key)
        if url is None:
            self.skipped["not_http"] += 1
            return
        parts = urlsplit(url)
        if parts[:2] != self._site or not parts.path.startswith(self._prefix):
            self.skipped["outside"] += 1
        elif any(pattern.search(url) for pattern in self._exclude):
            self.skipped["excluded"] += 1
        elif not self._robots.can_fetch(url, self.params.user_agent):
            self.skipped["robots"] += 1
        else:
            self._queue.append(url)

    def _fetch(self, url: str) -> Exchange:
        """With further tries; the last response, whatever it is, or the last error."""
        for attempt in range(self.params.retries + 1):
            self._gate.wait()
            last = attempt == self.params.retries
            wait = max(self.params.delay, 0.1) * 2 ** (attempt + 1)
            try:
                exchange = fetch(url, self.params.user_agent, self._limits)
            except FetchError as error:
                if last or error.reason == "invalid_response":
                    raise
            else:
                asked = _retry_after(exchange.headers.get("retry-after"))
                if last or exchange.status not in _TRY_AGAIN or asked > self.params.max_wait:
                    return exchange
                wait = max(wait, asked)
            self._gate.hold(min(wait, self.params.max_wait))
        raise AssertionError("the last try returns or raises")

    def _read_robots(self) -> Protego:
        """RFC 9309: without a robots.txt (4xx) all is allowed; with one that cannot be had, nothing is."""
        from protego import Protego

        url = urlunsplit((*self._site, "/robots.txt", "", ""))
        for _ in range(_ROBOTS_REDIRECTS + 1):
            try:
                found = self._fetch(url)
            except FetchError as error:
                raise ValueError(f"cannot read {url}, so nothing is crawled: {error}") from error
            if found.status not in (301, 302, 303, 307, 308):
                break
            target = normalised(urljoin(url, found.headers.get("location", "")))
            if target is None:
                break
            url = target
        if found.status >= 500 or found.status == 429:
            raise ValueError(f"cannot read {url}, so nothing is crawled: status {found.status}")
        text = found.content[:_ROBOTS_BYTES].decode("utf-8", "replace") if found.status == 200 else ""
        return Protego.parse(text)


def _asked_delay(robots: Protego, user_agent: str) -> float:
    rate = robots.request_rate(user_agent)
    return max(robots.crawl_delay(user_agent) or 0.0, rate.seconds / rate.requests if rate and rate.requests else 0.0)


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for; 0 without one that can be read."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"exclude: {pattern!r} is no regular expression: {error}") from error


def _start(url: str) -> str:
    found = normalised(url)
    if found is None:
        raise ValueError(f"{url!r} is no http or https URL to start a crawl at")
    return found
