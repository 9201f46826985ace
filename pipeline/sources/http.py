"""HTTP responses as archives hold them: header fields, and the body with its encodings undone, true or not.

Archives often keep an encoding's header and not the encoding, so a header is a hint: what does not decode is taken as it is.
(RFC 9110 section 8.4, RFC 9112 section 7.1.)
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any

HTTP = b"HTTP"
_END_OF_HEAD = re.compile(rb"\n\r*\n")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP\S*\s+(\d{3})")
_MAX_HEAD = 1 << 18
_STEP = 1 << 20
_GZIP = b"\x1f\x8b"
TOO_LARGE = "too_large"
UNREADABLE = "content_encoding"


@dataclass(slots=True)
class Response:
    """An HTTP message. Header values are as they came; encodings are lower case, "" if none is stated."""

    status: int | None
    content_type: str | None
    charset: str | None
    transfer_encoding: str
    content_encoding: str
    body: bytes


def split_response(block: bytes) -> Response:
    """Header and body of a message. Lines may end in LF, CR LF or CR CR LF; without an empty line all of it is header."""
    end = _END_OF_HEAD.search(block, 0, _MAX_HEAD)
    head, body = (block[: end.start()], block[end.end() :]) if end else (block[:_MAX_HEAD], b"")
    status, *lines = head.split(b"\n")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    content_type = fields.get(b"content-type")
    told = content_type.decode("latin-1") if content_type else None
    charset = _CHARSET.search(told) if told else None
    code = _STATUS.match(status)
    return Response(
        int(code[1]) if code else None,
        told.partition(";")[0].strip().lower() or None if told else None,
        charset[1] if charset else None,
        fields.get(b"transfer-encoding", b"").decode("latin-1").lower(),
        fields.get(b"content-encoding", b"").decode("latin-1").lower(),
        body,
    )


def undo_encodings(response: Response, max_bytes: int) -> bytes | str:
    """The body without its transfer and content encodings; or why not: `too_large`, or `content_encoding` if what is there
    is neither in the stated encoding nor plain text."""
    body = response.body
    if len(body) > max_bytes:
        return TOO_LARGE
    names = [n for field in (response.content_encoding, response.transfer_encoding) for n in re.findall(r"[\w.-]+", field)]
    for name in reversed(names):  # the last one named was put on last
        decoded = _undo(name, body, max_bytes)
        if decoded is None:
            if name not in ("chunked", "identity") and _looks_binary(body):
                return UNREADABLE
            continue
        if len(decoded) > max_bytes:
            return TOO_LARGE
        body = decoded
    return body


def _undo(name: str, body: bytes, max_bytes: int) -> bytes | None:
    """The decoded body; None if it is not in this encoding. A body that was cut gives what it holds."""
    if not body:
        return body
    match name:
        case "chunked":
            return unchunk(body)
        case "gzip" | "x-gzip":
            return _inflate(body, 31, max_bytes) if body.startswith(_GZIP) else None
        case "deflate" | "x-deflate":
            # zlib's format by the standard, raw deflate by custom
            return _inflate(body, zlib.MAX_WBITS, max_bytes) or _inflate(body, -zlib.MAX_WBITS, max_bytes)
        case "br":
            import brotli

            decoder: Any = brotli.Decompressor()
            return _stream(lambda data: decoder.process(data, output_buffer_limit=_STEP), brotli.error, body, max_bytes)
        case "zstd":
            import zstandard

            if not body.startswith(b"\x28\xb5\x2f\xfd"):
                return None
            with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(body) as reader:
                try:
                    return reader.read(max_bytes + 1)
                except zstandard.ZstdError:
                    return None
        case _:
            return None


def unchunk(body: bytes) -> bytes | None:
    """A chunked body put together; None if it is not chunked. Chunks that are cut by the end are taken as far as they go."""
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        line_end = body.find(b"\n", at, at + 256)
        if line_end == -1:
            if at == 0 or len(body) - at > 256:
                return None
            break
        line = body[at:line_end].partition(b";")[0].strip()
        if not line or len(line) > 16 or re.fullmatch(rb"[0-9A-Fa-f]+", line) is None:
            return None
        size = int(line, 16)
        if size == 0:
            return b"".join(parts)
        at = line_end + 1
        parts.append(body[at : at + size])
        at += size
        ending = body[at : at + 2]
        at += 2 if ending == b"\r\n" else 1
        if ending[:1] not in (b"\r", b"\n", b""):
            return None
    return b"".join(parts)


def _inflate(body: bytes, wbits: int, max_bytes: int) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while body and size <= max_bytes:
        inflater = zlib.decompressobj(wbits)
        try:
            while body and not inflater.eof and size <= max_bytes:
                parts.append(inflater.decompress(body, _STEP))
                size += len(parts[-1])
                body = inflater.unconsumed_tail
        except zlib.error:
            break  # damage: what came before it stays
        body = inflater.unused_data
        if wbits != 31 or not body.startswith(_GZIP):
            break
    return b"".join(parts) or None


def _stream(process: Any, error: type[Exception], body: bytes, max_bytes: int) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    try:
        while size <= max_bytes:
            part = process(body)
            body = b""
            if not part:
                break
            parts.append(part)
            size += len(part)
    except error:
        return None
    return b"".join(parts) or None


def _looks_binary(body: bytes) -> bool:
    """Whether a body can be no text: it has control bytes that text in no 8-bit or UTF-8 encoding has."""
    head = body[:1024]
    return len(head.translate(None, bytes(range(7, 14)) + b"\x1b" + bytes(range(32, 256)))) > len(head) // 50
