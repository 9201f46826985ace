"""HTTP bodies as archives hold them: encoded, plain under an encoding's name, cut, or bombs."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.archive import ArchiveSource
from pipeline.sources.http import split_response, unchunk, undo_encodings
from pipeline.sources.record import Page
from tests.pipeline.archives import response

BODY = b"<html><p>" + b"The same page in every encoding. " * 40 + b"</html>"


def chunked(body: bytes, size: int = 100) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x;x=y\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


def raw_deflate(body: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(body) + deflater.flush()


def body_of(stored: bytes, *fields: str, limit: int = 1 << 20) -> bytes | str:
    return undo_encodings(split_response(response(stored, *fields)), limit)


@pytest.mark.parametrize(
    ("stored", "fields"),
    [
        (BODY, ()),
        (gzip.compress(BODY), ("Content-Encoding: gzip",)),
        (gzip.compress(BODY[:300]) + gzip.compress(BODY[300:]), ("Content-Encoding: x-gzip",)),
        (zlib.compress(BODY), ("Content-Encoding: deflate",)),
        (raw_deflate(BODY), ("Content-Encoding: deflate",)),
        (brotli.compress(BODY), ("content-encoding: BR",)),
        (zstandard.compress(BODY), ("Content-Encoding: zstd",)),
        (chunked(BODY), ("Transfer-Encoding: chunked",)),
        (chunked(gzip.compress(BODY)), ("Transfer-Encoding: chunked", "Content-Encoding: gzip")),
        (chunked(gzip.compress(BODY)), ("Transfer-Encoding: gzip, chunked",)),
        (BODY, ("Content-Encoding: gzip",)),
        (BODY, ("Content-Encoding: br",)),
        (BODY, ("Content-Encoding: deflate",)),
        (BODY, ("Content-Encoding: none-such",)),
        (BODY, ("Transfer-Encoding: chunked",)),
        (gzip.compress(BODY), ("Transfer-Encoding: chunked", "Content-Encoding: gzip")),
    ],
    ids=lambda value: (
        f"{len(value)}" if isinstance(value, bytes) else ", ".join(value)
    ),  # bytes as names would differ between workers: a gzip header holds the time
)
def test_a_page_is_the_same_whatever_its_encoding(stored: bytes, fields: tuple[str, ...]) -> None:
    assert body_of(stored, *fields) == BODY


def test_the_reference_page_is_the_same_in_eight_encodings(shared) -> None:
    pages = [p for p in ArchiveSource().read(str(shared / "broken/made-content-encodings.warc.gz")) if isinstance(p, Page)]
    assert len(pages) == 8 and len({p.content for p in pages}) == 1


def test_a_cut_body_gives_what_it_holds() -> None:
    assert body_of(gzip.compress(BODY, 0)[:700], "Content-Encoding: gzip").startswith(BODY[:600])
    assert body_of(chunked(BODY)[:700], "Transfer-Encoding: chunked").startswith(BODY[:500])


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress, brotli.compress, zstandard.compress])
def test_a_bomb_is_too_large(encode) -> None:
    name = {"compress": encode.__module__.partition(".")[0]}["compress"]
    label = {"gzip": "gzip", "zlib": "deflate", "brotli": "br", "_brotli": "br"}.get(name, "zstd")
    assert body_of(encode(bytes(30_000_000)), f"Content-Encoding: {label}") == "too_large"


def test_bytes_in_no_known_form_are_refused() -> None:
    assert body_of(bytes(range(256)) * 8, "Content-Encoding: br") == "content_encoding"


@given(st.binary(max_size=400), st.integers(1, 50))
def test_chunks_come_together(body: bytes, size: int) -> None:
    assert unchunk(chunked(body, size)) == body


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate", "br", "zstd", "chunked", "gzip, br, deflate"]))
def test_any_body_under_any_label_is_read_without_an_error(body: bytes, label: str) -> None:
    assert isinstance(body_of(body, f"Content-Encoding: {label}", f"Transfer-Encoding: {label}"), (bytes, str))


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r\r\n"])
def test_header_lines_end_as_they_like(end: bytes) -> None:
    block = end.join([b"HTTP/1.0 302 ", b'Content-Type: Text/HTML; Charset="EUC-JP"', b"", b""]) + b"<p>"
    got = split_response(block)
    assert (got.status, got.content_type, got.charset, got.body) == (302, "text/html", "EUC-JP", b"<p>")
