"""From a page to its text: Resiliparse or trafilatura, one page at a time, with no limit on time (see `guard` for that)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.sources.charset import decode
from pipeline.sources.wet import strip_lines

Method = Literal["resiliparse", "trafilatura"]
Form = Literal["html", "text"]


@dataclass(frozen=True, slots=True)
class Extraction:
    """How text is taken from pages. main_content: without navigation and the like; else all visible text."""

    method: Method = "resiliparse"
    main_content: bool = True


@dataclass(slots=True)
class Text:
    """What a page says. Lines of `text` are stripped; empty ones are kept."""

    title: str | None
    text: str


@dataclass(slots=True)
class Failure:
    """Why a page gave no text: a reason that is counted, and a detail for people."""

    reason: str
    detail: str | None = None


_HTML = {"text/html", "application/xhtml+xml", "application/vnd.wap.xhtml+xml"}
_XML = {"application/xml", "text/xml"}
_COARSE = {
    "application/pdf": "pdf",
    "application/json": "json",
    "application/ld+json": "json",
    "application/rss+xml": "feed",
    "application/atom+xml": "feed",
    "text/css": "style",
    "text/javascript": "script",
    "application/javascript": "script",
    "application/x-javascript": "script",
}
_GROUPS = ("image", "video", "audio", "font", "text", "application", "multipart", "message")
_BINARY = (b"%PDF-", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"PK\x03\x04", b"\x1f\x8b", b"RIFF", b"\x00\x00\x01\x00", b"wOF")


def form_of(content: bytes, content_type: str | None) -> Form | Failure:
    """Whether a body is HTML or plain text, by its content type, and by its first bytes where that is missing or vague."""
    if not content:
        return Failure("no_text", "the body is empty")
    kind = (content_type or "").lower()
    if (
        kind
        and kind not in _HTML
        and kind not in _XML
        and kind not in ("text/plain", "application/octet-stream", "unknown/unknown")
    ):
        return Failure(f"content_type_{_COARSE.get(kind) or _group(kind)}", kind)
    if content.startswith(_BINARY):
        return Failure("content_type_binary", f"stated as {kind or 'nothing'}, begins with {content[:4]!r}")
    head = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if kind in _HTML:
        return "html"
    if b"<html" in head or b"<!doctype html" in head:
        return "html"
    if kind == "text/plain":
        return "text"
    if kind in _XML or head.startswith(b"<?xml"):
        return Failure("content_type_xml", kind)
    if not kind and head.startswith(b"<"):
        return "html"
    return Failure("content_type_unknown", kind or "none stated")


def _group(kind: str) -> str:
    group = kind.partition("/")[0]
    return group if group in _GROUPS else "other"


def extract(content: bytes, charset: str | None, form: Form, how: Extraction) -> Text | Failure:
    """Title and text of a body. `no_text` if it has none, `extraction_failed` if the library raises."""
    try:
        page = decode(content, charset)
        if form == "text":
            title, text = None, page
        elif how.method == "resiliparse":
            title, text = _resiliparse(page, how.main_content)
        else:
            title, text = _trafilatura(page, how.main_content)
    except MemoryError:
        return Failure("memory_limit", "the page needs more memory than a page may")
    except BaseException as error:
        # A panic in Rust is no Exception; one page must not end the shard.
        if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
            raise
        return Failure("extraction_failed", f"{type(error).__name__}: {error}"[:300])
    text = strip_lines(text)
    return Text(" ".join(title.split()) or None if title else None, text) if text.strip() else Failure("no_text")


def _resiliparse(page: str, main_content: bool) -> tuple[str | None, str]:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(page)
    return tree.title, extract_plain_text(tree, preserve_formatting=True, main_content=main_content)


def _trafilatura(page: str, main_content: bool) -> tuple[str | None, str]:
    import trafilatura

    tree = trafilatura.load_html(page)
    if tree is None:
        return None, ""
    title = tree.findtext(".//title")
    if main_content:
        return title, trafilatura.extract(tree, include_comments=False) or ""
    return title, trafilatura.html2txt(tree)
