"""Votes in plain files: Parquet with a column per labelling function, JSONL, or NumPy's .npz."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from labelers.votes import check_votes
from pipeline.frames import TEXT_COLUMNS, read_plain
from pipeline.tables import votes_schema

_CLASSES = b"menagerie.classes"
_MATRICES = ("L", "votes", "L_train")


@dataclass(frozen=True)
class VoteFile:
    """Votes (n, m) with the names that the file or the command line gives them."""

    table: pa.Table  # `tables.votes_schema`
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Columns of a file that does not tell which ones are votes, and that are none."""


def read_votes(path: Path, classes: Sequence[str] | None = None, key: str | None = None) -> VoteFile:
    """The votes of a file. ValueError names the file: no votes in it, documents instead, a vote that is no class.

    Parquet and JSONL: the integer columns beside `id`; where some are int8 (as this program writes votes), those only. .npz:
    the matrix called `key`, else L, votes or L_train; `k` in the file is the number of classes.
    classes: names, if the file does not tell; otherwise 0, 1, ... up to the largest vote.
    """
    told: Sequence[str] | None = None
    if path.suffix == ".npz":
        (table, k), left_out = _npz(path, key), ()
    else:
        (table, left_out), k = _columns(path), None
        if path.suffix == ".parquet":
            metadata = pq.read_schema(path).metadata or {}
            told = json.loads(metadata[_CLASSES]) if _CLASSES in metadata else None
    named = tuple(classes or told or map(str, range(max(k or 0, 2, 1 + _largest(table)))))
    matrix = np.stack([table[c].to_numpy() for c in table.column_names[1:]], axis=1)
    try:
        check_votes(matrix, len(named), table.column_names[1:])
    except ValueError as error:
        raise ValueError(f"{path}: {error} (classes: {', '.join(named)})") from error
    return VoteFile(table.cast(votes_schema(table.column_names[1:])), named, left_out)


def with_classes(votes: pa.Table, classes: Sequence[str]) -> pa.Table:
    """A votes table that says what its classes are called, for a file."""
    return votes.replace_schema_metadata({_CLASSES: json.dumps(list(classes), ensure_ascii=False)})


def _columns(path: Path) -> tuple[pa.Table, tuple[str, ...]]:
    frame = read_plain(path)
    whole = [c for c, kind in frame.schema.items() if c != "id" and kind.is_integer()]
    names = [c for c in whole if frame.schema[c] == pl.Int8] or whole
    if not names:
        raise ValueError(f"{path}: no column of whole numbers, so no votes; there are: {', '.join(frame.columns)}")
    text = next((c for c in TEXT_COLUMNS if frame.schema.get(c) == pl.String), None)
    if text and not any(frame.schema[c] == pl.Int8 for c in whole):  # what this program writes as votes is int8
        raise ValueError(
            f"{path} holds documents (column {text}), and no votes: `menagerie label vote` writes the votes of labelling "
            f"functions on them; if {', '.join(names)} are votes, leave the text out"
        )
    for name in names:
        if nulls := frame[name].null_count():
            raise ValueError(f"{path}: function {name} has {nulls:,} nulls: an abstention is -1")
    columns = [frame["id"].to_arrow().cast(pa.string()), *(pa.array(frame[n].cast(pl.Int64).to_numpy()) for n in names)]
    told = any(frame.schema[n] == pl.Int8 for n in names)
    return pa.table(columns, names=["id", *names]), () if told else tuple(c for c in frame.columns if c not in ("id", *names))


def _npz(path: Path, key: str | None) -> tuple[pa.Table, int | None]:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is no .npz file of plain arrays, as numpy.savez writes them; pickled objects are not read"
        ) from error
    name = key or next((n for n in _MATRICES if n in arrays), None)
    if name is None or name not in arrays:
        matrices = [n for n, a in arrays.items() if a.ndim == 2 and a.dtype.kind in "iu"]
        raise ValueError(f"{path}: no votes called {key or ', '.join(_MATRICES)}; name one with --key: {', '.join(matrices)}")
    votes = arrays[name]
    if votes.ndim != 2 or votes.dtype.kind not in "iu":
        raise ValueError(f"{path}: {name} is {votes.dtype} {votes.shape}; votes are whole numbers (documents, functions)")
    ids = pa.array([f"{path.name}/{row}" for row in range(len(votes))], pa.string())
    columns = [ids, *(pa.array(np.ascontiguousarray(c), pa.int64()) for c in votes.T)]
    table = pa.table(columns, names=["id", *(f"f{i}" for i in range(votes.shape[1]))])
    return table, int(arrays["k"]) if "k" in arrays and arrays["k"].ndim == 0 else None


def _largest(table: pa.Table) -> int:
    return max((int(np.max(table[c].to_numpy(), initial=-1)) for c in table.column_names[1:]), default=-1)
