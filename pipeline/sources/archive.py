"""WARC, WET and ARC files as a source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.sources.parameters import Limits, SourceParams, expand
from pipeline.sources.record import Source


class ArchiveParams(SourceParams):
    """Crawl archives."""

    kind: Literal["auto", "warc", "wet", "arc"] = Field(
        "auto", description="Which records to take: responses (warc, arc), conversions (wet), or whatever a file holds (auto)."
    )
    paths: tuple[str, ...] = Field(description="Files, URLs or shell patterns, in the order of the shards.", min_length=1)

    def files(self) -> list[str]:
        return expand(self.paths)

    def open(self, limits: Limits) -> Source:
        from pipeline.sources.warc import ArchiveSource

        return ArchiveSource(self.kind, limits)
