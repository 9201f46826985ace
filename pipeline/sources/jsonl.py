"""JSON lines, plain or compressed: CCNet's own output, wrappers around it, and whatever a field mapping describes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field

from pipeline.sources.fields import DEFAULT_FIELDS, Fields, to_document
from pipeline.sources.lines import DEFAULT_LIMITS, Fault, Line, LineLimits, read_lines
from pipeline.sources.parameters import Limits, SourceParams, expand
from pipeline.sources.record import Document, Reject
from pipeline.tables import EXCERPT_LENGTH


class JsonlParams(SourceParams):
    """JSON-lines files (`.jsonl`, `.json`, `.gz`, `.zst`; compression is told by content)."""

    kind: Literal["jsonl"] = Field(default="jsonl", description="JSON lines.")
    paths: tuple[str, ...] = Field(description="Files, URLs or shell patterns, in the order of the shards.", min_length=1)
    fields: Fields = Field(default=Fields(), description="Which field of a record holds what.")
    max_expanded_bytes: int = Field(
        default=1 << 40, ge=1, description="Where reading of a file stops (decompression_limit), in bytes after decompression."
    )

    def files(self) -> list[str]:
        return expand(self.paths)

    def open(self, limits: Limits) -> JsonlSource:
        return JsonlSource(self.fields, LineLimits(limits.max_record_bytes, self.max_expanded_bytes))


@dataclass(frozen=True)
class JsonlSource:
    """Reads JSON lines, of which each is a document."""

    fields: Fields = DEFAULT_FIELDS
    limits: LineLimits = DEFAULT_LIMITS

    def read(self, url: str) -> Iterator[Document | Reject]:
        """One document or reject per line that is not blank; one reject more where the file ends badly.

        Reasons: `bad_json`, `bad_utf8`, `not_an_object`, those of `fields.to_document` and those of `lines.read_lines`.
        """
        file, stem = name_and_stem(url)
        for row in read_json(url, stem, self.limits):
            if isinstance(row, Reject):
                yield row
            else:
                yield to_document(row.value, self.fields, file, f"{stem}/{row.number}", self.limits.line)


@dataclass(frozen=True, slots=True)
class Row:
    """A JSON object and the number of its line."""

    number: int
    value: dict[str, Any]


def read_json(url: str, stem: str, limits: LineLimits = DEFAULT_LIMITS) -> Iterator[Row | Reject]:
    """The objects of a JSON-lines file, numbered by line, with a reject `<stem>/<number>` for each line that holds none."""
    cut: Reject | None = None  # a last line without its end: if the file is cut there, it is part of that fault
    for line in read_lines(url, limits):
        if isinstance(line, Fault):
            record_id = stem if line.number is None else f"{stem}/{line.number}"
            yield Reject(record_id, None, line.reason, line.detail, _excerpt(line.excerpt))
            cut = None
        elif (row := parse_line(line, stem)) is not None:
            if isinstance(row, Reject) and not line.ended:
                cut = row
            else:
                yield row
    if cut is not None:
        yield cut


def parse_line(line: Line, stem: str) -> Row | Reject | None:
    """A line as an object; None if it is blank."""
    content = line.content.removeprefix(b"\xef\xbb\xbf") if line.number == 0 else line.content
    if not content.strip():
        return None
    record_id = f"{stem}/{line.number}"
    try:
        value = json.loads(content.decode())
    except UnicodeDecodeError as error:
        return Reject(record_id, None, "bad_utf8", str(error), _excerpt(content))
    except (ValueError, RecursionError) as error:
        return Reject(record_id, None, "bad_json", str(error), _excerpt(content))
    if not isinstance(value, dict):
        return Reject(record_id, None, "not_an_object", f"the line holds a {type(value).__name__}", _excerpt(content))
    return Row(line.number, value)


def name_and_stem(url: str) -> tuple[str, str]:
    """The file's name, and the name without what follows its first dot (but for a leading one)."""
    file = PurePosixPath(url.split("?", 1)[0]).name
    return file, file[:1] + file[1:].split(".", 1)[0]


def _excerpt(content: bytes) -> str | None:
    return content[: 4 * EXCERPT_LENGTH].decode(errors="replace")[:EXCERPT_LENGTH] or None
