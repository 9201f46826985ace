"""The stages `fit-embeddings` and `embed`: a vector per document, in the aligned table `embeddings/<name>`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from labelers import text_sample
from labelers.embeddings import MODEL, WORDS, Embedder, FastTextEmbedder, TfidfEmbedder, TrainedEmbedder, load_embedder
from labelers.stages import TaskName
from pipeline.stage import GlobalResult, GlobalStage, Params, PartitionStage, Resources, StageResult
from pipeline.tables import embeddings_schema


class EmbedParams(Params):
    """Document embeddings. All kinds but `transformer` are trained on a sample of the corpus."""

    name: TaskName = Field(description="Name of the table: embeddings/<name>.")
    kind: Literal["fasttext", "tfidf", "contrastive", "transformer"] = Field(
        "fasttext",
        description="`fasttext`: means of word vectors. `tfidf`: TF-IDF and SVD. `contrastive`: an encoder taught by the "
        "labels of a task (needs torch). `transformer`: a Hugging Face or sentence-transformers model (needs transformers).",
    )
    dimension: int = Field(64, ge=1, description="Numbers per document; a transformer has its own.")
    characters: int = Field(5_000, ge=1, description="Characters of a document that are read.")
    documents: int = Field(20_000, ge=1, description="Documents to train on, at most; a uniform sample.")
    task: str | None = Field(None, description="For contrastive: the labelling task that says which documents are alike.")
    model: str | None = Field(None, description="For transformer: its folder, the same path on every machine.")
    gpus: float = Field(0, ge=0, description="For transformer: GPUs (or a share of one) per worker.")
    options: dict[str, Any] = Field({}, description="Further parameters of the embedder, such as `epochs` or `pooling`.")

    @model_validator(mode="after")
    def _check(self) -> EmbedParams:
        for kind, given, needs in (("contrastive", self.task, "task"), ("transformer", self.model, "model")):
            if (self.kind == kind) != (given is not None):
                what = f"needs {needs}" if self.kind == kind else f"takes no {needs}, which is for {kind}"
                raise ValueError(f"embeddings {self.name}: kind {self.kind} {what}")
        return self

    @property
    def trained(self) -> bool:
        """Whether a stage trains it before documents are embedded."""
        return self.kind != "transformer"


@dataclass
class FitEmbedder(GlobalStage):
    """Trains an embedder; leaves its files in `global/fit-embeddings/<name>/`."""

    params: EmbedParams

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"fit-embeddings/{self.params.name}"

    def input_tables(self) -> tuple[str, ...]:
        return ("documents", *((f"labels/{self.params.task}",) if self.params.task else ()))

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        documents = tables["documents"]
        ids = documents["id"].to_pylist()
        columns: dict[str, Any] = {"text": documents["raw_content"]}
        if self.params.task:
            labels = tables[f"labels/{self.params.task}"]
            shares = np.stack([labels[c].to_numpy() for c in labels.column_names if c.startswith("p_")], axis=1)
            flat = pa.array(np.ascontiguousarray(shares).ravel())
            columns["target"] = pa.FixedSizeListArray.from_arrays(flat, shares.shape[1])
        chosen = text_sample.sample(ids, columns, self.params.documents)
        texts = text_sample.texts_of(chosen["text"], self.params.characters)
        return chosen.set_column(chosen.column_names.index("text"), "text", texts)

    def merge(self, summaries: Sequence[pa.Table]) -> pa.Table:
        return text_sample.merge(summaries, self.params.documents)

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        rows = self.merge([summary])
        try:
            embedder = fit_embedder(self.params, rows)
        except TypeError as error:
            raise ValueError(f"{self.name}: options {self.params.options}: {error}") from error
        files: dict[str, pa.Table | bytes] = {WORDS: b"", **embedder.files()}  # every kind has the same files
        return GlobalResult(files, {"documents": len(rows), "dimension": embedder.dimension})


def fit_embedder(params: EmbedParams, rows: pa.Table) -> TrainedEmbedder:
    """Train on the texts (and, for contrastive, the probabilities) of a sample."""
    texts = rows["text"].to_pylist()
    if params.kind == "fasttext":
        return FastTextEmbedder.fit(texts, params.dimension, **params.options)
    if params.kind == "tfidf":
        return TfidfEmbedder.fit(texts, params.dimension, **params.options)
    from labelers.contrastive import ContrastiveEmbedder
    from labelers.encoder import EncoderConfig

    targets = rows["target"].combine_chunks().flatten().to_numpy().reshape(len(texts), -1)
    return ContrastiveEmbedder.fit(texts, targets, config=EncoderConfig(dimension=params.dimension), **params.options)


@dataclass
class Embed(PartitionStage):
    """A float16 vector per document: `embeddings/<name>`. A document without a word has zeros. Models load once per worker."""

    params: EmbedParams
    _embedder: Embedder | None = field(default=None, init=False, repr=False, compare=False)

    inputs = ("documents",)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"embed/{self.params.name}"

    @property
    def resources(self) -> Resources:  # type: ignore[override]
        return Resources(gpus=self.params.gpus)

    def files(self) -> Mapping[str, str]:
        if self.params.trained:
            return {name: f"global/fit-embeddings/{self.params.name}/{name}" for name in (MODEL, WORDS)}
        from labelers.embeddings_transformer import model_files

        assert self.params.model is not None
        return model_files(self.params.model)

    def output_tables(self) -> tuple[str, ...]:
        return (f"embeddings/{self.params.name}",)

    def setup(self, files: Mapping[str, Path]) -> None:
        if self.params.trained:
            self._embedder = load_embedder(files)
            return
        from labelers.embeddings_transformer import TransformerEmbedder

        assert self.params.model is not None
        self._embedder = TransformerEmbedder(self.params.model, **self.params.options)

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        assert self._embedder is not None, "setup loads the embedder"
        documents = tables["documents"]
        texts = text_sample.texts_of(documents["raw_content"], self.params.characters).to_pylist()
        table = embedding_table(documents["id"], self._embedder.embed(texts))
        empty = int((~np.array([bool(t.strip()) for t in texts], bool)).sum()) if texts else 0
        return StageResult(len(texts), {self.output_tables()[0]: table}, metrics={"without_text": empty})


def embedding_table(ids: pa.ChunkedArray | pa.Array, vectors: np.ndarray) -> pa.Table:
    """`tables.embeddings_schema` of vectors (n, d)."""
    schema = embeddings_schema(vectors.shape[1])
    flat = pa.array(np.ascontiguousarray(vectors, np.float16).ravel(), pa.float16())
    return pa.table([ids, pa.FixedSizeListArray.from_arrays(flat, type=schema.field("embedding").type)], schema=schema)


def embedding_matrix(table: pa.Table) -> np.ndarray:
    """The vectors (n, d) float32 of an `embeddings/<name>` table."""
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(table), column.type.list_size).astype(np.float32)


def embed_stages(params: EmbedParams) -> list[GlobalStage | PartitionStage]:
    """The stages of one table of embeddings, in order."""
    return [*([FitEmbedder(params)] if params.trained else []), Embed(params)]
