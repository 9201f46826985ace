"""Joining spans by Allen's interval relations (Allen 1983, CACM 26, section 3), exactly, in time near the pairs found."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numba
import numpy as np

from labelers.spans import Spans, _same_documents, line

RELATIONS = (
    "before", "meets", "overlaps", "starts", "during", "finishes", "equals",
    "finished_by", "contains", "started_by", "overlapped_by", "met_by", "after",
)  # fmt: skip
"""Allen's thirteen: of any two spans of a document that are not empty, exactly one holds."""

UNIONS = {
    "intersects": (
        "overlaps",
        "starts",
        "during",
        "finishes",
        "equals",
        "finished_by",
        "contains",
        "started_by",
        "overlapped_by",
    ),
    "within": ("starts", "during", "finishes", "equals"),
    "covers": ("started_by", "contains", "finished_by", "equals"),
    "touches": ("meets", "met_by"),
    "disjoint": ("before", "meets", "met_by", "after"),
}
"""Names for unions of relations. `intersects`: the spans share a character."""

_INVERSE = {"overlapped_by": "overlaps", "during": "contains", "started_by": "starts", "finished_by": "finishes",
            "met_by": "meets", "after": "before"}  # fmt: skip


def join(
    one: Spans, two: Spans, on: str | Sequence[str] = "intersects", within: tuple[int, int | None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (i, j), as two int64 arrays sorted by i, then j: span i of `one` stands in a relation to span j of `two`.

    on: one of `RELATIONS` or `UNIONS`, or several. within: least and most (None: any) characters between two spans, for
    `before` and `after`, which relate almost everything to everything. Empty spans relate to nothing. O((a + b) log + k log)
    for k pairs, whatever other relations the spans stand in. ValueError on an unknown relation or other documents.
    """
    _same_documents(one, two)
    wanted = _wanted(on)
    least, most = within if within is not None else (1, None)
    if within is not None and not {"before", "after"} & set(wanted):
        raise ValueError(f"within bounds the gap of before and after; this joins on {', '.join(wanted)}")
    if least < 1 or (most is not None and most < least):
        raise ValueError(
            f"within ({least}, {most}): the gap is at least 1 (spans without one meet), and most is not below least"
        )
    rows = [np.flatnonzero(s.start < s.end) for s in (one, two)]
    a, b = (s if len(r) == len(s) else s.select(r) for s, r in zip((one, two), rows, strict=True))
    if not len(a) or not len(b):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    shift = line(a, b)
    ends = np.append(shift[1:], np.iinfo(np.int64).max // 2)
    forward, backward = _Line(a, shift, ends), _Line(b, shift, ends)
    if set(wanted) == set(UNIONS["intersects"]):
        found = [_intersects(forward, backward)]
    else:
        found = []
        for relation in wanted:
            if relation in _INVERSE:
                j, i = _relate(_INVERSE[relation], backward, forward, least, most)
            else:
                i, j = _relate(relation, forward, backward, least, most)
            found.append((i, j))
    i, j = (np.concatenate(parts) for parts in zip(*found, strict=True))
    i, j = _in_order(i, j, len(a), len(b))
    return rows[0][i], rows[1][j]


def _in_order(i: np.ndarray, j: np.ndarray, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
    if a * b > np.iinfo(np.int64).max:
        order = np.lexsort((j, i))
        return i[order], j[order]
    key = np.sort(i * b + j)  # one integer a pair: several times faster than sorting by two keys
    return np.divmod(key, b)


def _wanted(on: str | Sequence[str]) -> list[str]:
    names = [on] if isinstance(on, str) else list(on)
    if not names:
        raise ValueError("name at least one relation of spans")
    for name in names:
        if name not in RELATIONS and name not in UNIONS:
            raise ValueError(f"there is no relation {name!r} of spans; there are: {', '.join((*RELATIONS, *UNIONS))}")
    chosen = {r for name in names for r in UNIONS.get(name, (name,))}
    return [r for r in RELATIONS if r in chosen]


class _Line:
    """Spans with all documents behind each other, sorted by start and, when asked for, by end."""

    def __init__(self, spans: Spans, shift: np.ndarray, ends: np.ndarray) -> None:
        self.start, self.end = spans.start + shift[spans.document], spans.end + shift[spans.document]
        self.document_start, self.document_end = shift[spans.document], ends[spans.document]
        self._trees: dict[bool, np.ndarray] = {}

    @cached_property
    def by_end(self) -> np.ndarray:
        """Order by end, then start."""
        return np.lexsort((self.start, self.end))

    def tree(self, largest: bool) -> np.ndarray:
        """A segment tree of the largest (or smallest) end over runs of spans in the order of their starts."""
        if largest not in self._trees:
            self._trees[largest] = _tree(self.end if largest else -self.end)
        return self._trees[largest]


def _relate(relation: str, a: _Line, b: _Line, least: int, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    if relation == "before":
        low = np.searchsorted(b.start, a.end + least, "left")
        bound = a.document_end if most is None else np.minimum(a.end + most + 1, a.document_end)
        return _expand(low, np.searchsorted(b.start, bound, "left"))
    if relation == "meets":
        return _expand(np.searchsorted(b.start, a.end, "left"), np.searchsorted(b.start, a.end, "right"))
    if relation in ("equals", "starts"):
        low, high = np.searchsorted(b.start, a.start, "left"), np.searchsorted(b.start, a.start, "right")
        if relation == "starts":  # a run of equal starts is sorted by end: the ends after this one
            return _expand(_bound(b.end, low, high, a.end, right=True), high)
        return _expand(_bound(b.end, low, high, a.end), _bound(b.end, low, high, a.end, right=True))
    if relation == "finishes":
        order = b.by_end
        end, start = b.end[order], b.start[order]
        low, high = np.searchsorted(end, a.end, "left"), np.searchsorted(end, a.end, "right")
        i, at = _expand(low, _bound(start, low, high, a.start))  # a run of equal ends is sorted by start
        return i, order[at]
    low, high = np.searchsorted(b.start, a.start, "right"), np.searchsorted(b.start, a.end, "left")
    if relation == "overlaps":  # starts inside a, ends after it
        return _report(b.tree(True), len(b.start), low, high, a.end)
    assert relation == "contains"  # starts inside a, ends before it
    return _report(b.tree(False), len(b.start), low, high, -a.end)


def _intersects(a: _Line, b: _Line) -> tuple[np.ndarray, np.ndarray]:
    """Each pair once: either the second starts in the first, or the first starts in the second and later than it."""
    i, j = _expand(np.searchsorted(b.start, a.start, "left"), np.searchsorted(b.start, a.end, "left"))
    j2, i2 = _expand(np.searchsorted(a.start, b.start, "right"), np.searchsorted(a.start, b.end, "left"))
    return np.concatenate((i, i2)), np.concatenate((j, j2))


def _expand(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All (i, j) with low[i] <= j < high[i]."""
    counts = np.maximum(high - low, 0)
    i = np.repeat(np.arange(len(low)), counts)
    return i, np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts - low, counts)


def _bound(values: np.ndarray, low: np.ndarray, high: np.ndarray, value: np.ndarray, right: bool = False) -> np.ndarray:
    """Where each value belongs in its own run values[low:high], which is sorted: `searchsorted`, run by run."""
    low, high = low.copy(), high.copy()
    open_ = np.flatnonzero(low < high)
    while open_.size:
        middle = (low[open_] + high[open_]) // 2
        at, wanted = values[middle], value[open_]
        after = (at <= wanted) if right else (at < wanted)
        low[open_[after]] = middle[after] + 1
        high[open_[~after]] = middle[~after]
        open_ = open_[low[open_] < high[open_]]
    return low


def _tree(values: np.ndarray) -> np.ndarray:
    """Maxima over halves of halves: node 1 is the root, node size + i the i-th value."""
    size = 1 << (len(values) - 1).bit_length()
    nodes = np.full(2 * size, np.iinfo(np.int64).min)
    nodes[size : size + len(values)] = values
    while size > 1:
        nodes[size // 2 : size] = nodes[size : 2 * size].reshape(-1, 2).max(axis=1)
        size //= 2
    return nodes


@numba.njit(cache=True)
def _report_into(
    nodes: np.ndarray, low: np.ndarray, high: np.ndarray, above: np.ndarray, first: np.ndarray, second: np.ndarray
) -> int:
    """Write (i, j) for every j of run i whose value is above `above[i]`, if there is room; the number of pairs."""
    size = len(nodes) // 2
    found = 0
    stack = np.empty((64, 3), np.int64)
    for i in range(len(low)):
        if low[i] >= high[i]:
            continue
        depth = 1
        stack[0, 0], stack[0, 1], stack[0, 2] = 1, 0, size
        while depth:
            depth -= 1
            node, start, stop = stack[depth, 0], stack[depth, 1], stack[depth, 2]
            if start >= high[i] or stop <= low[i] or nodes[node] <= above[i]:
                continue
            if stop - start == 1:
                if found < len(first):
                    first[found], second[found] = i, start
                found += 1
                continue
            middle = (start + stop) // 2
            stack[depth, 0], stack[depth, 1], stack[depth, 2] = 2 * node + 1, middle, stop
            stack[depth + 1, 0], stack[depth + 1, 1], stack[depth + 1, 2] = 2 * node, start, middle
            depth += 2
    return found


def _report(nodes: np.ndarray, n: int, low: np.ndarray, high: np.ndarray, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    room = max(len(low), n)
    while True:  # once if the pairs fit, else a second time with the room that the first one counted
        first, second = np.empty(room, np.int64), np.empty(room, np.int64)
        found = _report_into(nodes, low, high, above, first, second)
        if found <= room:
            return first[:found], second[:found]
        room = found
