"""Files behind a URL: a local folder, or anything that pyarrow or fsspec opens. Every write is whole or absent."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.fs as pafs
import xxhash

_TEMPORARY = re.compile(r"^\..*\.[0-9a-f]{32}\.tmp$")


@dataclass(frozen=True)
class Written:
    """What became of one write: path below the root, bytes, and the xxh3-128 digest of its content."""

    path: str
    bytes: int
    digest: str


@dataclass(frozen=True)
class Storage:
    """The folder at `url`. Paths are relative, with `/`. Pickles as its URL, so that a worker opens its own connection.

    Local writes go beside the target, are synced, and are renamed; on an object store a write is one PUT, or for a large
    file one multi-part upload, which becomes visible when it is complete.
    """

    url: str

    @cached_property
    def _opened(self) -> tuple[pafs.FileSystem, str]:
        return open_filesystem(self.url)

    @property
    def filesystem(self) -> pafs.FileSystem:
        return self._opened[0]

    @property
    def local(self) -> Path | None:
        """The folder as a local path, or None on an object store."""
        return Path(self._opened[1]) if isinstance(self.filesystem, pafs.LocalFileSystem) else None

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    def absolute(self, path: str) -> str:
        """The path as `filesystem` takes it."""
        return str(PurePosixPath(self._opened[1]) / path) if path else self._opened[1]

    def exists(self, path: str) -> bool:
        return self.filesystem.get_file_info(self.absolute(path)).type == pafs.FileType.File

    def size(self, path: str) -> int:
        return self.filesystem.get_file_info(self.absolute(path)).size

    def files(self, folder: str, suffix: str = "") -> list[str]:
        """Every file below a folder, sorted, relative to the root; half-written ones are not there."""
        root = self._opened[1].rstrip("/")
        selector = pafs.FileSelector(self.absolute(folder), recursive=True, allow_not_found=True)
        found = (i.path for i in self.filesystem.get_file_info(selector) if i.type == pafs.FileType.File)
        paths = (p[len(root) + 1 :] for p in found)
        return sorted(p for p in paths if p.endswith(suffix) and not _TEMPORARY.match(PurePosixPath(p).name))

    def read(self, path: str) -> bytes:
        with self.filesystem.open_input_stream(self.absolute(path), compression=None) as stream:
            return stream.read()

    def open(self, path: str) -> pa.NativeFile:
        """A seekable input file."""
        return self.filesystem.open_input_file(self.absolute(path))

    def write(self, path: str, content: bytes | pa.Buffer) -> Written:
        """Write a file whole, or not at all."""
        view = memoryview(content)
        if self.local is not None:
            _write_locally(self.local / path, view)
        else:
            with self.filesystem.open_output_stream(self.absolute(path), compression=None) as stream:
                stream.write(view)
        return Written(path, view.nbytes, xxhash.xxh3_128(view).hexdigest())

    def delete(self, path: str) -> None:
        """Delete a file; one that is not there is no error."""
        try:
            self.filesystem.delete_file(self.absolute(path))
        except FileNotFoundError:
            return
        except OSError:
            if self.exists(path):
                raise

    def digest(self, path: str) -> str:
        """xxh3-128 of a file, read in pieces."""
        state = xxhash.xxh3_128()
        for piece in self._pieces(path):
            state.update(piece)
        return state.hexdigest()

    def fetch(self, path: str, folder: Path) -> Path:
        """The file as a local path: itself, or a copy in `folder`."""
        if self.local is not None:
            return self.local / path
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        with beside.open("wb") as out:
            for piece in self._pieces(path):
                out.write(piece)
        beside.replace(target)
        return target

    def sweep(self) -> int:
        """Delete what an interrupted local write left behind; returns how many files. Only while nobody writes."""
        if self.local is None or not self.local.exists():
            return 0
        left = [p for p in self.local.rglob(".*.tmp") if _TEMPORARY.match(p.name)]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def _pieces(self, path: str, size: int = 1 << 23) -> Iterator[bytes]:
        with self.filesystem.open_input_stream(self.absolute(path), compression=None) as stream:
            while piece := stream.read(size):
                yield piece


def open_filesystem(url: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem and path of a URL or local path. ValueError if no library knows the scheme."""
    if "://" not in url:
        return pafs.LocalFileSystem(), str(Path(url).expanduser().absolute())
    try:
        if url.startswith("s3://") and "allow_delayed_open=" not in url:
            # One request instead of three for a file that fits into one part.
            return pafs.FileSystem.from_uri(f"{url}{'&' if '?' in url else '?'}allow_delayed_open=true")
        return pafs.FileSystem.from_uri(url)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as first:
        try:
            import fsspec

            filesystem, path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"cannot open {url}: {first}; {error}") from error
        return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path


def _write_locally(target: Path, content: memoryview) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)


def split_url(location: str) -> tuple[Storage, str]:
    """The folder of a file, as storage, and the file's name in it. A query stays with the folder. Takes local paths too."""
    if "://" not in location:
        path = Path(location).expanduser().absolute()
        return Storage(str(path.parent)), path.name
    path, mark, query = location.partition("?")
    folder, _, name = path.rpartition("/")
    return Storage(f"{folder}{mark}{query}"), name


def join_url(url: str, path: str) -> str:
    """The URL of `path` below the folder at `url`. A query (`?endpoint_override=…`) stays at the end."""
    if "://" not in url:
        return f"{url.rstrip('/')}/{path}"
    folder, mark, query = url.partition("?")
    return f"{folder.rstrip('/')}/{path}{mark}{query}"
