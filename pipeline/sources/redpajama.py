"""RedPajama-V2 as it is published: where its files lie, which of them a recipe takes, and its texts as plain documents.

Layout (version 1.0.0), below one root: `documents/<base>.json.gz`, `quality_signals/<base>.signals.json.gz`,
`minhash/<base>.minhash.parquet`, `duplicates/<base>.duplicates.parquet`, with `<base>` =
`<snapshot>/<shard>/<language>_<bucket>`, and `listings/<language>-<snapshot>-<head_middle|tail>.txt`. The release lacks some
of these files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import pyarrow.fs as pafs
from pydantic import Field

from pipeline.sources.common_crawl import DownloadParams
from pipeline.sources.fields import DEFAULT_FIELDS, to_document
from pipeline.sources.jsonl import read_json
from pipeline.sources.lines import LineLimits
from pipeline.sources.parameters import Limits, SourceParams
from pipeline.sources.record import Document, Reject
from pipeline.storage import Storage, join_url, open_filesystem

PUBLISHED = "https://data.together.xyz/redpajama-data-v2/v1.0.0"
_BASE = re.compile(
    r"(?P<snapshot>[A-Za-z0-9][\w.-]*)/(?P<shard>\d{4})/(?P<language>[a-z]{2,3})_(?P<bucket>head|middle|tail|all)"
)
_DOCUMENTS = ".json.gz"
Component = Literal["documents", "quality_signals", "minhash", "duplicates"]
_ENDINGS: dict[Component, str] = {
    "documents": _DOCUMENTS,
    "quality_signals": ".signals.json.gz",
    "minhash": ".minhash.parquet",
    "duplicates": ".duplicates.parquet",
}


class RedPajamaParams(SourceParams):
    """Partitions of RedPajama-V2, from the web or from a copy with the same layout."""

    kind: Literal["redpajama-v2"] = Field(default="redpajama-v2", description="RedPajama-V2 as published.")
    url: str = Field(default=PUBLISHED, description="The root: https, or a folder or bucket that holds documents/ and so on.")
    snapshots: tuple[str, ...] = Field(
        default=(), description="Crawls, such as 2023-06; none: all that are there (https has no way to ask, so name them)."
    )
    languages: tuple[str, ...] = Field(default=("en", "de", "fr", "es", "it"), min_length=1, description="Languages.")
    buckets: tuple[Literal["head", "middle", "tail", "all"], ...] = Field(
        default=("head", "middle"),
        min_length=1,
        description="Perplexity buckets; the published tail has text only, and an export without perplexity is in `all`.",
    )
    shards: tuple[int, int] = Field(default=(0, 5000), description="Shards from the first number up to, without, the second.")
    download: DownloadParams = Field(default=DownloadParams(), exclude=True, description="How files are fetched from the web.")

    @property
    def on_the_web(self) -> bool:
        return self.url.startswith(("http://", "https://"))

    def bases(self) -> list[str]:
        """The partitions chosen, sorted. ValueError if there are none, or a listing holds something else."""
        found = set(self._listed() if self.on_the_web else self._stored())
        chosen = sorted(base for base in found if self._wants(base))
        if not chosen:
            raise ValueError(
                f"{self.url} has no documents/<snapshot>/<shard>/<language>_<bucket>.json.gz for snapshots "
                f"{', '.join(self.snapshots) or 'of any name'}, languages {', '.join(self.languages)}, "
                f"buckets {', '.join(self.buckets)} and shards {self.shards[0]} to {self.shards[1]}{_told_of(found)}"
            )
        return chosen

    def _wants(self, base: str) -> bool:
        match = _BASE.fullmatch(base)
        return (
            match is not None
            and (not self.snapshots or match["snapshot"] in self.snapshots)
            and match["language"] in self.languages
            and match["bucket"] in self.buckets
            and self.shards[0] <= int(match["shard"]) < self.shards[1]
        )

    def _stored(self) -> Iterator[str]:
        storage = Storage(self.url)
        for snapshot in self.snapshots or ("",):
            yield from stored_bases(storage, snapshot)

    def _listed(self) -> Iterator[str]:
        if not self.snapshots:
            raise ValueError(f"name the snapshots to take from {self.url}, such as snapshots: [2023-06]: it has no directory")
        parts = {"head_middle" if bucket in ("head", "middle") else bucket for bucket in self.buckets}
        for name in (f"{la}-{s}-{p}" for s in self.snapshots for la in self.languages for p in sorted(parts)):
            listing = join_url(self.url, f"listings/{name}.txt")
            try:
                text = self.download.downloader().fetch(listing).read_text()
            except FileNotFoundError as error:
                raise ValueError(f"{listing} is not there: is this a snapshot and language of the release?") from error
            for number, line in enumerate(text.split(), 1):
                base = line.removesuffix(_DOCUMENTS)
                if _BASE.fullmatch(base) is None:
                    raise ValueError(f"{listing}, line {number}: {line!r} is not <snapshot>/<shard>/<language>_<bucket>")
                yield base

    def locate(self, component: Component, base: str) -> str | None:
        """A file that can be opened: the URL itself, or what was downloaded. None if the release lacks it."""
        url = join_url(self.url, component_path(component, base))
        if self.on_the_web:
            try:
                return str(self.download.downloader().fetch(url))
            except FileNotFoundError:
                return None
        filesystem, path = open_filesystem(url)
        return url if filesystem.get_file_info(path).type == pafs.FileType.File else None

    def release(self, component: Component, base: str) -> None:
        """Forget a downloaded file, unless the recipe keeps them."""
        if self.on_the_web and not self.download.keep:
            self.download.downloader().forget(join_url(self.url, component_path(component, base)))

    # --- as a source of plain documents

    def files(self) -> list[str]:
        return [join_url(self.url, component_path("documents", base)) for base in self.bases()]

    def open(self, limits: Limits) -> RedPajamaSource:
        return RedPajamaSource(self, LineLimits(limits.max_record_bytes))

    def identity(self, file: str) -> str:
        """The URL for the published files, which do not change; else as for any file."""
        return f"published:{file}" if self.on_the_web else super().identity(file)


@dataclass(frozen=True)
class RedPajamaSource:
    """Reads the texts alone; their languages and buckets are computed again. `IngestRedPajama` keeps what is published."""

    params: RedPajamaParams
    limits: LineLimits

    def read(self, url: str) -> Iterator[Document | Reject]:
        """As `JsonlSource.read`, with record ids `<base>/<row>`; one reject, `missing_file`, if the release lacks the file."""
        base = "/".join(url.split("?", 1)[0].split("/")[-3:]).removesuffix(_DOCUMENTS)
        file = self.params.locate("documents", base)
        if file is None:
            yield Reject(base, url, "missing_file", f"{url} is not there")
            return
        for row in read_json(file, base, self.limits):
            if isinstance(row, Reject):
                yield row
            else:
                name = PurePosixPath(base).name + _DOCUMENTS
                yield to_document(row.value, DEFAULT_FIELDS, name, f"{base}/{row.number}", self.limits.line)
        self.params.release("documents", base)


def _told_of(bases: Collection[str]) -> str:
    """What partitions there are instead of those asked for."""
    matches = [match for base in bases if (match := _BASE.fullmatch(base))]
    if not matches:
        return ""
    kinds = (("snapshots", "snapshot"), ("languages", "language"), ("buckets", "bucket"))
    there = (f"{kind} {', '.join(sorted({match[part] for match in matches}))}" for kind, part in kinds)
    return f"; there are {'; '.join(there)}"


def stored_bases(storage: Storage, snapshot: str = "") -> Iterator[str]:
    """The partitions whose documents a copy of the release has, sorted; of one snapshot, or of all."""
    for path in storage.files(f"documents/{snapshot}".rstrip("/"), _DOCUMENTS):
        base = path.removeprefix("documents/").removesuffix(_DOCUMENTS)
        if _BASE.fullmatch(base):
            yield base


def component_path(component: Component, base: str) -> str:
    """Where the release keeps a component of a partition, below its root."""
    return f"{component}/{base}{_ENDINGS[component]}"


def parse_base(base: str) -> tuple[str, str, str]:
    """Snapshot, language and bucket of a partition's name. ValueError if it is not one of the release's form."""
    match = _BASE.fullmatch(base)
    if match is None:
        raise ValueError(f"partition {base} is not named <snapshot>/<shard>/<language>_<bucket>, such as 2023-06/0000/en_head")
    return match["snapshot"], match["language"], match["bucket"]
