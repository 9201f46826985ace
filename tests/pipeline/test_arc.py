"""ARC files: the format before WARC."""

from __future__ import annotations

import io

from pipeline.sources.arc import read_arc
from pipeline.sources.archive import ArchiveSource
from pipeline.sources.gzip_members import read_pieces
from pipeline.sources.parameters import Limits
from pipeline.sources.record import Page
from pipeline.sources.records import Damaged, Record
from pipeline.sources.window import Window
from tests.pipeline.archives import members, response

_V1 = b"1 0 Test\nURL IP-address Archive-date Content-type Archive-length\n"
_V2 = b"2 0 Test\nURL IP-address Archive-date Content-type Result-code Checksum Location Offset Filename Archive-length\n"


def arc_record(url: str, block: bytes, fields: str = "1.2.3.4 20140216050221 text/html", length: int | None = None) -> bytes:
    return f"{url} {fields} {len(block) if length is None else length}\n".encode() + block + b"\n"


def read(content: bytes) -> list[Record | Damaged]:
    return list(read_arc(Window(read_pieces(io.BytesIO(content), 1 << 30)), Limits()))


def test_both_versions_are_read_and_spaces_in_addresses_stay() -> None:
    page = response(b"<p>hello")
    url = "http://a.test/?q=two words"
    first = arc_record("filedesc://x.arc", _V1, "0.0.0.0 20140216050221 text/plain") + arc_record(url, page)
    second = arc_record("filedesc://x.arc", _V2, "0.0.0.0 20140216050221 text/plain") + arc_record(
        url, page, "1.2.3.4 20140216050221 text/html 200 - - 0 x.arc"
    )
    for content in (first, second):
        description, capture = read(content)
        assert description.head is not None and description.head.kind == "filedesc"
        assert isinstance(capture, Record) and capture.block == page
        assert (capture.head.uri, capture.head.date) == (url, "2014-02-16T05:02:21Z")


def test_damage_costs_one_record() -> None:
    first = arc_record("filedesc://x.arc", _V1, "0.0.0.0 20140216050221 text/plain")
    good = [arc_record(f"http://a.test/{n}", response(b"<p>%d" % n)) for n in range(3)]
    for bad in (
        arc_record("http://b.test/", response(b"<p>x"), length=9999),
        arc_record("http://b.test/", response(b"<p>x"), length=3),
        arc_record("http://b.test/", b"no http"),
        b"http://b.test/ 1.2.3.4 20140216050221 text/html abc\n\n",
        b"something else altogether\n\n",
    ):
        for content in (first + good[0] + bad + good[1] + good[2], members(first, good[0], bad, good[1], good[2])):
            items = read(content)
            assert [i.head.uri for i in items if isinstance(i, Record)][1:] == [f"http://a.test/{n}" for n in range(3)]
            assert sum(isinstance(i, Damaged) for i in items) == 1


def test_an_arc_is_told_by_its_content(tmp_path) -> None:
    path = tmp_path / "renamed.gz"
    first = arc_record("filedesc://x.arc", _V1, "0.0.0.0 20140216050221 text/plain")
    path.write_bytes(members(first, arc_record("http://a.test/", response(b"<p>hello"))))
    items = list(ArchiveSource().read(str(path)))
    assert isinstance(items[1], Page) and items[1].content == b"<p>hello" and items[1].record_id == "renamed/0"
