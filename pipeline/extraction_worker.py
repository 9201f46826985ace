"""The process in which pages are extracted under a limit: `python -m pipeline.extraction_worker` (see `guard`).

Frames on standard input and output, integers little endian. A page: u32 bytes of content, u8 form, u8 bytes of charset (255:
none), charset, content. An answer: u8 (0 text, 1 failure), u32 bytes of title or reason (0xFFFFFFFF: none), u32 bytes of text
or detail, both. The first frame out is an empty failure: the process is ready.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys

from pipeline.extract import Extraction, Failure, Form, Text, extract

PAGE = struct.Struct("<IBB")
ANSWER = struct.Struct("<BII")
NONE = 0xFFFFFFFF
NO_CHARSET = 255
FORMS: tuple[Form, ...] = ("html", "text")


def encode_page(content: bytes, charset: str | None, form: Form) -> list[bytes]:
    """The frame of a page, in parts."""
    label = charset.encode("ascii", "replace")[:254] if charset is not None else b""
    size = len(label) if charset is not None else NO_CHARSET
    return [PAGE.pack(len(content), FORMS.index(form), size) + label, content]


def encode_answer(answer: Text | Failure) -> bytes:
    """The frame of an answer. Surrogates, which no encoding allows, become U+FFFD."""
    first, second = (answer.title, answer.text) if isinstance(answer, Text) else (answer.reason, answer.detail or "")
    head = _utf8(first) if first is not None else b""
    body = _utf8(second)
    return ANSWER.pack(isinstance(answer, Failure), len(head) if first is not None else NONE, len(body)) + head + body


def decode_answer(buffer: bytearray) -> Text | Failure | None:
    """The first answer in a buffer, taken out of it; None if it is not all there."""
    if len(buffer) < ANSWER.size:
        return None
    failed, first, second = ANSWER.unpack_from(buffer)
    size = 0 if first == NONE else first
    stop = ANSWER.size + size + second
    if len(buffer) < stop:
        return None
    head = bytes(buffer[ANSWER.size : ANSWER.size + size]).decode()
    body = bytes(buffer[ANSWER.size + size : stop]).decode()
    del buffer[:stop]
    return Failure(head, body or None) if failed else Text(None if first == NONE else head, body)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def main(method: str, main_content: str, seconds: str, memory: str) -> None:
    """Answer pages until standard input ends. seconds: CPU time per page, after which the kernel ends this process."""
    import logging

    assert method in ("resiliparse", "trafilatura")
    how = Extraction(method, main_content == "1")
    limit = float(seconds)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    # With its default action the signal needs no Python to run, so it ends a C library that never returns.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    logging.disable(logging.CRITICAL)
    pages = os.fdopen(0, "rb", buffering=1 << 16)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not become an answer
    extract(b"<title>a</title><p>warm up", "utf-8", "html", how)  # imports are not the first page's fault
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the parent tells of a crash; backtraces of libraries tell nobody more
    _write(out.fileno(), encode_answer(Failure("")))
    while len(frame := pages.read(PAGE.size)) == PAGE.size:
        size, form, label = PAGE.unpack(frame)
        charset = None if label == NO_CHARSET else pages.read(label).decode("ascii", "replace")
        content = pages.read(size)
        signal.setitimer(signal.ITIMER_PROF, limit)
        answer = extract(content, charset, FORMS[form], how)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(out.fileno(), encode_answer(answer))


def _write(descriptor: int, frame: bytes) -> None:
    view = memoryview(frame)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)
