"""Which component gives each sequence of a run: exact weights in tokens at every moment, from the sequence's number alone.

The j-th sequence of a component (from 1) may come once the component's target has passed j - 1, and is due when the
target reaches j; of those that may come, the one due first does. That is fair scheduling of one resource (Baruah, Cohen,
Plaxton & Varvel, "Proportionate progress", Algorithmica 1996): earliest deadline first meets every deadline, so that at
every prefix each component is less than one sequence from its target, however the weights change on the way.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_UNIT = 1 << 40
"""Weights are whole multiples of 2^-40, so that arithmetic is exact; the rounding costs less than one sequence in 10^12."""

_BLOCK = 1 << 14
"""Sequences scheduled at once. Within a block, amounts fit int64: 2^14 sequences of 2^40 units."""

_NEVER = 1 << 62


class Mixture:
    """The order of components over a run.

    phases: (first sequence, weight by component), ascending, the first at 0. Components keep the order of the first phase's
    mapping. `components(start, stop)` takes time in proportion to stop - start near earlier questions; a jump ahead costs
    about half a second per million sequences once, unless `remember` was told the counts there.
    """

    def __init__(self, phases: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        assert phases
        assert phases[0][0] == 0
        self.names = list(phases[0][1])
        self._starts = [start for start, _ in phases]
        self._shares = [_shares([weights.get(name, 0.0) for name in self.names]) for _, weights in phases]
        self._passed = [[0] * len(self.names)]  # target of each component, in units, where each phase starts
        for (start, stop), shares in zip(zip(self._starts, self._starts[1:], strict=False), self._shares, strict=False):
            self._passed.append([p + (stop - start) * q for p, q in zip(self._passed[-1], shares, strict=True)])
        self._known: list[tuple[int, tuple[int, ...]]] = [(0, (0,) * len(self.names))]
        self._block = lru_cache(64)(self._schedule)

    def target(self, sequences: int) -> npt.NDArray[np.float64]:
        """Sequences of each component that exact weights would give the first `sequences` of a run. (components,)"""
        return np.array([units / _UNIT for units in self._target_units(sequences)])

    def counts(self, sequences: int) -> tuple[int, ...]:
        """Sequences of each component among the first `sequences` of a run; each within one of `target`."""
        if (known := self._known_at(sequences)) is not None:
            return known
        start, counts, order = self._block_before(sequences)
        added = np.bincount(order[: sequences - start], minlength=len(self.names))
        return tuple(int(c + a) for c, a in zip(counts, added, strict=True))

    def components(self, start: int, stop: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The component of each sequence in [start, stop), and how many of that component came before it in the run."""
        numbers = np.empty(stop - start, np.int64)
        ranks = np.empty(stop - start, np.int64)
        at = start
        while at < stop:
            begin, counts, order = self._block_before(at + 1)
            end = min(stop, begin + len(order))
            for k, count in enumerate(counts):
                mine = np.flatnonzero(order[: end - begin] == k)
                rank = np.arange(count, count + len(mine))
                inside = mine >= at - begin
                numbers[mine[inside] + begin - start] = k
                ranks[mine[inside] + begin - start] = rank[inside]
            at = end
        return numbers, ranks

    def remember(self, sequences: int, counts: Mapping[str, int]) -> None:
        """Take the counts at a position as known, so that a resumed run need not count. ValueError if they cannot be."""
        values = tuple(int(counts.get(name, 0)) for name in self.names)
        near = all(abs(c * _UNIT - t) < _UNIT for c, t in zip(values, self._target_units(sequences), strict=True))
        if sum(values) != sequences or not near or set(counts) - set(self.names):
            raise ValueError(
                f"{dict(counts)} cannot be this mixture's counts after {sequences} sequences: keep the weights of the steps "
                "that are done, and put new ones into the schedule"
            )
        self._insert(sequences, values)

    def _known_at(self, sequences: int) -> tuple[int, ...] | None:
        place = bisect_right(self._known, sequences, key=lambda known: known[0]) - 1
        return self._known[place][1] if self._known[place][0] == sequences else None

    def _insert(self, sequences: int, counts: tuple[int, ...]) -> None:
        if self._known_at(sequences) is None:
            self._known.insert(bisect_right(self._known, sequences, key=lambda known: known[0]), (sequences, counts))

    def _block_before(self, sequences: int) -> tuple[int, tuple[int, ...], npt.NDArray[np.uint16]]:
        """The block that holds sequence `sequences` - 1: its start, the counts there, its components."""
        while True:
            place = bisect_right(self._known, sequences - 1, key=lambda known: known[0]) - 1
            start, counts = self._known[place]
            order = self._block(start, counts)
            end = start + len(order)
            if end >= sequences:
                return start, counts, order
            added = np.bincount(order, minlength=len(counts))
            self._insert(end, tuple(int(c + a) for c, a in zip(counts, added, strict=True)))

    def _schedule(self, start: int, counts: tuple[int, ...]) -> npt.NDArray[np.uint16]:
        """Earliest deadline first from `start`, where `counts` are done, to the end of the block or of the phase."""
        phase = bisect_right(self._starts, start) - 1
        following = self._starts[phase + 1] if phase + 1 < len(self._starts) else start + _BLOCK
        length = min(_BLOCK - start % _BLOCK, following - start)
        releases, dues, owners = [], [], []
        for k, (passed, share) in enumerate(zip(self._target_units(start), self._shares[phase], strict=True)):
            # Amounts in units past the target at `start`; the j-th sequence waits for j - 1 and is due at j, whole sequences.
            first = (counts[k] + 1) * _UNIT - passed
            jobs = max(-((first - _UNIT - length * share) // _UNIT), 0)  # those that may come before the block ends
            ends = first + _UNIT * np.arange(jobs, dtype=np.int64)
            release = np.zeros(jobs, np.int64) if share == 0 else np.maximum(ends - _UNIT, 0) // share
            due = np.full(jobs, _NEVER) if share == 0 else -(-ends // share)
            for j in np.flatnonzero(due > length):  # at most the last: due after this block, perhaps under other weights
                due[j] = self._when(k, (counts[k] + int(j) + 1) * _UNIT) - start
            releases.append(release)
            dues.append(due)
            owners.append(np.full(jobs, k))
        release, due, owner = (np.concatenate(parts) for parts in (releases, dues, owners))
        by_release = np.argsort(release, kind="stable")
        # One integer per job, ordered by due date, then component.
        keys = [d * len(counts) + o for d, o in zip(due[by_release].tolist(), owner[by_release].tolist(), strict=True)]
        return _earliest_due_first(release[by_release].tolist(), keys, length, len(counts))

    def _target_units(self, sequences: int) -> list[int]:
        phase = bisect_right(self._starts, sequences) - 1
        ahead = sequences - self._starts[phase]
        return [p + ahead * q for p, q in zip(self._passed[phase], self._shares[phase], strict=True)]

    def _when(self, k: int, units: int) -> int:
        """The first sequence count at which the target of component k has reached `units`."""
        for phase in range(len(self._starts)):
            last = phase + 1 == len(self._starts)
            share = self._shares[phase][k]
            if last or self._passed[phase + 1][k] >= units:
                return self._starts[phase] + -(-(units - self._passed[phase][k]) // share) if share else _NEVER
        raise AssertionError("unreachable: the last phase has no end")


def _earliest_due_first(release: list[int], keys: list[int], length: int, components: int) -> npt.NDArray[np.uint16]:
    order = np.empty(length, np.uint16)
    waiting: list[int] = []
    at, jobs = 0, len(release)
    for slot in range(length):
        while at < jobs and release[at] <= slot:
            heapq.heappush(waiting, keys[at])
            at += 1
        # Never empty: what may have come by now is at least the sum of all targets, which is slot + 1.
        order[slot] = heapq.heappop(waiting) % components
    return order


def _shares(weights: Sequence[float]) -> list[int]:
    """Weights as whole units that sum to exactly `_UNIT`, by largest remainder; a positive weight stays positive."""
    from fractions import Fraction

    total = sum(map(Fraction, weights))
    assert total > 0
    exact = [Fraction(w) * _UNIT / total for w in weights]
    shares = [max(int(e), 1) if e > 0 else 0 for e in exact]
    left = _UNIT - sum(shares)
    for k in sorted(range(len(shares)), key=lambda k: (shares[k] - exact[k], k)):
        if left == 0:
            break
        step = 1 if left > 0 else -1
        if exact[k] > 0 and shares[k] + step > 0:
            shares[k] += step
            left -= step
    shares[max(range(len(shares)), key=shares.__getitem__)] += left  # what several weights below one unit took together
    assert sum(shares) == _UNIT
    return shares
