"""Token shards: one raw token file that nanoGPT, Megatron, datatrove, nanotron and OLMo-core read, with the sidecars they want.

Imports numpy and the standard library only, because trainers read shards where little else is installed.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT = "token-shards"
FORMAT_VERSION = 1
TOKENS, MEGATRON, ENDS, IDS = ".bin", ".idx", ".ds.index", ".docs.parquet"
SUFFIXES = (TOKENS, MEGATRON, ENDS, IDS)
"""The files of a shard: tokens, Megatron's index, datatrove's index (document ends), the ids of the documents."""

_MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
_MEGATRON_DTYPES = {np.dtype("<u2"): 8, np.dtype("<u4"): 4}  # 4 is int32: the same bytes, as ids stay below 2^31
_OPEN_SHARDS = 128  # two file descriptors each, under the usual limit of 1024
_OPEN_IDS = 4


def token_dtype(vocabulary: int) -> np.dtype[Any]:
    """Little-endian uint16 if every id below `vocabulary` fits in it, else uint32. ValueError beyond int32 (Megatron)."""
    if not 0 < vocabulary <= 1 << 31:
        raise ValueError(f"a vocabulary of {vocabulary} tokens does not fit a token file: 1 to 2^31 are possible")
    return np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")


def encode_shard(tokens: npt.NDArray[Any], ends: npt.NDArray[Any], ids: Sequence[str]) -> dict[str, bytes]:
    """The files of one shard, by suffix.

    tokens: (tokens,) uint16 or uint32, documents one after the other. ends: (documents,), where each document ends
    (exclusive, in tokens; its end-of-text token is its last). ids: the documents' ids.
    """
    little = tokens.dtype.newbyteorder("<")
    assert little in _MEGATRON_DTYPES, tokens.dtype
    assert len(ends) == len(ids)
    assert (ends[-1] if len(ends) else 0) == len(tokens)
    ends = np.asarray(ends, "<u8")
    return {
        TOKENS: tokens.astype(little, copy=False).tobytes(),
        MEGATRON: _encode_megatron(ends, little),
        ENDS: ends.tobytes(),
        IDS: _encode_ids(ids),
    }


def _encode_megatron(ends: npt.NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    """Megatron's `IndexedDataset` index: every document is one sequence."""
    starts = np.concatenate([np.zeros(1, "<u8"), ends])[: len(ends)]
    lengths = ends - starts
    if len(lengths) and lengths.max() >= 1 << 31:
        raise ValueError(f"a document of {lengths.max()} tokens does not fit Megatron's index: 2^31 - 1 are possible")
    return b"".join(
        [
            _MEGATRON_MAGIC,
            struct.pack("<QBQQ", 1, _MEGATRON_DTYPES[dtype], len(ends), len(ends) + 1),
            lengths.astype("<i4").tobytes(),
            (starts * dtype.itemsize).astype("<i8").tobytes(),
            np.arange(len(ends) + 1, dtype="<i8").tobytes(),
        ]
    )


