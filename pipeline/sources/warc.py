"""WARC and WET files, record by record: FastWARC while a file is sound, our own reader from the first doubt on.

FastWARC is two to three times as fast, but stops at damage, and hands out a record that the file's end cut off as if it were
whole. So what it gives is checked, and held back until the next record begins where it should; on any doubt the file is read
again by `recovery`, which leaves out what was handed out before. The last record of a sound file is read by both.
"""

from __future__ import annotations

import io
import zlib
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import xxhash

from pipeline.sources.gzip_members import read_pieces
from pipeline.sources.parameters import Limits
from pipeline.sources.records import DOCUMENT_TYPES, Damaged, Head, Record, judge
from pipeline.sources.recovery import make_head, recover
from pipeline.sources.window import Window
from pipeline.storage import open_filesystem

if TYPE_CHECKING:
    from fastwarc.warc import WarcRecord

_BUFFER = 1 << 20
_REMOTE_BUFFER = 8 << 20  # one ranged request of an object store


def read_warc(file: BinaryIO, limits: Limits) -> Iterator[Record | Damaged]:
    """Every record of a seekable file, once; those before the first damage first, then the rest, each in the file's order.

    Never raises on what is in the file.
    """
    handed_out: deque[tuple[int, int]] = deque()  # fingerprints of record and head, in order
    fast = _read_sound(file, limits)
    documents = 0
    while True:
        try:
            record = next(fast)
        except StopIteration as stop:
            if stop.value:
                return
            break
        record.number = documents
        documents += record.head.kind in DOCUMENT_TYPES
        handed_out.append((_fingerprint(record), _name(record.head)))
        yield record
    left = Counter(mark for mark, _ in handed_out)
    for item in numbered(recover(Window(read_pieces(file, limits.max_member_bytes)), limits)):
        if isinstance(item, Damaged):
            # FastWARC forgives a stray byte behind a block that has no digest; what was handed out is not damaged as well.
            if handed_out and item.head is not None and handed_out[0][1] == _name(item.head):
                left[handed_out.popleft()[0]] -= 1
                continue
        elif left[mark := _fingerprint(item)] > 0:
            left[mark] -= 1
            while handed_out and handed_out.popleft()[0] != mark:
                pass
            continue
        yield item


def numbered(items: Iterable[Record | Damaged]) -> Iterator[Record | Damaged]:
    """The items, each with the number of document records before it; damaged ones count if their type is known."""
    documents = 0
    for item in items:
        item.number = documents
        documents += item.head is not None and item.head.kind in DOCUMENT_TYPES
        yield item


def _read_sound(file: BinaryIO, limits: Limits) -> Generator[Record, None, bool]:
    """The sound records up to the first doubt, by FastWARC; returns whether that was the whole file."""
    from fastwarc.warc import ArchiveIterator

    held: Record | None = None
    position = 0
    file.seek(0)
    archive = iter(ArchiveIterator(cast(Any, file), parse_http=False, buffer_size=_BUFFER))
    while True:
        try:
            raw = next(archive)
            record = _checked(raw, limits)
        except StopIteration:
            break
        except BaseException as error:
            # A panic in Rust is no Exception. Whatever it is, the other reader says what is wrong with the file.
            if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
                raise
            return False
        if held is not None:
            yield held  # the next record begins where this one ends
        if record is None:
            return False
        held, position = record, raw.stream_pos
    if held is None:
        return False
    rest = recover(Window(read_pieces(file, limits.max_member_bytes, position)), limits)
    if list(islice(rest, 2)) != [held]:
        return False  # FastWARC does not tell a whole file from a cut one
    yield held
    return True


def _checked(raw: WarcRecord, limits: Limits) -> Record | None:
    """FastWARC's record as ours, or None if there is any doubt about it."""
    fields: dict[bytes, bytes] = {}
    for name, value in raw.headers.items_bytes():
        name = name.lower()
        if b"\n" in value or b"\r" in value or (name in fields and name != b"warc-concurrent-to"):
            return None
        fields[name] = value
    head = make_head(fields)
    if isinstance(head, str) or head.length > limits.max_record_bytes or head.length != raw.content_length:
        return None
    block = raw.reader.read()
    if len(block) != head.length or judge(head, block).reason is not None:
        return None
    return Record(head, block)


def _fingerprint(record: Record) -> int:
    return xxhash.xxh3_64_intdigest(record.block, seed=_name(record.head))


def _name(head: Head) -> int:
    return xxhash.xxh3_64_intdigest(f"{head.name} {head.kind} {head.uri} {head.length} {head.date}".encode())


def open_input(url: str) -> BinaryIO:
    """A seekable file at a path or URL. ValueError if it cannot be opened."""
    try:
        filesystem, path = open_filesystem(url)
        if filesystem.type_name == "local":
            return open(path, "rb")  # noqa: PTH123 - the caller closes it; the path is a string of pyarrow's
        return cast(BinaryIO, io.BufferedReader(cast(Any, filesystem.open_input_file(path)), _REMOTE_BUFFER))
    except OSError as error:
        raise ValueError(f"cannot open {url}: {error}") from error


def first_bytes(file: BinaryIO) -> bytes:
    """Up to 4096 bytes of what is in a file, gunzipped if it is gzip; leaves the file at its start."""
    head = file.read(1 << 16)
    file.seek(0)
    try:
        return zlib.decompressobj(31).decompress(head, 4096)
    except zlib.error:
        return head[:4096]
