"""Small archives for tests, written byte by byte from the formats' descriptions."""

from __future__ import annotations

import base64
import gzip
import hashlib


def block_digest(block: bytes) -> str:
    """As Common Crawl writes it."""
    return "sha1:" + base64.b32encode(hashlib.sha1(block).digest()).decode()


def warc_record(
    kind: str, block: bytes, uri: str | None = "http://a.test/", *, digest: bool = True, length: int | None = None
) -> bytes:
    """One WARC/1.0 record with the two line ends behind it."""
    name = hashlib.md5(block).hexdigest()
    lines = ["WARC/1.0", f"WARC-Type: {kind}", "WARC-Date: 2024-05-01T00:00:00Z", f"WARC-Record-ID: <urn:test:{name}>"]
    if uri is not None:
        lines.append(f"WARC-Target-URI: {uri}")
    if digest:
        lines.append(f"WARC-Block-Digest: {block_digest(block)}")
    lines.append(f"Content-Length: {len(block) if length is None else length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + block + b"\r\n\r\n"


def response(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    """An HTTP response; its Content-Type is text/html unless a field says otherwise."""
    kinds = [] if any(f.lower().startswith("content-type") for f in fields) else ["Content-Type: text/html; charset=utf-8"]
    return "\r\n".join([f"HTTP/1.1 {status}", *kinds, *fields, "", ""]).encode() + body


def members(*records: bytes) -> bytes:
    """One gzip member per record, always the same bytes."""
    return b"".join(gzip.compress(record, mtime=0) for record in records)
