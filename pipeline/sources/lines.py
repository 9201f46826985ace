"""Lines of a text file that may be compressed, damaged or hostile: bounded memory, and everything good before a fault."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.storage import open_filesystem

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte from 0x50 to 0x5f (RFC 8878, 3.1.2)
_READ = 1 << 16  # small, because what follows a gzip member or a frame in a piece is copied
_GZIP_PIECE = 1 << 20  # bytes that one step may give
_ZSTD_PIECE = 1 << 10  # bytes that one step may take: a zstd block of 4 bytes can stand for 128 KiB


@dataclass(frozen=True, slots=True)
class LineLimits:
    """What a file may cost. line: bytes of one line. expanded: bytes of the whole file after decompression."""

    line: int = 64 << 20
    expanded: int = 1 << 40


DEFAULT_LIMITS = LineLimits()


@dataclass(frozen=True, slots=True)
class Line:
    """One line, without its line feed, numbered from 0 (blank lines count). `ended`: there was a line feed."""

    number: int
    content: bytes
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a line (`number` set) or the rest of the file (`number` None) cannot be had."""

    reason: str
    detail: str
    number: int | None = None
    excerpt: bytes = b""


def read_lines(url: str, limits: LineLimits = DEFAULT_LIMITS) -> Iterator[Line | Fault]:
    """The lines of a plain, gzip or Zstandard file, told apart by content, since many a server unpacks what it serves.

    Faults: `too_large` (one line), `truncated`, `corrupt_gzip`, `corrupt_zstd`, `trailing_data`, `decompression_limit` and
    `unreadable` (the file ends there). A last line without a line feed comes out as a line, before the fault if the file is
    cut there: whoever parses it knows whether it is whole. FileNotFoundError if there is no such file.
    """
    filesystem, path = open_filesystem(url)
    with filesystem.open_input_stream(path, compression=None) as stream:
        yield from split_lines(stream, limits, compressed=path.endswith((".gz", ".zst")))


def split_lines(stream: BinaryIO, limits: LineLimits, compressed: bool = False) -> Iterator[Line | Fault]:
    """As `read_lines`, from an open stream. `compressed`: the name promises compression, so that no byte at all is a fault."""
    number, pending, skipping, expanded = 0, bytearray(), False, 0
    last: Fault | None = None
    for piece in expand(stream, compressed):
        if isinstance(piece, Fault):
            last = piece
            break
        expanded += len(piece)
        if expanded > limits.expanded:
            last = Fault("decompression_limit", f"more than {limits.expanded} bytes after decompression")
            break
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            if skipping:
                skipping = False
            elif len(pending) + end - start > limits.line:
                yield _too_large(number, bytes(pending) + piece[start:end], limits)
                pending.clear()
            else:
                pending += piece[start:end]
                yield Line(number, bytes(pending))
                pending.clear()
            number, start = number + 1, end + 1
        if not skipping:
            pending += piece[start:]
            if len(pending) > limits.line:
                yield _too_large(number, bytes(pending), limits)
                pending.clear()
                skipping = True
    if pending:
        yield Line(number, bytes(pending), ended=False)
    if last is not None:
        yield last


def _too_large(number: int, start: bytes, limits: LineLimits) -> Fault:
    return Fault("too_large", f"line {number} has more than {limits.line} bytes", number, start[:8000])


def expand(stream: BinaryIO, compressed: bool = False) -> Iterator[bytes | Fault]:
    """The decompressed content in pieces of at most 32 MiB; a fault, if there is one, comes last."""
    source = _Pieces(stream)
    try:
        head = source.peek(4)
        if not head and compressed:
            yield Fault("truncated", "the file is empty, which no compressed file is")
        elif head.startswith(_GZIP):
            yield from _gunzip(source)
        elif head.startswith(_ZSTD) or _is_skippable(head):
            yield from _unzstd(source)
        else:
            while piece := source.take():
                yield piece
    except OSError as error:
        yield Fault("unreadable", str(error))


class _Pieces:
    """A stream read in pieces, with what a decompressor gave back in front."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._front = stream, b""

    def peek(self, size: int) -> bytes:
        while len(self._front) < size and (piece := self._stream.read(_READ)):
            self._front += piece
        return self._front[:size]

    def take(self) -> bytes:
        piece, self._front = self._front, b""
        return piece or self._stream.read(_READ)

    def skip(self, size: int) -> bool:
        """Whether there were so many bytes to skip."""
        while size > 0:
            if not (piece := self.take()):
                return False
            self.give_back(piece[size:])
            size -= min(size, len(piece))
        return True

    def give_back(self, piece: bytes) -> None:
        self._front = piece + self._front


def _gunzip(source: _Pieces) -> Iterator[bytes | Fault]:
    while source.peek(2).startswith(_GZIP):
        member = zlib.decompressobj(31)
        while not member.eof:
            piece = source.take()
            if not piece:
                yield Fault("truncated", "the last gzip member is not complete")
                return
            while piece and not member.eof:
                before = member.copy()
                try:
                    out = member.decompress(piece, _GZIP_PIECE)
                except zlib.error as error:
                    yield _salvage(before.decompress, piece)
                    yield Fault("corrupt_gzip", str(error))
                    return
                if out:
                    yield out
                piece = member.unconsumed_tail
        source.give_back(member.unused_data)
        while source.peek(1) == b"\0":  # padding between or after members is allowed
            source.give_back(source.take().lstrip(b"\0"))
    if rest := source.peek(16):
        yield Fault("trailing_data", f"what follows the last gzip member is none: {rest!r}")


def _salvage(decompress: Callable[[bytes], bytes], piece: bytes) -> bytes:
    """What a decompressor gives before it fails, fed byte by byte."""
    out = bytearray()
    try:
        for position in range(len(piece)):
            out += decompress(piece[position : position + 1])
            if len(out) > _GZIP_PIECE:
                break
    except zlib.error:
        pass
    return bytes(out)


def _is_skippable(head: bytes) -> bool:
    return head[1:4] == _SKIPPABLE and head[0] >> 4 == 5


def _unzstd(source: _Pieces) -> Iterator[bytes | Fault]:
    import zstandard

    unpack = zstandard.ZstdDecompressor()  # refuses windows above 128 MiB, so memory is bounded
    while head := source.peek(8):
        if _is_skippable(head):
            if not source.skip(8 + int.from_bytes(head[4:], "little")):
                yield Fault("truncated", "the last Zstandard frame is not complete")
                return
            continue
        if not head.startswith(_ZSTD):
            yield Fault("trailing_data", f"what follows the last Zstandard frame is none: {head!r}")
            return
        frame = unpack.decompressobj()
        while not frame.eof:
            piece = source.take()
            if not piece:
                yield Fault("truncated", "the last Zstandard frame is not complete")
                return
            position = 0
            while position < len(piece) and not frame.eof:
                try:
                    out = frame.decompress(piece[position : position + _ZSTD_PIECE])
                except zstandard.ZstdError as error:
                    yield Fault("corrupt_zstd", str(error))
                    return
                position += _ZSTD_PIECE
                if out:
                    yield out
            source.give_back(frame.unused_data + piece[position:])
