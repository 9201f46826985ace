"""Extraction that no page can hang or crash: pages go to a process of their own, which the kernel ends at the time limit.

Why a process: Resiliparse and lxml run in native code, where neither an exception from another thread nor a Python signal
handler is seen before they return. The process sets a CPU timer (ITIMER_PROF) before each page; the signal's default action
ends it wherever it is. CPU time, so that a busy machine does not lose pages; a much longer limit on wall time stands behind it.
The page at fault is rejected, a new process takes the pages after it. Pages are sent ahead, so that neither side waits for the
other, and a page costs two copies through a pipe.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from pipeline.extract import Extraction, Failure, Form, Text, extract
from pipeline.extraction_worker import decode_answer, encode_page

_AHEAD_BYTES = 2 << 20  # pages sent and not answered
_AHEAD_ITEMS = 512
_TURN_BYTES = 1 << 18  # to be sent, before it is tried
_NAP_SPEED = 300e6
"""Bytes per second that no extractor reaches: while the pipe is full, answers may gather for so long."""
_PARTS = 64  # of the frames sent in one call
_PIPE = 1 << 20
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": "268435456", "MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TOP_PAD_": "16777216"}
"""glibc keeps the memory of one page's tree for the next one's, and does not hand it back in between: 3 % of the time."""
_F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ, Linux
_WALL_FACTOR, _WALL_LEAST = 20.0, 60.0


T = TypeVar("T")


@dataclass(slots=True)
class Job:
    """One page to extract. `origin` is the caller's own."""

    origin: object
    content: bytes
    charset: str | None
    form: Form


@dataclass(slots=True)
class _Entry:
    item: object
    answer: Text | Failure | None = None
    tried: bool = False


