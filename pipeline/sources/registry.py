"""The kinds of source that a recipe may name under `source:`, told apart by `kind`.

A kind is a subclass of `SourceParams` with `kind: Literal[...]`. In `AnySource` it is in every recipe, in the command line
and in the recipe reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field

from pipeline.sources.archive import ArchiveParams
from pipeline.sources.common_crawl import CommonCrawlParams
from pipeline.sources.jsonl import JsonlParams
from pipeline.sources.parameters import Limits, SourceParams
from pipeline.sources.parquet import ParquetParams
from pipeline.sources.record import Source
from pipeline.sources.redpajama import RedPajamaParams

AnySource = Annotated[
    ArchiveParams | JsonlParams | ParquetParams | CommonCrawlParams | RedPajamaParams, Field(discriminator="kind")
]
_KINDS = {".parquet": "parquet", ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl"}


def open_source(params: SourceParams, limits: Limits | None = None) -> tuple[list[str], Source]:
    """The files of a source, and the reader that takes one of them at a time. ValueError if there are no files."""
    return params.files(), params.open(limits or Limits())


def guess(paths: Sequence[str]) -> SourceParams:
    """The source that reads these files, by their names; crawl archives unless the names say otherwise.

    ValueError if they are of several kinds.
    """
    kinds = {_kind(path) for path in paths}
    if len(kinds) != 1:
        raise ValueError(f"the inputs are of several kinds ({', '.join(sorted(kinds)) or 'none'}): give one kind at a time")
    files = tuple(paths)
    match kinds.pop():
        case "parquet":
            return ParquetParams(paths=files)
        case "jsonl":
            return JsonlParams(paths=files)
        case _:
            return ArchiveParams(paths=files)


def _kind(path: str) -> str:
    suffixes = [s.lower() for s in PurePosixPath(path).suffixes]
    return next((_KINDS[s] for s in reversed(suffixes) if s in _KINDS), "archive")
