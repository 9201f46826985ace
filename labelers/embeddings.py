"""Document embeddings: what an embedder is, and the two that are trained on the corpus itself."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from labelers.fasttext_model import FastTextModel, one_line, train

MODEL, WORDS = "embedder.safetensors", "words.bin"
"""Files of an embedder: its arrays with what it is in the metadata, and fastText's vectors where it has some."""
_CONTENT = "embedder"


class Embedder(Protocol):
    """Texts to points whose nearness means likeness: cosine for all embedders here."""

    dimension: int

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dimension) float32, rows of length one; a row of zeros for a text that holds nothing to go by."""
        ...


class TrainedEmbedder(Embedder, Protocol):
    """An embedder that is trained on texts, and stored as files."""

    def files(self) -> dict[str, bytes]:
        """Its files by name; `load_embedder` reads them."""
        ...


class FastTextEmbedder:
    """Means of fastText word vectors (Bojanowski et al. 2017, with subwords) that are trained on the corpus, centred.

    Averages of word vectors share a large common direction; without it, cosines tell documents apart.
    """

    kind = "fasttext"

    def __init__(self, words: bytes, mean: np.ndarray) -> None:
        self._words, self._mean = words, mean.astype(np.float32)
        with tempfile.TemporaryDirectory(prefix="embedder.") as folder:  # fastText loads from files only
            path = Path(folder) / WORDS
            path.write_bytes(words)
            self._model = FastTextModel(path)
        self.dimension = self._model.dimension

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        dimension: int = 64,
        epochs: int = 5,
        min_count: int = 2,
        buckets: int = 50_000,
    ) -> FastTextEmbedder:
        """Train skip-gram vectors on texts, in one thread, so that the same texts give the same vectors.

        ValueError if the texts hold no word `min_count` times.
        """
        _check_texts(texts)
        with tempfile.TemporaryDirectory(prefix="embedder.") as folder:
            corpus, model = Path(folder) / "texts.txt", Path(folder) / WORDS
            corpus.write_text("\n".join(one_line(t) for t in texts) + "\n", encoding="utf-8")
            try:
                train(
                    "unsupervised", corpus, model, model="skipgram", dim=dimension, epoch=epochs, minCount=min_count, minn=3,
                    maxn=5, bucket=buckets,
                )  # fmt: skip
            except RuntimeError as error:
                raise ValueError(f"fastText finds nothing to train on in {len(texts)} texts: {error}") from error
            if FastTextModel(model).words <= {"</s>"}:
                raise ValueError(
                    f"fastText finds nothing to train on: no word is there {min_count} times in {len(texts)} texts"
                )
            words = model.read_bytes()
        embedder = cls(words, np.zeros(dimension))
        vectors = unit(embedder._model.vectors(texts))
        embedder._mean = vectors[np.any(vectors != 0, axis=1)].mean(axis=0, dtype=np.float64).astype(np.float32)
        return embedder

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors = unit(self._model.vectors(texts))
        known = np.any(vectors != 0, axis=1, keepdims=True)
        return unit(np.where(known, vectors - self._mean, 0))

    def files(self) -> dict[str, bytes]:
        return {MODEL: encode(self.kind, {}, {"mean": self._mean}), WORDS: self._words}


class TfidfEmbedder:
    """TF-IDF of words, projected on the leading singular vectors (latent semantic analysis, Deerwester et al. 1990)."""

    kind = "tfidf"

    def __init__(self, vocabulary: Sequence[str], idf: np.ndarray, components: np.ndarray) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vocabulary, self._idf, self._components = list(vocabulary), idf, components.astype(np.float32)
        self._vectorizer = TfidfVectorizer(vocabulary=self._vocabulary, **_TFIDF)
        self._vectorizer.idf_ = idf
        self.dimension = len(components)

    @classmethod
    def fit(
        cls, texts: Sequence[str], dimension: int = 64, features: int = 50_000, min_documents: int = 2, seed: int = 0
    ) -> TfidfEmbedder:
        """Learn vocabulary, weights and directions from texts. Fewer dimensions come out where there are fewer texts or words.

        ValueError if no word is in `min_documents` texts.
        """
        _check_texts(texts)
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.utils.extmath import randomized_svd

        vectorizer = TfidfVectorizer(min_df=min(min_documents, len(texts)), max_features=features, **_TFIDF)
        try:
            weights = vectorizer.fit_transform(texts)
        except ValueError as error:
            raise ValueError(f"no word is in {min_documents} of {len(texts)} texts: {error}") from error
        rank = min(dimension, *weights.shape)
        _, _, components = randomized_svd(weights, rank, n_iter=5, random_state=seed)  # type: ignore[arg-type]
        return cls(vectorizer.get_feature_names_out().tolist(), vectorizer.idf_, np.asarray(components))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if not len(texts):
            return np.empty((0, self.dimension), np.float32)
        weights: Any = self._vectorizer.transform(texts)
        return unit(np.asarray(weights @ self._components.T, np.float32))

    def files(self) -> dict[str, bytes]:
        told = {"vocabulary": self._vocabulary}
        return {MODEL: encode(self.kind, told, {"idf": np.asarray(self._idf), "components": self._components})}


_TFIDF: dict[str, Any] = {"sublinear_tf": True, "token_pattern": r"(?u)\b\w+\b", "strip_accents": None}


def load_embedder(files: Mapping[str, Path]) -> Embedder:
    """The embedder that `TrainedEmbedder.files` stored. files: local path by name. ValueError if they hold none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = files[MODEL].read_bytes()
    try:
        arrays = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        told = json.loads(header["__metadata__"][_CONTENT])
        kind = told.pop("kind")
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{files[MODEL]} is no embedder: {error}") from error
    if kind == FastTextEmbedder.kind:
        return FastTextEmbedder(files[WORDS].read_bytes(), arrays["mean"])
    if kind == TfidfEmbedder.kind:
        return TfidfEmbedder(told["vocabulary"], arrays["idf"], arrays["components"])
    if kind == "contrastive":
        from labelers.contrastive import ContrastiveEmbedder

        return ContrastiveEmbedder.from_arrays(told, arrays)
    raise ValueError(f"{files[MODEL]} holds an embedder of the kind {kind}, which there is not")


def encode(kind: str, told: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays and what goes with them as one safetensors file."""
    from safetensors.numpy import save

    metadata = {_CONTENT: json.dumps({"kind": kind, **told}, ensure_ascii=False)}
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one, float32; rows of zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros(vectors.shape, np.float32), where=length > 0, casting="same_kind")


def _check_texts(texts: Sequence[str]) -> None:
    if not any(t.strip() for t in texts):
        raise ValueError(f"an embedder cannot be trained on {len(texts)} texts without a word")
