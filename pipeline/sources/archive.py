"""WARC, WET and ARC files as a source: which records are pages, which are documents, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, Literal

from pydantic import Field

from pipeline.sources.arc import FIRST, read_arc
from pipeline.sources.gzip_members import read_pieces
from pipeline.sources.http import HTTP, split_response, undo_encodings
from pipeline.sources.parameters import Limits, SourceParams, expand
from pipeline.sources.record import Document, Page, Reject
from pipeline.sources.records import DOCUMENT_TYPES, Damaged, Record
from pipeline.sources.warc import first_bytes, numbered, open_input, read_warc
from pipeline.sources.wet import title_and_text
from pipeline.sources.window import Window

Kind = Literal["auto", "warc", "wet", "arc"]
_TAKEN = {"auto": DOCUMENT_TYPES, "warc": {"response"}, "arc": {"response"}, "wet": {"conversion"}}
_SUFFIXES = (".bad", ".gz", ".zst", ".wet", ".warc", ".arc")


class ArchiveParams(SourceParams):
    """Crawl archives."""

    kind: Kind = Field(
        default="auto",
        description="Which records to take: responses (warc, arc), conversions (wet), or whatever a file holds (auto).",
    )
    paths: tuple[str, ...] = Field(description="Files, URLs or shell patterns, in the order of the shards.", min_length=1)

    def files(self) -> list[str]:
        return expand(self.paths)

    def open(self, limits: Limits) -> ArchiveSource:
        return ArchiveSource(self.kind, limits)


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class ArchiveSource:
    """Reads crawl archives. kind: which records become pages and documents; ARC files are told by their content too."""

    kind: Kind = "auto"
    limits: Limits = DEFAULT_LIMITS

    def read(self, url: str) -> Iterator[Page | Document | Reject]:
        """Every record of a file, once; but those before the first damage come first. Never raises on what is in the file.

        ValueError if it cannot be opened. Reasons: `record_type_<type>` for a record that is no document; for damage
        `record_cut`, `header_cut`, `member_cut`, `bad_header`, `digest_mismatch`, `payload_digest_mismatch`,
        `length_mismatch`, `bad_crc`, `no_target_uri`, `no_http_header`, `junk`, `empty_file` and `too_large`; for a response
        that cannot be used `url_scheme` and `content_encoding`.
        """
        segment = PurePosixPath(url).name
        stem = file_stem(segment)
        with open_input(url) as file:
            empty = True
            for item in self._records(file):
                empty = False
                yield self._convert(item, stem, segment)
            if empty:
                yield Reject(stem, None, "empty_file", "the file holds no byte")

    def records(self, url: str) -> Iterator[Record | Damaged]:
        """The records below `read`: of every type, as the file holds them."""
        with open_input(url) as file:
            yield from self._records(file)

    def _records(self, file: BinaryIO) -> Iterator[Record | Damaged]:
        if self.kind == "arc" or (self.kind == "auto" and first_bytes(file).lstrip(b"\r\n").startswith(FIRST)):
            return numbered(read_arc(Window(read_pieces(file, self.limits.max_member_bytes)), self.limits))
        return read_warc(file, self.limits)

    def _convert(self, item: Record | Damaged, stem: str, segment: str) -> Page | Document | Reject:
        head = item.head
        kind = head.kind if head else None
        # Other records have no number; their own name tells a person which one it was.
        name = f"{stem}/{item.number}" if kind in DOCUMENT_TYPES else (head.name if head and head.name else stem)
        if isinstance(item, Damaged):
            return Reject(name, head.uri if head else None, item.reason, f"{kind or 'no record'}: {item.detail}")
        head = item.head
        if head.kind not in _TAKEN[self.kind]:
            return Reject(name, head.uri, f"record_type_{_word(head.kind)}")
        assert head.uri is not None
        if head.kind == "conversion":
            title, text = title_and_text(item.block)
            return Document(name, head.uri, head.date, head.block_digest, segment, head.length, title, text)
        if not head.uri.lower().startswith(("http://", "https://")):
            return Reject(name, head.uri, "url_scheme", head.uri.partition(":")[0][:40])
        if not item.block.startswith(HTTP):
            return Reject(name, head.uri, "no_http_header", "the block does not begin with an HTTP status line")
        response = split_response(item.block)
        body = undo_encodings(response, self.limits.max_body_bytes)
        if isinstance(body, str):
            told = response.content_encoding or response.transfer_encoding
            return Reject(name, head.uri, body, f"{len(response.body)} bytes {told}".rstrip())
        return Page(
            name,
            head.uri,
            head.date,
            head.block_digest,
            segment,
            head.length,
            body,
            response.content_type,
            response.charset,
            response.status,
        )


def file_stem(name: str) -> str:
    """A file's name without the suffixes that say what it is: `web-003.warc.wet.gz` is `web-003`."""
    while name.endswith(_SUFFIXES):
        name = name.rpartition(".")[0]
    return name


def _word(kind: str) -> str:
    """A record type as a word for a reason; types are whatever a file says."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in kind.lower())[:30]
