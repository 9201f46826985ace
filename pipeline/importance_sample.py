"""Gumbel top-k: a sample without replacement in which a document's chance grows with its importance (DSIR, Xie et al. 2023).

Adding Gumbel noise to log weights and taking the k largest draws k documents without replacement in proportion to the weights
(Efraimidis and Spirakis 2006; Kool et al. 2019). The noise is a hash of the document's id: the same in every run and partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.expressions import unknown_column
from pipeline.stage import Params

NOT_SAMPLED = "not_sampled"
"""The reason of a document that its component would take, and that the sample leaves out."""
_BITS = 20


class ImportanceSample(Params):
    """How many documents of a component are kept, and by what."""

    by: str = Field(
        default="rps_doc_wikipedia_importance",
        description="Column with the log of each document's weight; a document without a value is left out.",
    )
    documents: int | None = Field(default=None, ge=1, description="How many documents are kept.")
    fraction: float | None = Field(default=None, gt=0, le=1, description="Or what share of the component's documents.")
    temperature: float = Field(
        default=1.0, gt=0, description="Divides the logarithm: large for a sample that minds the weights less."
    )
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="Seed of the noise.")

    @model_validator(mode="after")
    def _one_size(self) -> ImportanceSample:
        if (self.documents is None) == (self.fraction is None):
            raise ValueError("sample: give either documents, or fraction")
        return self


def ranks(sample: ImportanceSample, frame: pl.DataFrame, what: str) -> pl.Series:
    """The rank of each document, as text that sorts as the noisy weights do; null without a weight.

    It has the sign, the exponent and 11 bits of the weight: documents within 0.05 % of each other share a rank, so that ranks
    can be counted over a corpus of any size. ValueError if there is no column `sample.by`, or it holds no numbers.
    """
    if sample.by not in frame.columns:
        raise unknown_column(sample.by, frame.columns, what)
    if not frame.schema[sample.by].is_numeric():
        raise ValueError(f"{what}: the column {sample.by} holds {frame.schema[sample.by]}, not numbers to sample by")
    weights = frame[sample.by].cast(pl.Float64).fill_null(np.nan).to_numpy() / sample.temperature
    hashes = np.array([xxhash.xxh3_64_intdigest(i.encode(), sample.seed) for i in frame["id"].to_list()], np.uint64)
    keys = _ordered(weights + gumbel(hashes))
    told = [f"{key:05x}" if there else None for key, there in zip(keys.tolist(), ~np.isnan(weights), strict=True)]
    return pl.Series("rank", told, dtype=pl.String)


def gumbel(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Standard Gumbel noise of uniformly distributed 64-bit hashes."""
    uniform = ((hashes >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52  # 53 bits hold it: neither 0 nor 1
    return -np.log(-np.log(uniform))


def cut(sample: ImportanceSample, counts: Sequence[Mapping[str, Any]]) -> str:
    """The lowest rank that is kept, of rows with `rank` and `documents`: as near as ranks allow to the number wanted, at least
    one rank. Documents without a rank are in the share that `fraction` is of, and never kept."""
    total = sum(row["documents"] for row in counts)
    wanted = sample.documents if sample.documents is not None else round((sample.fraction or 0) * total)
    by_rank: dict[str, int] = {}
    for row in counts:
        if row["rank"] is not None:
            by_rank[row["rank"]] = by_rank.get(row["rank"], 0) + row["documents"]
    kept, lowest = 0, "g"  # above every rank
    for rank in sorted(by_rank, reverse=True):
        if kept and abs(kept + by_rank[rank] - wanted) >= abs(kept - wanted):
            break
        kept, lowest = kept + by_rank[rank], rank
    return lowest


def _ordered(values: NDArray[np.float64]) -> NDArray[np.uint32]:
    """The first bits of floats as integers of the same order."""
    bits = values.astype(np.float32).view(np.uint32)
    sign = np.uint32(1 << 31)
    return np.where(bits & sign != 0, ~bits, bits | sign) >> np.uint32(32 - _BITS)
