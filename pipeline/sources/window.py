"""A view that moves over the pieces of a file, and knows where gzip members ended and where bytes were skipped."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from pipeline.sources.gzip_members import End, Piece

_BREAKS = ("broken", "cut", "too_large")


class Window:
    """Bytes from `position` on, as many as were asked for. Distances count decompressed bytes from the position."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._buffer = bytearray()
        self._ended = False
        self.position = 0
        self._borders: deque[tuple[int, End]] = deque()  # where members ended, at or after the position
        self._junk: deque[tuple[int, int]] = deque()  # where raw bytes were skipped, and how many

    def fill(self, count: int) -> int:
        """Have `count` bytes at hand if the file has them; returns how many there are."""
        while len(self._buffer) < count and not self._ended:
            self._step()
        return len(self._buffer)

    def peek(self, count: int, start: int = 0) -> bytes:
        """Up to `count` bytes, from distance `start`."""
        self.fill(start + count)
        return bytes(self._buffer[start : start + count])

    def advance(self, count: int) -> None:
        """Move on, over bytes that are at hand."""
        assert count <= len(self._buffer)
        del self._buffer[:count]
        self.position += count
        while self._borders and self._borders[0][0] < self.position:
            self._borders.popleft()

    def blanks(self, start: int, within: int) -> int:
        """How many CR and LF lie at distance `start`, at most `within`."""
        count = 0
        while count < within:
            here = self.peek(min(within - count, 1024), start + count)
            blank = len(here) - len(here.lstrip(b"\r\n"))
            count += blank
            if blank < len(here) or not here:
                break
        return count

    def borders(self, first: int, last: int) -> Iterator[tuple[int, End]]:
        """The member ends at a distance from `first` to `last`, both included, as far as the file has been read."""
        for offset, end in self._borders:
            if first <= offset - self.position <= last:
                yield offset - self.position, end

    def breaks(self, distance: int) -> bool:
        """Whether bytes are missing inside the next `distance`: a member that broke off there, or bytes of no member."""
        gaps = (at for at, end in self.borders(1, distance - 1) if end in _BREAKS)
        return next(gaps, None) is not None or any(0 < offset - self.position < distance for offset, _ in self._junk)

    def breaks_here(self) -> bool:
        """Whether a member broke off right at the position."""
        return any(end in _BREAKS for _, end in self.borders(0, 0))

    def take_junk(self) -> int:
        """Raw bytes that were skipped up to the position, and not yet told of."""
        count = 0
        while self._junk and self._junk[0][0] <= self.position:
            count += self._junk.popleft()[1]
        return count

    def resume(self, pattern: re.Pattern[bytes], first: int) -> int:
        """Move to the next member, or to the next match of a pattern (of at most 64 bytes) at a line's start if that comes
        first, at least `first` (> 0) bytes on; else to the end. Returns how many bytes were passed over."""
        began = self.position
        self.advance(min(first - 1, self.fill(first)))
        while True:
            size = self.fill(1 << 16)
            border = next((at for at, _ in self.borders(1, size)), None)
            stop = size if border is None else border
            match = pattern.search(self._buffer, 0, stop if border is not None or self._ended else size)
            if match is not None:
                self.advance(match.start() + 1)  # the match begins with the line feed before
                break
            if border is not None or self._ended:
                self.advance(stop)
                break
            self.advance(max(size - 64, 1))
        return self.position - began

    def _step(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            self._ended = True
            return
        offset = self.position + len(self._buffer)
        if piece.junk:
            self._junk.append((offset, piece.junk))
        self._buffer += piece.data
        if piece.end is not None:
            self._borders.append((offset, piece.end))
