"""The stage `annotate`: all signals and the MinHash signature of every document, in one pass over the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
from pydantic import Field, field_validator

from pipeline.minhash import MinHash, MinHashParams
from pipeline.stage import Params, PartitionStage, StageResult
from pipeline.tables import MINHASH
from pipeline.text import TextBatch
from quality import registry


class AnnotateParams(Params):
    """What `annotate` measures."""

    signals: Literal["all"] | tuple[str, ...] = Field(
        default="all", description="Names of quality signals, or `all`; [] leaves `signals` alone."
    )
    minhash: MinHashParams = Field(default_factory=MinHashParams, description="How documents are signed.")

    @field_validator("signals")
    @classmethod
    def _known(cls, names: Literal["all"] | tuple[str, ...]) -> Literal["all"] | tuple[str, ...]:
        registry.select(names)
        return names


@dataclass
class Annotate(PartitionStage):
    """documents -> signals, minhash. One tokenisation serves both; a batch of a few megabytes is in memory at a time."""

    params: AnnotateParams = field(default_factory=AnnotateParams)

    name = "annotate"
    inputs = ("documents",)
    outputs = ("signals", "minhash")

    def output_tables(self) -> tuple[str, ...]:
        return self.outputs if self.params.signals else ("minhash",)

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        documents = tables["documents"]
        signals, minhash = annotate(documents, registry.select(self.params.signals), MinHash(self.params.minhash))
        metrics = {"unsigned_documents": minhash["signature"].null_count}
        written = {"signals": signals, "minhash": minhash}
        return StageResult(documents.num_rows, {t: written[t] for t in self.output_tables()}, metrics=metrics)


def annotate(
    documents: pa.Table, signals: Sequence[registry.Signal], minhash: MinHash | None = None
) -> tuple[pa.Table, pa.Table]:
    """The tables `signals` and `minhash` of documents with columns `id` and `raw_content`; without `minhash`, the second
    has no rows. ValueError if a column is missing or the text is not UTF-8."""
    if "id" not in documents.column_names:
        raise ValueError(f"no column id; there is {', '.join(documents.column_names)}")
    measured: dict[str, list[pa.Array]] = {each.name: [] for each in signals}
    signatures: list[pa.Array] = []
    for text in TextBatch.over(documents):
        for name, values in registry.measure(text, signals).items():
            measured[name].append(values)
        if minhash is not None:
            signatures.append(minhash.sign(text))
    columns = {name: pa.chunked_array(chunks, pa.float64()) for name, chunks in measured.items()}
    measurements = pa.table({"id": documents["id"], **columns}, schema=registry.schema(signals))
    ids = documents["id"] if minhash is not None else documents["id"].slice(0, 0)
    signed = pa.chunked_array(signatures, MINHASH.field("signature").type)
    return measurements, pa.table({"id": ids, "signature": signed}, schema=MINHASH)
