"""ARPA files: n-grams as text, log10 probability, words, and log10 backoff weight, order by order."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl

from pipeline.ngram import words


class ArpaWriter:
    """Writes a model whose n-grams of all orders come interleaved: one scratch file per order, joined at the end.

    sizes: n-grams of each order, for the header; checked. Numbers are 32-bit floats in their shortest form, since KenLM keeps
    no more. The target appears whole, or not at all.
    """

    def __init__(self, target: Path, scratch: Path, vocabulary: Sequence[str], sizes: Mapping[int, int]) -> None:
        self._target, self._sizes = target, sizes
        self._words = pl.Series(vocabulary, dtype=pl.String)
        self._sections = {n: (scratch / f"section{n}").open("wb") for n in sizes}
        self._written = dict.fromkeys(sizes, 0)

    def write(self, order: int, rows: pl.DataFrame) -> None:
        """rows: w1.. (ids), probability, and backoff but for the highest order."""
        ids = [self._words.gather(rows[w]).alias(w) for w in words(order)]
        told = rows.select(
            _log10("probability").clip(upper_bound=0.0),  # a sum may exceed 1 by its last bit
            pl.concat_str([pl.lit(column) for column in ids], separator=" ").alias("ngram"),
            *([_log10("backoff")] if "backoff" in rows.columns else []),
        )
        told.write_csv(self._sections[order], include_header=False, separator="\t", quote_style="never")
        self._written[order] += rows.height

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for section in self._sections.values():
            section.close()
        if kind is not None:
            return
        assert self._written == dict(self._sizes), f"{self._written} n-grams written, {self._sizes} announced"
        self._target.parent.mkdir(parents=True, exist_ok=True)
        beside = self._target.with_name(f".{self._target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with beside.open("wb") as out:
                out.write(b"\\data\\\n" + b"".join(f"ngram {n}={size}\n".encode() for n, size in self._sizes.items()))
                for n, section in self._sections.items():
                    out.write(f"\n\\{n}-grams:\n".encode())
                    with Path(section.name).open("rb") as lines:
                        shutil.copyfileobj(lines, out, 1 << 20)
                    Path(section.name).unlink()
                out.write(b"\n\\end\\\n")
            beside.replace(self._target)
        finally:
            beside.unlink(missing_ok=True)


def _log10(column: str) -> pl.Expr:
    # + 0 turns -0.0 into 0.0
    return (pl.col(column).log10() + 0.0).cast(pl.Float32)
