"""A crawl asks for exactly what it may, slowly, and writes down exactly what it got. Against a small site on loopback."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from pydantic import ValidationError

from pipeline.crawl import CrawlParams, crawl
from pipeline.exchange import Exchange, FetchError, Limits, fetch
from pipeline.links import normalised

HTML = "text/html; charset=utf-8"


@dataclass
class Site:
    """Answers by path, and what was asked for when."""

    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[tuple[float, str]] = field(default_factory=list)
    busiest: int = 0
    url: str = ""
    _busy: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def page(self, path: str, body: str | bytes, status: int = 200, kind: str = HTML, **headers: str) -> None:
        content = body.encode() if isinstance(body, str) else body

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Type", kind)
            handler.send_header("Content-Length", str(len(content)))
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(content)

        self.answers[path] = answer

    def raw(self, path: str, response: bytes, pause: float = 0) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            time.sleep(pause)
            handler.wfile.write(response)
            handler.close_connection = True

        self.answers[path] = answer

    def in_turn(self, path: str, *statuses: int, **headers: str) -> None:
        """Another status at each request; the last one for good."""
        left = list(statuses)

        def answer(handler: BaseHTTPRequestHandler) -> None:
            status = left.pop(0) if len(left) > 1 else left[0]
            self.page("", f"status {status}", status, **headers)
            self.answers[""](handler)

        self.answers[path] = answer

    def paths(self) -> list[str]:
        return [path for _, path in self.asked]

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.asked.append((time.monotonic(), handler.path))
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
        try:
            self.page("", "nothing here", 404)
            missing = self.answers.pop("")
            self.answers.get(handler.path, missing)(handler)
        finally:
            with self._lock:
                self._busy -= 1


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.serve(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


def _links(*targets: str) -> str:
    return "<html><body>" + "".join(f'<p><a href="{t}">to {t}</a></p>' for t in targets) + "</body></html>"


def _params(site: Site, start: str = "/", **more: Any) -> CrawlParams:
    quick: dict[str, Any] = {"delay": 0.0, "timeout": 10.0, "deadline": 20.0, "retries": 0}
    return CrawlParams(start=(site.url + start,), **quick | more)


def _records(folder: Path) -> list[tuple[str, dict[str, str], bytes]]:
    """Type, headers and block of every record of every file, digests checked."""
    found = []
    for file in sorted(folder.glob("*.warc.gz")):
        with file.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.any_type, parse_http=False):
                record.freeze()
                assert record.verify_block_digest()
                headers = dict(record.headers.items())
                found.append((headers["WARC-Type"], headers, record.reader.read()))
    return found


def _responses(folder: Path, site: Site) -> list[str]:
    return [h["WARC-Target-URI"].removeprefix(site.url) for kind, h, _ in _records(folder) if kind == "response"]


def test_a_site_with_everything_in_it_gives_exactly_these_records(site: Site, tmp_path: Path) -> None:
    site.page("/robots.txt", "User-agent: *\nDisallow: /private\nDisallow: /*.pdf$\n", kind="text/plain")
    site.page(
        "/",
        _links("/a", "b/c#part", "/a#top", "https://example.com/", "/private/x", "/x.pdf", "/missing", "/error", "/slow")
        + _links("/moved", "/gone-elsewhere", "/picture.png", "/packed", "/broken", "/cut", "mailto:a@b.c", "/skip/me", "/big"),
    )
    site.page("/a", _links("/", "/b/c", "/late?x=1&y=ü"))
    site.page("/b/c", '<base href="/deep/"><a href="er">e</a><a rel="nofollow" href="/unwanted">u</a>')
    site.page("/deep/er", '<meta name="robots" content="noindex, nofollow"><a href="/unwanted">u</a>')
    site.page("/late?x=1&y=%C3%BC", "the end")
    site.page("/error", "oh", 500)
    site.raw("/slow", b"HTTP/1.1 200 OK\r\n\r\n", pause=2.5)
    site.page("/moved", "", 301, Location="/target")
    site.page("/target", _links("/a"))
    site.page("/gone-elsewhere", "", 302, Location="http://elsewhere.example/")
    site.page("/picture.png", b"\x89PNG\r\n\r\n<a href='/unwanted'>", kind="image/png")
    packed = gzip.compress(_links("/found-in-gzip").encode())
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (packed[:7], packed[7:], b""))
    chunked = (
        b"HTTP/1.1 200 OK\r\ncontent-TYPE: text/html\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    )
    site.raw("/packed", chunked)
    site.page("/found-in-gzip", "found")
    site.raw("/broken", b"this is no HTTP\r\n\r\n")
    site.raw("/cut", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
    site.page("/big", "x" * 20_000)

    report = crawl(_params(site, exclude=("/skip/",), max_bytes=10_000, timeout=1.0), tmp_path)

    expected = [
        "/", "/a", "/b/c", "/missing", "/error", "/moved", "/gone-elsewhere", "/picture.png", "/packed", "/big",
        "/late?x=1&y=%C3%BC", "/deep/er", "/target", "/found-in-gzip",
    ]  # fmt: skip
    assert _responses(tmp_path, site) == expected
    assert dict(report.statuses) == {"200": 10, "301": 1, "302": 1, "404": 1, "500": 1}
    assert dict(report.failed) == {"incomplete_response": 1, "invalid_response": 1, "timeout": 1}
    assert dict(report.skipped) == {"excluded": 1, "not_http": 1, "outside": 2, "robots": 2}
    assert sorted(site.paths()) == sorted(["/robots.txt", *expected, "/slow", "/broken", "/cut"])

    records = _records(tmp_path)
    assert records[0][0] == "warcinfo"
    assert [kind for kind, _, _ in records[1:]] == ["request", "response"] * len(expected)
    by_path = {
        (kind, h["WARC-Target-URI"].removeprefix(site.url)): (h, block) for kind, h, block in records if kind != "warcinfo"
    }
    assert by_path["response", "/packed"][1] == chunked  # as it was on the wire
    for path in expected:
        (asked, request), (answered, _) = by_path["request", path], by_path["response", path]
        assert request.startswith(f"GET {path} HTTP/1.1\r\nHost: {site.url[7:]}\r\nUser-Agent: menagerie".encode())
        assert asked["WARC-Concurrent-To"] == answered["WARC-Record-ID"]
        assert answered["WARC-Concurrent-To"] == asked["WARC-Record-ID"]
        assert answered["WARC-IP-Address"] == "127.0.0.1"
        assert ("WARC-Truncated" in answered) == (path == "/big")
    assert len(by_path["response", "/big"][1]) == 10_000


def test_payload_digests_hold_and_every_record_is_a_gzip_member(site: Site, tmp_path: Path) -> None:
    site.page("/", _links("/a"))
    site.raw("/a", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    crawl(_params(site), tmp_path)
    file = tmp_path / "crawl-00000.warc.gz"
    bodies = []
    with file.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response, auto_decode="transfer"):
            bodies.append(record.reader.read())
    with file.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
            assert record.verify_payload_digest()
    assert bodies[1] == b"abc"
    content, members = file.read_bytes(), 0
    while content:
        member = zlib.decompressobj(31)
        assert member.decompress(content).startswith(b"WARC/1.1\r\n")
        content, members = member.unused_data, members + 1
    assert members == 1 + 2 * 2


def test_order_does_not_depend_on_which_answer_comes_first(site: Site, tmp_path: Path) -> None:
    names = [f"/{n}" for n in range(12)]
    site.page("/", _links(*names))
    for number, name in enumerate(names):
        html = _links(f"/of{number}").encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(html)
        site.raw(name, head + html, pause=0.08 if number % 3 == 0 else 0)
        site.page(f"/of{number}", "leaf")
    crawl(_params(site), tmp_path / "two")
    crawl(_params(site, concurrency=1), tmp_path / "one")
    expected = ["/", *names, *(f"/of{n}" for n in range(12))]
    assert _responses(tmp_path / "two", site) == _responses(tmp_path / "one", site) == expected


def test_requests_keep_their_distance_and_never_more_than_two_are_under_way(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []

    def noting(url: str, user_agent: str, limits: Limits) -> Exchange:
        begun.append(time.monotonic())
        return fetch(url, user_agent, limits)

    monkeypatch.setattr("pipeline.crawl.fetch", noting)
    site.page("/", _links(*(f"/{n}" for n in range(10))))
    for n in range(10):
        site.raw(f"/{n}", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", pause=0.15)
    crawl(_params(site, delay=0.05), tmp_path)
    assert len(begun) == 12
    # A thread may wake late, never early.
    assert all(t - begun[0] >= n * 0.05 - 0.03 for n, t in enumerate(sorted(begun)))
    assert site.busiest == 2


def test_robots_may_ask_for_a_longer_delay(site: Site, tmp_path: Path) -> None:
    site.page("/robots.txt", "User-agent: *\nCrawl-delay: 0.3\n", kind="text/plain")
    site.page("/", _links("/a", "/b"))
    crawl(_params(site), tmp_path)
    assert site.asked[-1][0] - site.asked[1][0] >= 0.55


@pytest.mark.parametrize("status", [500, 503, 429])
def test_without_a_readable_robots_txt_nothing_is_crawled(site: Site, tmp_path: Path, status: int) -> None:
    site.page("/robots.txt", "", status)
    with pytest.raises(ValueError, match=f"robots.txt, so nothing is crawled: status {status}"):
        crawl(_params(site), tmp_path)
    assert site.paths() == ["/robots.txt"]
    assert not list(tmp_path.iterdir())


def test_robots_that_leave_nothing_to_crawl_are_an_error(site: Site, tmp_path: Path) -> None:
    site.page("/robots.txt", "User-agent: menagerie\nDisallow: /\n", kind="text/plain")
    with pytest.raises(ValueError, match="nothing to crawl"):
        crawl(_params(site), tmp_path)


def test_a_busy_server_is_asked_again_when_it_says_so(site: Site, tmp_path: Path) -> None:
    site.page("/", _links("/busy", "/patient"))
    site.in_turn("/busy", 503, 429, 200)
    site.in_turn("/patient", 503, Retry_After="3600")
    report = crawl(_params(site, retries=2, max_wait=1.0), tmp_path)
    assert dict(report.statuses) == {"200": 2, "503": 1}
    assert site.paths().count("/busy") == 3
    assert site.paths().count("/patient") == 1


def test_pages_stay_below_the_prefix_and_the_limit(site: Site, tmp_path: Path) -> None:
    site.page("/docs/", _links("/docs/a", "/other", "b", "c", "d", "../docs/a"))
    report = crawl(_params(site, "/docs/", max_pages=3), tmp_path)
    assert _responses(tmp_path, site) == ["/docs/", "/docs/a", "/docs/b"]
    assert dict(report.skipped) == {"outside": 1, "over_limit": 2}


def test_pages_are_spread_over_files_and_a_second_crawl_does_nothing(site: Site, tmp_path: Path) -> None:
    site.page("/", _links(*(f"/{n}" for n in range(9))))
    params = _params(site, files=3)
    seen: list[tuple[int, str]] = []
    report = crawl(params, tmp_path, "site", lambda pages, url: seen.append((pages, url)))
    assert [told["pages"] for told in report.files.values()] == [3, 3, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*report.files, "crawl.json"])
    assert [n for n, _ in seen] == list(range(1, 11))
    assert sum(kind == "warcinfo" for kind, _, _ in _records(tmp_path)) == 3
    asked = len(site.asked)
    assert crawl(params, tmp_path, "site") == report
    assert len(site.asked) == asked
    (tmp_path / "site-00001.warc.gz").unlink()
    assert crawl(params, tmp_path, "site").pages == 10
    assert len(site.asked) == 2 * asked


def test_an_interrupted_crawl_leaves_nothing_and_starts_again(site: Site, tmp_path: Path) -> None:
    site.page("/", _links("/a", "/b"))

    def stop(pages: int, url: str) -> None:
        if pages == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crawl(_params(site), tmp_path, progress=stop)
    assert not list(tmp_path.iterdir())
    assert crawl(_params(site), tmp_path).pages == 3
    assert json.loads((tmp_path / "crawl.json").read_text())["pages"] == 3


def test_a_response_that_trickles_meets_its_deadline(site: Site) -> None:
    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            time.sleep(0.05)
            try:
                handler.wfile.write(b"x")
            except OSError:
                return

    site.answers["/drip"] = trickle
    begun = time.monotonic()
    with pytest.raises(FetchError) as caught:
        fetch(f"{site.url}/drip", "test", Limits(timeout=1.0, deadline=0.4))
    assert caught.value.reason == "timeout" and time.monotonic() - begun < 4.0


def test_a_small_body_that_explodes_is_cut(site: Site) -> None:
    site.page("/bomb", gzip.compress(b"\0" * (1 << 24)), Content_Encoding="gzip")
    exchange = fetch(f"{site.url}/bomb", "test")
    assert len(exchange.content) <= 50 * len(exchange.body) < 1 << 20


def test_a_server_that_is_not_there_is_a_reason() -> None:
    with pytest.raises(FetchError) as caught:
        fetch("http://127.0.0.1:9/", "test", Limits(timeout=1))
    assert caught.value.reason == "connection_failed"


def test_two_spellings_of_a_url_are_one() -> None:
    assert normalised("HTTP://Example.COM:80#x") == "http://example.com/"
    assert normalised("https://example.com:443/a b?q=ü#f") == "https://example.com/a%20b?q=%C3%BC"
    assert normalised("https://example.com/a%20b?q=%C3%BC") == "https://example.com/a%20b?q=%C3%BC"
    assert normalised("http://bücher.example/") == "http://xn--bcher-kva.example/"
    assert normalised("http://[::1]:8080/x") == "http://[::1]:8080/x"
    for other in ("mailto:a@b", "/relative", "http://", "http://u:p@h/", "http://h:99999999/", "javascript:void(0)"):
        assert normalised(other) is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"start": ("ftp://h/",)}, "no http or https URL"),
        ({"start": ("http://h/", "http://other/")}, "one site"),
        ({"start": ("http://h/",), "exclude": ("(",)}, "regular expression"),
    ],
)
def test_parameters_that_make_no_crawl_are_named(tmp_path: Path, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        crawl(CrawlParams(**wrong), tmp_path)


def test_more_than_two_requests_at_a_time_are_refused() -> None:
    with pytest.raises(ValidationError):
        CrawlParams(start=("http://h/",), concurrency=3)
