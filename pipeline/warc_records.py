"""WARC/1.1 records as gzip members, each with its block digest. (ISO 28500:2017.)"""

from __future__ import annotations

import base64
import hashlib
import uuid
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime

from pipeline.exchange import Exchange


def warcinfo(file_name: str, fields: Mapping[str, str], date: datetime) -> bytes:
    """The record that every file begins with."""
    block = "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()
    headers = {"WARC-Filename": file_name, "Content-Type": "application/warc-fields"}
    return _member("warcinfo", _record_id(), date, headers, block)


def exchange_records(exchange: Exchange) -> bytes:
    """The request and the response of an exchange, two members that name each other."""
    request, response = _record_id(), _record_id()
    about = {"WARC-Target-URI": exchange.url, "WARC-IP-Address": exchange.address}
    asked = about | {"WARC-Concurrent-To": response, "Content-Type": "application/http; msgtype=request"}
    answered = about | {
        "WARC-Concurrent-To": request,
        "Content-Type": "application/http; msgtype=response",
        "WARC-Payload-Digest": _digest(exchange.payload),  # with transfer encoding, as crawlers and checkers take it
    }
    if exchange.truncated:
        answered["WARC-Truncated"] = "length"
    return _member("request", request, exchange.date, asked, exchange.request) + _member(
        "response", response, exchange.date, answered, exchange.response
    )


def _record_id() -> str:
    return f"<urn:uuid:{uuid.uuid4()}>"


def _digest(content: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(content).digest()).decode()


def _member(kind: str, record_id: str, date: datetime, headers: Mapping[str, str], block: bytes) -> bytes:
    told = {
        "WARC-Type": kind,
        "WARC-Record-ID": record_id,
        "WARC-Date": date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **headers,
        "WARC-Block-Digest": _digest(block),
        "Content-Length": str(len(block)),
    }
    head = "WARC/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in told.items()) + "\r\n"
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    return deflate.compress(head.encode() + block + b"\r\n\r\n") + deflate.flush()
