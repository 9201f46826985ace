"""Common Crawl by the name of a snapshot: its published listing, a choice of files, and polite downloads into a cache.

Layout: <https://commoncrawl.org/get-started>. `<base_url>/crawl-data/<snapshot>/<warc|wet>.paths.gz` lists one file per
line, each a path below `base_url`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from pipeline.download import Downloader
from pipeline.sources.jsonl import name_and_stem
from pipeline.sources.lines import Fault, Line, read_lines
from pipeline.sources.parameters import Limits, SourceParams
from pipeline.sources.record import Document, Page, Reject, Source
from pipeline.stage import Params

_ENDINGS = {"warc": ".warc.gz", "wet": ".warc.wet.gz"}


class DownloadParams(Params):
    """How files are fetched. None of it changes what is read, so none of it is part of a stage's fingerprint."""

    cache: str = Field(
        default="~/.cache/menagerie/downloads", description="Folder of downloaded files; processes may share it."
    )
    keep: bool = Field(default=True, description="Keep a file in the cache after it was read.")
    per_host: int = Field(
        default=2, ge=1, le=16, description="Connections at once to one host, over all processes of the cache."
    )
    retries: int = Field(default=8, ge=0, description="Attempts without progress on one file before it is an error.")
    backoff: float = Field(default=1.0, gt=0, description="Seconds before the first retry; doubled each time, with jitter.")
    timeout: float = Field(default=60.0, gt=0, description="Seconds without a byte after which a connection counts as broken.")
    contact: str = Field(default="", description="A URL or e-mail address for the User-Agent, so that a host can ask.")

    def downloader(self) -> Downloader:
        return Downloader(
            cache=self.cache,
            per_host=self.per_host,
            retries=self.retries,
            backoff=self.backoff,
            timeout=self.timeout,
            contact=self.contact,
        )


class CommonCrawlParams(SourceParams):
    """Files of a Common Crawl snapshot. Choices apply in this order: `shard`, `first` and `count`, `sample`."""

    kind: Literal["common-crawl"] = Field(default="common-crawl", description="Common Crawl, by snapshot.")
    snapshot: str = Field(description="Name of the crawl, such as CC-MAIN-2023-06.", pattern=r"^CC-MAIN-\d{4}-\d{2}$")
    format: Literal["warc", "wet"] = Field(
        default="wet", description="HTML pages (warc) or text as Common Crawl extracted it (wet)."
    )
    base_url: str = Field(
        default="https://data.commoncrawl.org/", description="Where the tree begins: https, or s3://commoncrawl/, or a folder."
    )
    shards: int = Field(default=1, ge=1, description="Cut the listing into so many contiguous ranges (RedPajama-V2: 5000).")
    shard: int | None = Field(default=None, ge=0, description="Take only this range, from 0; null for all.")
    first: int = Field(default=0, ge=0, description="Files to pass over.")
    count: int | None = Field(default=None, ge=1, description="Files to take; null for all that are left.")
    sample: int | None = Field(default=None, ge=1, description="A random choice of so many files, in the listing's order.")
    seed: int = Field(default=0, description="Of the random choice.")
    download: DownloadParams = Field(default=DownloadParams(), exclude=True, description="How files are fetched.")

    @model_validator(mode="after")
    def _shard_is_one_of_shards(self) -> CommonCrawlParams:
        if self.shard is not None and self.shard >= self.shards:
            raise ValueError(f"shard {self.shard} is not among {self.shards} shards, which count from 0")
        return self

    def files(self) -> list[str]:
        """The URLs chosen. Reads the listing (cached). ValueError if it is not what it should be, or nothing is chosen."""
        root = self.base_url.rstrip("/") + "/"
        listing = f"{root}crawl-data/{self.snapshot}/{self.format}.paths.gz"
        try:
            local = str(self.download.downloader().fetch(listing)) if _is_http(listing) else listing
            paths = _read_listing(local, listing, self.snapshot, _ENDINGS[self.format])
        except FileNotFoundError as error:
            raise ValueError(f"{listing} is not there: is {self.snapshot} a published snapshot?") from error
        chosen = self._choose(paths)
        if not chosen:
            raise ValueError(f"{listing} lists {len(paths)} files, and the recipe's choice leaves none of them")
        return [root + path for path in chosen]

    def _choose(self, paths: list[str]) -> list[str]:
        if self.shard is not None:  # as CCNet cuts it
            paths = paths[self.shard * len(paths) // self.shards : (self.shard + 1) * len(paths) // self.shards]
        paths = paths[self.first : None if self.count is None else self.first + self.count]
        if self.sample is None or self.sample >= len(paths):
            return paths
        drawn = sorted(paths, key=lambda path: hashlib.sha1(f"{self.seed} {path}".encode()).digest())[: self.sample]
        wanted = set(drawn)
        return [path for path in paths if path in wanted]

    def open(self, limits: Limits) -> Source:
        from pipeline.sources.archive import ArchiveParams

        return CommonCrawlSource(ArchiveParams(kind=self.format, paths=("*",)).open(limits), self.download)

    def identity(self, file: str) -> str:
        """The URL: a published crawl does not change. Files of a local copy are identified by content."""
        return f"published:{file}" if _is_http(file) else super().identity(file)


@dataclass(frozen=True)
class CommonCrawlSource:
    """Reads one file of the crawl through `archive`, downloading it first where it is not here."""

    archive: Source
    download: DownloadParams

    def read(self, url: str) -> Iterator[Page | Document | Reject]:
        """What the archive reader yields; one reject, `missing_file`, if the server has no such file."""
        if not _is_http(url):
            yield from self.archive.read(url)
            return
        downloader = self.download.downloader()
        try:
            local = downloader.fetch(url)
        except FileNotFoundError as error:
            yield Reject(name_and_stem(url)[1], url, "missing_file", str(error))
            return
        yield from self.archive.read(str(local))
        if not self.download.keep:
            downloader.forget(url)


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _read_listing(local: str, listing: str, snapshot: str, ending: str) -> list[str]:
    """The paths in a listing. ValueError on damage, or on a path that is not of this snapshot and format."""
    expected = re.compile(rf"(?:\S+/)?crawl-data/{re.escape(snapshot)}/segments/\S+/(?!\.)[^/\s]+{re.escape(ending)}")
    lines = list(read_lines(local))
    paths = []
    for line in sorted(lines, key=lambda line: isinstance(line, Line)):  # a fault explains the line that it cut
        if isinstance(line, Fault):
            raise ValueError(f"{listing} is damaged ({line.reason}: {line.detail}): delete {local} and run again")
        path = line.content.decode(errors="replace").strip()
        if not path:
            continue
        if expected.fullmatch(path) is None or ".." in path.split("/"):
            raise ValueError(
                f"{listing}, line {line.number + 1}, lists {path!r}, which is no path like "
                f"crawl-data/{snapshot}/segments/…/…{ending}: it is the listing of something else"
            )
        paths.append(path)
    return paths