class Guard:
    """Extracts pages in order. seconds: CPU time per page; 0 extracts in this process, without any limit.

    memory: address space that the process may have, in bytes. One map at a time; `close` when done with all.
    """

    def __init__(self, how: Extraction, seconds: float, memory: int = 4 << 30) -> None:
        self.how = how
        self.seconds = seconds
        self.memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self._entries: deque[_Entry] = deque()  # in the order in which they come out
        self._waiting: deque[_Entry] = deque()  # sent and not answered; the first is being worked on
        self._ahead = 0  # bytes of pages in _waiting
        self._out: deque[memoryview] = deque()
        self._unsent = 0  # bytes in _out, about
        self._turn = _TURN_BYTES  # how many of them are the next try
        self._in = bytearray()
        self._nap = 0.0
        self._ready = False
        self._since = 0.0  # when the first page in _waiting became the first

    def map(self, items: Iterable[T | Job]) -> Iterator[tuple[T | Job, Text | Failure | None]]:
        """Every item in its order: a job with its answer, anything else with None.

        Failures besides those of `extract`: `time_limit`, and `extraction_crashed` for a page that ended two processes.
        RuntimeError if the process cannot be started.
        """
        if self.seconds <= 0:
            for item in items:
                yield item, extract(item.content, item.charset, item.form, self.how) if isinstance(item, Job) else None
            return
        try:
            for item in items:
                entry = _Entry(item)
                self._entries.append(entry)
                if isinstance(item, Job):
                    self._send(entry, item)
                    if self._unsent > self._turn:
                        self._turn = self._unsent + _TURN_BYTES  # a full pipe is not tried again for every page
                        self._pump(0.0)
                yield from self._finished()
                while self._ahead > _AHEAD_BYTES or len(self._entries) > _AHEAD_ITEMS:
                    time.sleep(self._nap)
                    self._pump(None)
                    yield from self._finished()
            while self._entries:
                self._pump(None)
                yield from self._finished()
        finally:
            if self._entries:  # the caller gave up: what is under way must not answer the next one
                self.close()

    @property
    def pid(self) -> int | None:
        """The extracting process, if one runs."""
        return self._process.pid if self._process is not None else None

    def warm_up(self) -> None:
        """Start the process and wait until it is ready, so that the first page does not."""
        for _ in self.map([Job(None, b"<p>ready", "utf-8", "html")]):
            pass

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            _end(self._process)
        self._process = None
        self._entries.clear()
        self._waiting.clear()
        self._ahead = 0

    def _finished(self) -> Iterator[tuple[Any, Text | Failure | None]]:
        while self._entries and (self._entries[0].answer is not None or not isinstance(self._entries[0].item, Job)):
            entry = self._entries.popleft()
            yield entry.item, entry.answer

    def _send(self, entry: _Entry, job: Job) -> None:
        if self._process is None:
            self._start()
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(entry)
        self._ahead += len(job.content)
        self._out.extend(memoryview(part) for part in encode_page(job.content, job.charset, job.form))
        self._unsent += len(job.content)

    def _answer(self, answer: Text | Failure) -> None:
        entry = self._waiting.popleft()
        assert isinstance(entry.item, Job)
        entry.answer = answer
        self._ahead -= len(entry.item.content)
        self._since = time.monotonic()

    def _pump(self, timeout: float | None) -> None:
        """Move what can be moved between the two processes; timeout None waits until something can."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        source, sink = process.stdout.fileno(), process.stdin.fileno()
        poll = select.poll()
        poll.register(source, select.POLLIN)
        if self._out:
            poll.register(sink, select.POLLOUT)
        patience = self._since + max(_WALL_LEAST, _WALL_FACTOR * self.seconds) - time.monotonic()
        events = dict(poll.poll(1000 * (max(patience, 0.0) if timeout is None else timeout)))
        if not events and timeout is None:
            process.kill()
            self._replace(Failure("time_limit", "it neither works nor ends"))
            return
        if sink in events:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):  # a broken pipe shows when reading, too
                self._written(os.writev(sink, list(islice(self._out, _PARTS))))
        if source in events:
            with contextlib.suppress(BlockingIOError):
                data = os.read(source, _PIPE)
                self._in += data
                while (answer := decode_answer(self._in)) is not None:
                    if self._ready:
                        self._answer(answer)
                    self._ready = True
                    self._since = time.monotonic()
                if not data:
                    self._replace(None)

    def _written(self, count: int) -> None:
        self._unsent = max(0, self._unsent - count)
        self._turn = self._unsent + _TURN_BYTES
        while count:
            part = self._out.popleft()
            if len(part) > count:
                self._out.appendleft(part[count:])
                return
            count -= len(part)

    def _replace(self, verdict: Failure | None) -> None:
        """The process has ended: judge the page that it was at, and give the pages after it to a new one."""
        assert self._process is not None
        status = self._process.wait()
        if not self._ready:
            raise RuntimeError(f"the extraction process does not start (status {status}): {self._process.args}")
        _end(self._process)
        self._process = None
        if not self._waiting:
            return
        first = self._waiting[0]
        if verdict is None and status == -signal.SIGPROF:
            verdict = Failure("time_limit", f"more than {self.seconds:g} s of CPU time")
        if verdict is None and first.tried:
            name = signal.Signals(-status).name if status < 0 else f"status {status}"
            verdict = Failure("extraction_crashed", f"the process ended twice at this page, with {name}")
        first.tried = True  # the first time, the fault may be another's: memory that somebody else took, say
        if verdict is not None:
            self._answer(verdict)
        again, self._waiting, self._ahead = self._waiting, deque(), 0
        for entry in again:
            assert isinstance(entry.item, Job)
            self._send(entry, entry.item)

    def _start(self) -> None:
        arguments = [self.how.method, str(int(self.how.main_content)), repr(self.seconds), str(self.memory)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path),
            "PYTHONHASHSEED": "0",  # an extractor's sets must not decide what a page says
            **_MALLOC,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.extraction_worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
        )
        assert process.stdin is not None and process.stdout is not None
        size = 1 << 16
        for pipe in (process.stdin, process.stdout):
            os.set_blocking(pipe.fileno(), False)
            with contextlib.suppress(OSError):  # fewer turns; a user's pipes may be limited
                size = fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _PIPE)
        self._nap = size / _NAP_SPEED
        weakref.finalize(self, _end, process)
        self._process = process
        self._ready = False
        self._in.clear()
        self._out.clear()
        self._unsent, self._turn = 0, _TURN_BYTES
        self._since = time.monotonic()


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    if process.poll() is None:
        process.kill()
        process.wait()
