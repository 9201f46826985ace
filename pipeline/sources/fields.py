"""Which field of somebody else's record holds what: names in order of preference, with dots into nested objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from pipeline.sources.record import Document, Reject
from pipeline.stage import Params
from pipeline.tables import EXCERPT_LENGTH


class Fields(Params):
    """Names are tried in order; the first that a record has, and that is not null, is taken. `a.b` is `b` inside `a`."""

    text: tuple[str, ...] = Field(
        default=("raw_content", "text", "metadata.raw_content"), min_length=1, description="The document's text."
    )
    id: tuple[str, ...] = Field(
        default=(), description="What to call the record. It must be unique in the input; by default <file stem>/<row number>."
    )
    url: tuple[str, ...] = Field(default=("url", "metadata.url"), description="Where the document was found.")
    date: tuple[str, ...] = Field(
        default=("date_download", "metadata.date_download", "date"), description="When the document was fetched."
    )
    title: tuple[str, ...] = Field(default=("title", "metadata.title"), description="The document's title.")
    digest: tuple[str, ...] = Field(default=("digest", "metadata.digest"), description="Digest of the source record's block.")
    segment: tuple[str, ...] = Field(
        default=("cc_segment", "metadata.cc_segment"),
        description="The crawl's file that the record came from; else the file read.",
    )
    original_length: tuple[str, ...] = Field(
        default=("original_length", "metadata.original_length"),
        description="Bytes of the source record's block; else of the text.",
    )

    def names(self) -> Iterator[str]:
        """Every name, once per field that lists it."""
        for names in self.model_dump().values():
            yield from names


DEFAULT_FIELDS = Fields()


def find(record: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first value that is there and not null, else None. A name with dots that is itself a key wins over the nesting."""
    for name in names:
        value = record.get(name)
        if value is None and "." in name:
            value = record
            for part in name.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def to_document(
    record: Mapping[str, Any], fields: Fields, file: str, record_id: str, max_bytes: int = 64 << 20
) -> Document | Reject:
    """A record as a document; `record_id` unless the record has one.

    Rejects: `no_text` (missing, null or no string), `empty_text`, `too_large` (text above `max_bytes`), `bad_utf8` (text that
    UTF-8 cannot hold, as a lone surrogate, or bytes that are not UTF-8) and `bad_field` (an object or list as metadata).
    """
    told: dict[str, str | None] = {}
    for field in ("id", "url", "date", "title", "digest", "segment"):
        value = find(record, getattr(fields, field))
        if isinstance(value, (Mapping, list, tuple, bytes)):
            return Reject(record_id, told.get("url"), "bad_field", f"{field} is a {type(value).__name__}, not a value")
        told[field] = _clean(value)
    record_id, url = told["id"] or record_id, told["url"]
    text = find(record, fields.text)
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            return Reject(record_id, url, "bad_utf8", str(error), text[:EXCERPT_LENGTH].decode(errors="replace"))
    if not isinstance(text, str):
        detail = f"none of {', '.join(fields.text)} is there" if text is None else f"the text is a {type(text).__name__}"
        return Reject(record_id, url, "no_text", detail)
    if not text or text.isspace():
        return Reject(record_id, url, "empty_text")
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        return Reject(record_id, url, "bad_utf8", str(error), _clean(text[:EXCERPT_LENGTH]))
    if length > max_bytes:
        return Reject(record_id, url, "too_large", f"the text has {length} bytes", text[:EXCERPT_LENGTH])
    original = find(record, fields.original_length)
    if isinstance(original, int) and not isinstance(original, bool) and 0 <= original < 1 << 63:
        length = original
    return Document(record_id, url, told["date"], told["digest"], told["segment"] or file, length, told["title"], text)


def _clean(value: Any) -> str | None:
    """A scalar as a string that UTF-8 can hold."""
    if value is None:
        return None
    told = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return told.encode(errors="replace").decode()
