"""How channels are grouped where something of each is kept between passes."""

from __future__ import annotations

from collections.abc import Iterator

# What the passes of a class of rows may keep between them, in bytes; two classes may run side by side.
WORKSPACE = 2 << 30


def groups(channels: int, each: int) -> Iterator[tuple[int, int]]:
    """First channel and number of channels of groups of nearly equal size that fit the workspace.

    each: bytes of a channel. A group has at least one channel.
    """
    count = -(-channels // max(1, WORKSPACE // each))
    for i in range(count):
        first = channels * i // count
        yield first, channels * (i + 1) // count - first
