"""A dev set: documents whose class is known. It shows how good functions and models are; only calibration learns from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.frames import read_plain


@dataclass(frozen=True)
class DevSet:
    """Class indices by document id."""

    classes: tuple[str, ...]
    gold: Mapping[str, int]

    @classmethod
    def read(cls, path: Path, classes: Sequence[str], column: str = "label") -> DevSet:
        """From a Parquet or JSONL file with `id` and the label (a class name); a null label is left out.

        ValueError names the file: no such column, a label that is no class, a document with two labels.
        """
        frame = read_plain(path)
        if column not in frame.columns:
            raise ValueError(f"{path}: no column {column} with the known class; there are: {', '.join(frame.columns)}")
        index = {name: i for i, name in enumerate(classes)}
        gold: dict[str, int] = {}
        for name, label in frame.select("id", column).drop_nulls().iter_rows():
            number = index.get(str(label))
            if number is None:
                raise ValueError(f"{path}: document {name} has the label {label!r}; the classes are: {', '.join(classes)}")
            if gold.setdefault(name, number) != number:
                raise ValueError(f"{path}: document {name} is there with two labels")
        if not gold:
            raise ValueError(f"{path}: no document has a label")
        return cls(tuple(classes), gold)

    def rows(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the documents that are in the dev set, (d,), and their classes (d,)."""
        found = [(row, self.gold[i]) for row, i in enumerate(ids) if i in self.gold]
        rows, gold = np.array(found, np.int64).reshape(-1, 2).T
        return rows, gold
