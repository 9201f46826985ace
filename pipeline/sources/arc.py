"""Internet Archive's ARC files, versions 1 and 2, the format before WARC: a line of metadata, then so many bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.sources.http import HTTP
from pipeline.sources.parameters import Limits
from pipeline.sources.records import Damaged, Head, Record
from pipeline.sources.window import Window

FIRST = b"filedesc:"
_MAX_LINE = 1 << 14
_MAX_BLANKS = 1 << 16
_FIELDS = {1: 5, 2: 10}
"""Fields of a header line by version; all but the first, the URL, hold no spaces."""
_NEXT = re.compile(rb"\n(?:filedesc|https?|dns|ftp|warcinfo):[^\s]")


def read_arc(window: Window, limits: Limits) -> Iterator[Record | Damaged]:
    """Every record: `filedesc`, `response` (a capture over HTTP), or the URL's scheme (`dns`); damaged ones with a reason.

    ARC has no digests, so a record is sound if its block has the stated length, ends where it should, and, for a response,
    begins with an HTTP status line.
    """
    version = 1
    junk = 0
    while True:
        junk += window.take_junk()
        blanks = window.blanks(0, _MAX_BLANKS)
        if blanks:
            window.advance(blanks)
            continue
        line = window.peek(_MAX_LINE).partition(b"\n")[0]
        head = _parse(line, version)
        if line and head is None:
            junk += window.resume(_NEXT, 1)
            continue
        if junk:
            yield Damaged("junk", f"{junk} bytes that belong to no record")
            junk = 0
        if head is None:
            return
        item = _read_record(window, head, len(line) + 1, limits)
        if isinstance(item, Record) and item.head.kind == "filedesc":
            version = 2 if item.block.startswith(b"2") else 1
        yield item


def _read_record(window: Window, head: Head | str, begin: int, limits: Limits) -> Record | Damaged:
    if isinstance(head, str):
        window.resume(_NEXT, 1)
        return Damaged("bad_header", head)
    if head.length > limits.max_record_bytes:
        window.resume(_NEXT, begin)
        return Damaged("too_large", f"{head.length} bytes", head)
    wrong = _misfit(window, begin, head.length)
    length = head.length
    if wrong is not None:
        # Where somebody turned CR LF into LF, the HTTP header is shorter by one byte a line than the length says.
        length -= _missing_returns(window.peek(_MAX_LINE, begin))
        if length != head.length and _misfit(window, begin, length) is None:
            wrong = None
    if wrong is not None:
        window.resume(_NEXT, begin)
        return Damaged(*wrong, head)
    block = window.peek(length, begin)
    stop = begin + length
    checksum = [end for _, end in window.borders(stop, stop + window.blanks(stop, _MAX_BLANKS))]
    window.advance(stop)
    if "bad_crc" in checksum:
        return Damaged("bad_crc", "the checksum of the gzip member is wrong", head)
    if head.kind == "response" and not block.startswith(HTTP):
        return Damaged("no_http_header", "the block does not begin with an HTTP status line", head)
    return Record(head, block)


def _misfit(window: Window, begin: int, length: int) -> tuple[str, str] | None:
    """What speaks against a block of this length: it is cut, or nothing ends where it does."""
    stop = begin + length
    if length < 0 or window.fill(stop) < stop or window.breaks(stop):
        return "record_cut", f"less than the stated {length} bytes"
    at_end = window.fill(stop + 1) == stop or any(window.borders(stop, stop))
    if at_end or window.blanks(stop, 1) or _NEXT.match(window.peek(64, stop - 1)):
        return None
    return "length_mismatch", "the block goes on after its stated length"


def _missing_returns(block: bytes) -> int:
    """The lines of an HTTP header that end in LF, with the empty one; 0 if any ends in CR LF."""
    head, end, _ = block.partition(b"\n\n")
    return head.count(b"\n") + 2 if end and b"\r" not in head and head.startswith(HTTP) else 0


def _parse(line: bytes, version: int) -> Head | str | None:
    """The head that a header line gives; what is wrong with the line; None if it is no header line."""
    if not _NEXT.match(b"\n" + line):
        return None
    # The URL may hold spaces, so fields are counted from the right.
    text = line.decode("utf-8", "replace").rstrip("\r")
    scheme = text.partition(":")[0].lower()
    fields = text.rsplit(" ", _FIELDS[1 if scheme == "filedesc" else version] - 1)
    if len(fields) < _FIELDS[1]:
        return f"{len(fields)} fields in a header line"
    url, _address, date, content_type = fields[:4]
    if not re.fullmatch(r"\d{1,18}", fields[-1]):
        return f"length {fields[-1][:40]}"
    kind = "response" if scheme in ("http", "https") else scheme
    return Head(kind, int(fields[-1]), url, _iso_date(date), content_type)


def _iso_date(date: str) -> str:
    """`YYYYMMDDhhmmss` as WARC writes it; anything else as it is."""
    if re.fullmatch(r"\d{14}", date) is None:
        return date
    return f"{date[:4]}-{date[4:6]}-{date[6:8]}T{date[8:10]}:{date[10:12]}:{date[12:]}Z"
