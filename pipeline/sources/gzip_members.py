"""Every byte that can be had from a gzip file of many members, however damaged, and where each member ends and how.

Deflate is undone raw, with the member's header and CRC-32 read here, because zlib's own gzip mode withholds the data of a
member whose CRC is wrong. After damage the reader goes on at the next gzip header. (RFC 1951, RFC 1952.)
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

End = Literal["whole", "bad_crc", "broken", "cut", "too_large"]
"""How a member ended: as it should; with a wrong checksum; in damaged data; with the file; or over the limit."""

_MAGIC = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_PIECE = 1 << 12  # compressed bytes per step; what comes out of them is not bounded
_PIECE = 1 << 16  # compressed bytes per step
_OUTPUT = 1 << 20  # decompressed bytes per step, at most
_OVERLAP = 1 << 16
"""Damage shows some way behind the spot: the search for the next member starts so many bytes before the place of the error."""
_RETRIES = 10_000  # members that may fail in one file, before the rest of it is given up


@dataclass(slots=True)
class Piece:
    """Decompressed bytes in order. `end` is set on the last piece of a member, which has no data.

    junk: raw bytes of no member that lie here; such a piece has nothing else.
    """

    data: bytes
    end: End | None = None
    junk: int = 0


def read_pieces(file: BinaryIO, max_member_bytes: int, start: int = 0) -> Iterator[Piece]:
    """The content of a seekable file, gzip, Zstandard or neither, from `start` on; never raises on bad data.

    A file that is no gzip comes as one member, and one in Zstandard ends at its first damage. max_member_bytes bounds what each
    damaged member, and all of them together, may expand to; sound members are not bounded, since they pass through in pieces.
    """
    file.seek(start)
    head = file.read(1 << 20)
    file.seek(start)
    if head.startswith(_MAGIC[:2]) or (_is_binary(head) and _MAGIC in head):
        yield from _Members(file, max_member_bytes).read(start)
        return
    if head.startswith(_ZSTD):
        yield from _frames(file)
        return
    while data := file.read(_OUTPUT):
        yield Piece(data)
    yield Piece(b"", "whole")


def _frames(file: BinaryIO) -> Iterator[Piece]:
    """The content of Zstandard frames up to the first damage, as one member."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    frame, whole = decompressor.decompressobj(), True
    position = file.tell()
    try:
        while data := file.read(_ZSTD_PIECE):
            position = file.tell() - len(data)
            while data:
                yield Piece(frame.decompress(data))
                whole = frame.eof
                data = frame.unused_data if whole else b""
                if whole:
                    frame = decompressor.decompressobj()
        yield Piece(b"", "whole" if whole else "cut")
    except zstandard.ZstdError:
        yield Piece(b"", "broken")
        yield Piece(b"", None, file.seek(0, 2) - position)


def _is_binary(head: bytes) -> bool:
    """Whether nothing in the first bytes looks like an archive that was never compressed."""
    return b"WARC/" not in head[:4096] and b"filedesc:" not in head[:4096]


class _Members:
    def __init__(self, file: BinaryIO, max_member_bytes: int) -> None:
        self.file = file
        self.limit = max_member_bytes
        self.wasted = 0  # bytes that came out of members that failed
        self.failures = 0

    def read(self, start: int) -> Iterator[Piece]:
        sound = True  # after a failed member, what lies before the next one is the rest of it, and no junk
        while (found := self._find(start)) is not None:
            if sound and found > start:
                yield Piece(b"", None, found - start)
            member = _Member(self.file, found, self.limit)
            for data in member.read():
                yield Piece(data)
            yield Piece(b"", member.end)
            start = member.stop
            sound = member.end in ("whole", "cut") or (member.end == "bad_crc" and self._starts_member(start))
            if not sound:
                self.failures += 1
                self.wasted += member.size
                start = max(found + 1, member.stop - _OVERLAP)
                if self.failures > _RETRIES or self.wasted > self.limit:
                    break
        size = self.file.seek(0, 2)
        if size > start and (sound or found is not None):
            yield Piece(b"", None, size - start)

    def _starts_member(self, position: int) -> bool:
        self.file.seek(position)
        head = self.file.read(4)
        return not head or (head.startswith(_MAGIC) and not head[3:4] > b"\x1f")

    def _find(self, position: int) -> int | None:
        """The first place from `position` that looks like a gzip header (three reserved flag bits are 0)."""
        self.file.seek(position)
        data = self.file.read(4)
        while len(data) >= 4:
            at = data.find(_MAGIC)
            while at != -1 and at + 3 < len(data):
                if data[at + 3] < 0x20:
                    return position + at
                at = data.find(_MAGIC, at + 1)
            position += len(data) - 3
            more = self.file.read(1 << 20)
            if not more:
                break
            data = data[-3:] + more
        return None