def _encode_ids(ids: Sequence[str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    # Ids of one partition differ in their last digits only: delta coding stores little more than those.
    pq.write_table(
        pa.table({"id": pa.array(ids, pa.string())}),
        sink,
        compression="zstd",
        use_dictionary=False,
        column_encoding={"id": "DELTA_BYTE_ARRAY"},
    )
    return sink.getvalue().to_pybytes()


@dataclass(frozen=True)
class Shard:
    """One shard of a manifest. `path`: its `.bin`, relative to the manifest; `xxh3`: xxh3-128 of the `.bin`."""

    path: str
    tokens: int
    documents: int
    xxh3: str


@dataclass(frozen=True)
class Manifest:
    """What the shards of one component and split hold.

    dtype: "uint16" or "uint32". vocabulary: ids are below it. eos: the id that ends every document, and occurs nowhere
    else. tokenizer: path of the tokenizer.json (if relative: to the manifest), with the SHA-256 of its bytes.
    """

    component: str
    split: str
    dtype: str
    vocabulary: int
    eos: int
    tokenizer: str
    tokenizer_sha256: str
    shards: tuple[Shard, ...]

    @property
    def tokens(self) -> int:
        return sum(s.tokens for s in self.shards)

    @property
    def documents(self) -> int:
        return sum(s.documents for s in self.shards)

    def files(self) -> list[str]:
        """Every file of every shard, relative to the manifest: what to copy to where the trainer runs."""
        return [s.path.removesuffix(TOKENS) + suffix for s in self.shards for suffix in SUFFIXES]

    def to_json(self) -> bytes:
        totals = {"format": FORMAT, "version": FORMAT_VERSION, "tokens": self.tokens, "documents": self.documents}
        return (json.dumps({**totals, **asdict(self)}, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes, where: str = "manifest") -> Manifest:
        """ValueError, naming `where`, for anything but a manifest of this version."""
        try:
            values: Mapping[str, Any] = json.loads(content)
            if values["format"] != FORMAT or values["version"] != FORMAT_VERSION:
                raise ValueError(f"format {values['format']} version {values['version']}, not {FORMAT} {FORMAT_VERSION}")
            fields = {name: values[name] for name in cls.__dataclass_fields__ if name != "shards"}
            return cls(**fields, shards=tuple(Shard(**shard) for shard in values["shards"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{where} is no manifest of token shards ({error!r}): tokenize again") from error


class TokenShards:
    """The shards of one manifest as one long array of tokens, memory-mapped; every answer is arithmetic and a bisection.

    Positions count tokens from 0 over all shards in the manifest's order. Pickles as its path. ValueError if a file is
    missing or has another size than the manifest says.
    """

    def __init__(self, manifest: str | os.PathLike[str]) -> None:
        self.path = Path(manifest).absolute()
        if not self.path.is_file():
            raise ValueError(f"{self.path} is missing: tokenize first")
        self.manifest = Manifest.from_json(self.path.read_bytes(), str(self.path))
        self.dtype = np.dtype(self.manifest.dtype).newbyteorder("<")
        self._first_token = _offsets([s.tokens for s in self.manifest.shards])
        self._first_document = _offsets([s.documents for s in self.manifest.shards])
        self._open = lru_cache(_OPEN_SHARDS)(self._map)
        self._ids = lru_cache(_OPEN_IDS)(self._read_ids)
        for number, shard in enumerate(self.manifest.shards):
            self._check_size(self._file(number, TOKENS), shard.tokens * self.dtype.itemsize)
            self._check_size(self._file(number, ENDS), shard.documents * 8)

    def __reduce__(self) -> tuple[type[TokenShards], tuple[str]]:
        return TokenShards, (str(self.path),)

    def __len__(self) -> int:
        """Tokens."""
        return int(self._first_token[-1])

    @property
    def total_tokens(self) -> int:
        return len(self)

    @property
    def total_documents(self) -> int:
        return int(self._first_document[-1])

    @property
    def eos(self) -> int:
        return self.manifest.eos

    @property
    def tokenizer(self) -> Path:
        """Where the manifest says that tokenizer.json is."""
        return Path(os.path.normpath(self.path.parent / self.manifest.tokenizer))

    def tokens(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Tokens [start, stop): a read-only view within one shard, a copy across shards. IndexError outside."""
        self._check_range(start, stop)
        parts = [self._open(n)[0][a:b] for n, a, b in self._spans(start, stop)]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def documents(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Boundaries of the documents within [start, stop): `start`, every document end strictly between, `stop`.

        Less `start`, it is the cumulative lengths that attention over packed documents takes. IndexError outside.
        """
        self._check_range(start, stop)
        found: list[npt.NDArray[Any]] = [np.array([start], np.int64)]
        for number, a, b in self._spans(start, stop):
            ends = self._open(number)[1]
            low, high = np.searchsorted(ends, np.array([a, b], ends.dtype), side="right")
            found.append(ends[low:high].astype(np.int64) + self._first_token[number])
        boundaries = np.concatenate(found)
        return boundaries if stop == boundaries[-1] else np.append(boundaries, np.int64(stop))

    def document(self, index: int) -> tuple[int, int]:
        """Where a document lies, as [start, stop); its last token is the end-of-text token. IndexError outside."""
        if not 0 <= index < self.total_documents:
            raise IndexError(f"document {index} of {self.total_documents}")
        number = int(np.searchsorted(self._first_document, index, side="right")) - 1
        ends, within = self._open(number)[1], index - int(self._first_document[number])
        first = int(self._first_token[number])
        return first + (int(ends[within - 1]) if within else 0), first + int(ends[within])

    def document_at(self, position: int) -> int:
        """The number of the document that holds a token. IndexError outside."""
        if not 0 <= position < len(self):
            raise IndexError(f"token {position} of {len(self)}")
        number = int(np.searchsorted(self._first_token, position, side="right")) - 1
        ends = self._open(number)[1]
        within = np.searchsorted(ends, np.array(position - self._first_token[number], ends.dtype), side="right")
        return int(self._first_document[number]) + int(within)

    def document_ids(self, start: int, stop: int) -> list[str]:
        """The ids of the documents that tokens [start, stop) come from, in order. Needs pyarrow."""
        self._check_range(start, stop)
        if start == stop:
            return []
        first, last = self.document_at(start), self.document_at(stop - 1)
        ids: list[str] = []
        for number, begin in enumerate(self._first_document[:-1]):
            low, high = max(first - int(begin), 0), min(last + 1, int(self._first_document[number + 1])) - int(begin)
            if low < high:
                ids.extend(self._ids(number).slice(low, high - low).to_pylist())
        return ids

    def _spans(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(shard, first token, last token + 1) of the shards that [start, stop) touches, in tokens of the shard."""
        first = max(int(np.searchsorted(self._first_token, start, side="right")) - 1, 0)
        spans = []
        for number in range(first, len(self.manifest.shards)):
            begin, end = int(self._first_token[number]), int(self._first_token[number + 1])
            if begin >= stop:
                break
            if end > start and stop > start:
                spans.append((number, max(start - begin, 0), min(stop, end) - begin))
        return spans

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"tokens {start} to {stop} of {len(self)} in {self.path}")

    def _file(self, number: int, suffix: str) -> Path:
        return self.path.parent / (self.manifest.shards[number].path.removesuffix(TOKENS) + suffix)

    def _check_size(self, file: Path, expected: int) -> None:
        if not file.is_file():
            raise ValueError(f"{file} is missing, though {self.path} lists it: tokenize again")
        if file.stat().st_size != expected:
            raise ValueError(f"{file} has {file.stat().st_size} bytes, {self.path} says {expected}: tokenize again")

    def _map(self, number: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        return _memmap(self._file(number, TOKENS), self.dtype), _memmap(self._file(number, ENDS), np.dtype("<u8"))

    def _read_ids(self, number: int) -> Any:
        import pyarrow.parquet as pq

        return pq.read_table(self._file(number, IDS), columns=["id"]).column("id")


def _offsets(counts: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _memmap(file: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    # An empty file cannot be mapped.
    return np.memmap(file, dtype, mode="r") if file.stat().st_size else np.empty(0, dtype)


def link_for_datatrove(manifest: str | os.PathLike[str]) -> list[Path]:
    """Give every shard a second name, `<shard>.ds`, which datatrove and nanotron look for. Returns the names.

    A hard link, or a symbolic one where the filesystem has no hard links.
    """
    shards = TokenShards(manifest)
    links = []
    for shard in shards.manifest.shards:
        file = shards.path.parent / shard.path
        link = file.with_name(file.name.removesuffix(TOKENS) + ".ds")
        link.unlink(missing_ok=True)
        try:
            os.link(file, link)
        except OSError:  # a filesystem without hard links
            link.symlink_to(file.name)
        links.append(link)
    return links
