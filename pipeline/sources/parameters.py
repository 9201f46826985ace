"""What every kind of source says of itself in a recipe: which files, who reads them, and what identifies each file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import pyarrow.fs as pafs
from pydantic import Field

from pipeline.sources.record import Source
from pipeline.stage import Params
from pipeline.storage import open_filesystem, split_url

_WILDCARDS = frozenset("*?[")


class Limits(Params):
    """Sizes above which a record is dropped as `too_large`; they stop decompression bombs."""

    max_record_bytes: int = Field(default=64 << 20, ge=1, description="Largest block of an archive record, after gunzip.")
    max_body_bytes: int = Field(
        default=32 << 20, ge=1, description="Largest HTTP body after transfer and content encodings are undone."
    )
    max_member_bytes: int = Field(
        default=8 << 30,
        ge=1,
        description="Most bytes that one damaged gzip member may expand to before the reader gives it up.",
    )


class SourceParams(Params):
    """Base of a source's section in a recipe. A subclass adds `kind: Literal[...]` and what it reads."""

    @abstractmethod
    def files(self) -> list[str]:
        """The URL or path of each file, in the order in which shards take them. ValueError if there is none."""

    @abstractmethod
    def open(self, limits: Limits) -> Source:
        """The reader of these files."""

    def identity(self, file: str) -> str:
        """Changes when the file does: xxh3 of a local file's content; size and modification time of a remote one."""
        storage, name = split_url(file)
        try:
            if storage.local is not None:
                return f"xxh3:{storage.digest(name)}"
            info = storage.filesystem.get_file_info(storage.absolute(name))
        except OSError as error:
            raise ValueError(f"cannot read {file}: {error}") from error
        if info.type != pafs.FileType.File:
            raise ValueError(f"{file} is not there")
        return f"size:{info.size} mtime:{info.mtime_ns}"


def expand(paths: Sequence[str]) -> list[str]:
    """Each path or URL; shell patterns (`*`, `?`, `[...]`, `**` across folders) become the files that match, sorted.

    A local file whose own name looks like a pattern (`pages[1].warc.gz`) is that file. ValueError names a pattern that
    matches nothing.
    """
    found: dict[str, None] = {}  # keeps order, drops repeats
    for path in paths:
        if not _WILDCARDS.intersection(path) or _is_local_file(path):
            found[path] = None
            continue
        matches = _matches(path)
        if not matches:
            raise ValueError(f"no file matches {path}")
        found.update(dict.fromkeys(matches))
    return list(found)


def _is_local_file(path: str) -> bool:
    storage, name = split_url(path)
    return storage.local is not None and (storage.local / name).is_file()


def _matches(pattern: str) -> list[str]:
    parts = pattern.split("/")
    fixed = next(i for i, part in enumerate(parts) if _WILDCARDS.intersection(part))
    if "://" not in pattern:  # a folder's own name may look like a pattern too
        while fixed < len(parts) - 1 and Path("/".join(parts[: fixed + 1])).expanduser().is_dir():
            fixed += 1
    root = "/".join(parts[:fixed])
    folder = root or ("/" if pattern.startswith("/") else ".")
    filesystem, path = open_filesystem(folder)
    wanted = parts[fixed:]
    selector = pafs.FileSelector(path, recursive=len(wanted) > 1, allow_not_found=True)
    prefix = f"{root}/" if root or pattern.startswith("/") else ""
    base = PurePosixPath(path)
    names = []
    for info in filesystem.get_file_info(selector):
        if info.type == pafs.FileType.File:
            name = PurePosixPath(info.path).relative_to(base)
            if _fits(name.parts, wanted):
                names.append(prefix + str(name))
    return sorted(names)


def _fits(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_fits(parts[i:], wanted[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])
