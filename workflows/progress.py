"""What a build shows while it runs: one bar per stage on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from pipeline.receipt import Receipt

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_LINE_EVERY = 10.0  # seconds between plain lines of one stage


class Progress:
    """Reports stages to `stream` (standard error by default). `quiet` shows nothing."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet

    def show(self, told: object) -> None:
        """Print a line, or anything else that rich can draw, between two stages."""
        if not self._quiet:
            from rich.console import Console

            # A line may name files and documents: brackets in it are no mark-up, and no width cuts it.
            line = isinstance(told, str)
            Console(file=self._stream).print(told, markup=not line, highlight=not line, soft_wrap=line)

    @contextmanager
    def stage(self, name: str, total: int, done: Sequence[Receipt] = ()) -> Iterator[StageProgress]:
        """Follow one stage: `total` tasks, of which `done` were there already."""
        if self._quiet or not self._stream.isatty():
            report = StageProgress(name, total, done)
            report.sink = None if self._quiet else self._stream
            yield report
            report.close()
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<24}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=Console(file=self._stream)) as bars:
            report = StageProgress(name, total, done)
            report.follow(bars)
            yield report
            report.close()


class StageProgress:
    """Counts of one stage, as its receipts come in."""

    def __init__(self, name: str, total: int, done: Sequence[Receipt]) -> None:
        self.name, self.total, self.finished, self.reused = name, total, len(done), len(done)
        self.documents = self.bytes = 0
        self.drops: Counter[str] = Counter()
        self.sink: TextIO | None = None
        self._begun = self._told = time.monotonic()
        self._bars: Bars | None = None
        self._task: TaskID | None = None

    def follow(self, bars: Bars) -> None:
        self._bars = bars
        self._task = bars.add_task(self.name, total=self.total or 1, completed=self.finished, told=self._summary())

    def advance(self, receipt: Receipt) -> None:
        """Count one more receipt."""
        self.finished += 1
        self.documents += receipt.rows_in
        self.bytes += receipt.bytes_in
        self.drops.update(receipt.drops)
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=1, told=self._summary())
        elif self.sink is not None and self.finished < self.total and time.monotonic() - self._told > _LINE_EVERY:
            self._told = time.monotonic()
            print(f"{self.name}: {self.finished}/{self.total} {self._summary()}", file=self.sink, flush=True)

    def tell(self, told: str) -> None:
        """Show a line of the stage's own, such as a training step."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, told=told)
        elif self.sink is not None:
            print(f"{self.name}: {told}", file=self.sink, flush=True)

    def close(self) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=self.total or 1, told=self._summary())
        elif self.sink is not None:
            print(f"{self.name}: {self.finished}/{self.total} {self._summary()}", file=self.sink, flush=True)

    def _summary(self) -> str:
        if self.finished and self.finished == self.reused:
            return "up to date"
        seconds = max(time.monotonic() - self._begun, 1e-9)
        told = [f"{self.documents:,} documents"] if self.documents else []
        if self.bytes:
            told.append(f"{self.bytes / 1e6 / seconds:.1f} MB/s")
        if self.drops:
            told.append(f"{sum(self.drops.values()):,} dropped")
        told.append(f"{seconds:.1f} s")
        return ", ".join(told)