class _Member:
    """One gzip member at `start`. After `read`, `end` says how it ended, `stop` where, `size` how much came out."""

    def __init__(self, file: BinaryIO, start: int, limit: int) -> None:
        self.file = file
        self.start = self.stop = start
        self.limit = limit
        self.end: End = "cut"
        self.size = 0
        self.crc = 0

    def read(self) -> Iterator[bytes]:
        self.file.seek(self.start)
        data = self._after_header()
        if data is None:
            return
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        while True:
            if not data:
                data = self.file.read(_PIECE)
                if not data:
                    self.stop = self.file.tell()
                    self.end = "cut"
                    return
            before = inflater.copy()
            try:
                output = inflater.decompress(data, _OUTPUT)
            except zlib.error:
                at = self.file.tell() - len(data)
                for output in self._up_to_the_error(before, data):
                    self._count(output)
                    yield output
                self.end, self.stop = "broken", at + self.good
                return
            self._count(output)
            if output:
                yield output
            if inflater.eof:
                self._trailer(inflater.unused_data)
                return
            if self.size > self.limit:
                self.end, self.stop = "too_large", self.file.tell() - len(inflater.unconsumed_tail)
                return
            data = inflater.unconsumed_tail

    def _count(self, output: bytes) -> None:
        self.size += len(output)
        self.crc = zlib.crc32(output, self.crc)

    def _up_to_the_error(self, inflater: zlib._Decompress, data: bytes) -> Iterator[bytes]:
        """What comes out before the damage: zlib gives it only if the bad byte is not in the same call."""
        self.good = 0
        for self.good in range(len(data)):
            try:
                output = inflater.decompress(data[self.good : self.good + 1])
            except zlib.error:
                return
            if output:
                yield output

    def _trailer(self, rest: bytes) -> None:
        position = self.file.tell() - len(rest)
        if len(rest) < 8:
            rest += self.file.read(8 - len(rest))
        self.stop = position + min(8, len(rest))
        if len(rest) < 8:
            self.end = "cut"
        else:
            told = int.from_bytes(rest[:4], "little"), int.from_bytes(rest[4:8], "little")
            self.end = "whole" if told == (self.crc, self.size & 0xFFFFFFFF) else "bad_crc"

    def _after_header(self) -> bytes | None:
        """The compressed bytes that follow the header; None, with `end` set, if it is cut or makes no sense."""
        data = self.file.read(_PIECE)
        flags = data[3] if len(data) > 3 else 0
        at = 10
        if flags & 4:  # extra field
            at += 2 + int.from_bytes(data[at : at + 2], "little")
        for flag in (8, 16):  # file name, comment: zero-terminated
            if flags & flag:
                at = data.find(b"\0", at) + 1 or len(data) + 1
        at += 2 if flags & 2 else 0  # header CRC
        if at > len(data):
            self.stop = self.start + len(_MAGIC) if len(data) == _PIECE else self.file.tell()
            self.end = "broken" if len(data) == _PIECE else "cut"
            return None
        return data[at:]
