"""A WARC reader that loses nothing it could have had: on damage it goes on at the next gzip member or `WARC/` line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.sources.parameters import Limits
from pipeline.sources.records import Damaged, Head, Record, Verdict, clean_uri, judge
from pipeline.sources.window import Window

MAX_HEADER = 1 << 16
_VERSION = b"WARC/"
_NEXT = re.compile(rb"\nWARC/\d")
_END_OF_HEADER = re.compile(rb"\n\r*\n")
_MAX_BLANKS = 1 << 16


def recover(window: Window, limits: Limits) -> Iterator[Record | Damaged]:
    """Every record from the window's position on: sound, or damaged with a reason; and each run of other bytes, as `junk`.

    A record is sound if its header is whole and its block has the stated length, is not what a stated digest denies, and,
    where no digest confirms it, is followed by another record, the end of a gzip member with a right checksum, or the end.
    """
    junk = 0
    told = -1  # where something was said of the bytes before
    while True:
        junk += window.take_junk()
        blanks = window.blanks(0, _MAX_BLANKS)
        if blanks:
            told = window.position + blanks if told == window.position else told
            window.advance(blanks)
            continue
        start = window.peek(len(_VERSION))
        if start and start != _VERSION:
            # A position is either the file's first byte, the end of a record, or where `resume` stopped.
            junk += window.resume(_NEXT, 1)
            told = window.position
            continue
        if junk:
            yield Damaged("junk", f"{junk} bytes that belong to no record")
            junk, told = 0, window.position
        if told != window.position and window.breaks_here():
            yield Damaged("member_cut", "compressed data end or are damaged between two records; what followed there is lost")
            told = window.position
        if not start:
            return
        item = _read_record(window, limits)
        if isinstance(item, Damaged):
            told = window.position
        yield item


def _read_record(window: Window, limits: Limits) -> Record | Damaged:
    """The record at the position; moves behind it, or to where reading can go on."""
    header = window.peek(4096)
    end = _END_OF_HEADER.search(header)
    if end is None:
        header = window.peek(MAX_HEADER)
        end = _END_OF_HEADER.search(header)
    if end is None or window.breaks(end.end()) or _restarts(window, end.end()):
        whole = end is None and len(header) == MAX_HEADER
        window.resume(_NEXT, 1)
        return Damaged("bad_header" if whole else "header_cut", "the header has no end")
    head = parse_header(header[: end.start()])
    if isinstance(head, str):
        window.resume(_NEXT, 1)
        return Damaged("bad_header", head)
    begin, stop = end.end(), end.end() + head.length
    if head.length > limits.max_record_bytes:
        window.resume(_NEXT, begin)
        return Damaged("too_large", f"{head.length} bytes", head)
    if window.fill(stop) < stop or window.breaks(stop):
        window.resume(_NEXT, begin)
        return Damaged("record_cut", f"less than the stated {head.length} bytes", head)
    block = window.peek(head.length, begin)
    verdict = judge(head, block)
    if verdict.reason is None and not verdict.confirmed:
        verdict = _unconfirmed(window, begin, stop)
    if verdict.reason in ("digest_mismatch", "length_mismatch", "record_cut"):
        window.resume(_NEXT, begin)  # the length is as doubtful as the rest
    else:
        window.advance(stop)
    if verdict.reason is not None:
        return Damaged(verdict.reason, verdict.detail, head)
    return Record(head, block)


def _unconfirmed(window: Window, begin: int, stop: int) -> Verdict:
    """What speaks against a block that no digest confirms."""
    if _restarts(window, stop, begin):
        return Verdict("record_cut", "another record begins inside the block, at the start of a gzip member")
    behind = stop + window.blanks(stop, _MAX_BLANKS)
    if any(end == "bad_crc" for _, end in window.borders(stop, behind)):
        return Verdict("bad_crc", "the checksum of the gzip member is wrong, and no digest confirms the block")
    at_end = window.fill(behind + 1) <= behind or next(window.borders(stop, behind), None) is not None
    if not at_end and window.peek(len(_VERSION), behind) != _VERSION:
        return Verdict("length_mismatch", "the block goes on after its stated length")
    return Verdict()


def _restarts(window: Window, distance: int, first: int = 1) -> bool:
    """Whether a gzip member that begins with a record begins within the next `distance` bytes."""
    return any(window.peek(len(_VERSION), at) == _VERSION for at, _ in window.borders(first, distance - 1))


def parse_header(header: bytes) -> Head | str:
    """The header's lines, without the empty one; or what is wrong with it. Names in any case, folded lines joined."""
    fields: dict[bytes, bytes] = {}
    name = b""
    for line in header.split(b"\n")[1:]:
        if line[:1] in (b" ", b"\t") and name:
            fields[name] += b" " + line.strip()
            continue
        name, colon, value = line.partition(b":")
        name = name.strip().lower() if colon else b""
        if name and name not in fields:
            fields[name] = value.strip()
        else:
            name = b""
    return make_head(fields)


def make_head(fields: dict[bytes, bytes]) -> Head | str:
    """A head from header fields with lower-case names; or what is wrong with them."""

    def text(name: bytes) -> str | None:
        value = fields.get(name)
        return value.decode("utf-8", "replace") if value else None

    kind, length = text(b"warc-type"), fields.get(b"content-length", b"")
    if kind is None:
        return "no WARC-Type"
    if re.fullmatch(rb"\d{1,18}", length) is None:
        return f"Content-Length is {length[:40].decode('latin-1') or 'missing'}"
    return Head(
        kind.lower(),
        int(length),
        clean_uri(text(b"warc-target-uri")),
        text(b"warc-date"),
        text(b"content-type"),
        text(b"warc-block-digest"),
        text(b"warc-payload-digest"),
        text(b"warc-record-id"),
    )
