"""The kinds of source that a recipe may name under `source:`, told apart by `kind`.

A kind is a subclass of `SourceParams` with `kind: Literal[...]`; add it to `AnySource` and it is in every recipe, in the
command line and in the recipe reference.
"""

from __future__ import annotations

from pipeline.sources.archive import ArchiveParams
from pipeline.sources.parameters import Limits
from pipeline.sources.record import Source

AnySource = ArchiveParams


def open_source(params: AnySource, limits: Limits | None = None) -> tuple[list[str], Source]:
    """The files of a source, and the reader that takes one of them at a time. ValueError if there are no files."""
    return params.files(), params.open(limits or Limits())
