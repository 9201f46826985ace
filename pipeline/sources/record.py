"""What a source yields: a page to extract text from, a document that is text already, or a reject with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class Page:
    """An HTTP response from a crawl. `content`: body with transfer and content encodings undone; `charset`: the header's."""

    record_id: str  # "<file stem>/<number of the document record in the file, from 0>"
    url: str
    date: str | None
    digest: str | None
    segment: str  # file name
    original_length: int
    content: bytes
    content_type: str | None
    charset: str | None
    status: int | None = None  # of the HTTP response


@dataclass(slots=True)
class Document:
    """Text with its metadata; the columns of tables.RAW that a source knows."""

    record_id: str
    url: str | None
    date: str | None
    digest: str | None
    segment: str
    original_length: int
    title: str | None
    text: str


@dataclass(slots=True)
class Reject:
    """A record that did not become a document. `reason` is a short snake_case word that is counted; `detail` is for people."""

    record_id: str | None
    url: str | None
    reason: str
    detail: str | None = None
    excerpt: str | None = None


class Source(Protocol):
    """Reads one file. Every record in it comes out exactly once, as a page, a document or a reject."""

    def read(self, url: str) -> Iterator[Page | Document | Reject]: ...
