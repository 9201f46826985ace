from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelers import text_sample
from labelers.embeddings import Embedder, FastTextEmbedder, TfidfEmbedder, load_embedder, unit

TOPICS = {
    "physics": "quark lepton boson photon field energy mass particle collider quantum spin charge",
    "cooking": "flour butter sugar oven bake dough salt pepper recipe simmer whisk cream",
}


def texts_of_topics(n: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Documents of ten words of one of two topics, and which."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(0, 2, n)
    words = [np.array(w.split()) for w in TOPICS.values()]
    return [" ".join(rng.choice(words[t], 10)) for t in topics.tolist()], topics


def separation(embedder: Embedder, seed: int = 1) -> float:
    """Mean cosine within topics less that between them, on new documents."""
    texts, topics = texts_of_topics(80, seed)
    points = embedder.embed(texts)
    cosines, same = points @ points.T, topics[:, None] == topics[None, :]
    return float(cosines[same].mean() - cosines[~same].mean())


def stored(embedder: Any, folder: Path) -> Embedder:
    for name, content in embedder.files().items():
        (folder / name).write_bytes(content)
    return load_embedder({name: folder / name for name in embedder.files()})


MAKERS: list[Callable[[Sequence[str]], Any]] = [
    lambda texts: FastTextEmbedder.fit(texts, dimension=16, epochs=15),
    lambda texts: TfidfEmbedder.fit(texts, dimension=8),
]


@pytest.mark.parametrize("make", MAKERS, ids=["fasttext", "tfidf"])
def test_an_embedder_tells_topics_apart_and_survives_its_files(make: Callable[[Sequence[str]], Any], tmp_path: Path) -> None:
    texts, _ = texts_of_topics(200)
    embedder = make(texts)
    assert separation(embedder) > 0.5
    loaded = stored(embedder, tmp_path)
    new = [*texts_of_topics(10, 2)[0], "", "...", "entirely unheard-of"]
    found = embedder.embed(new)
    assert found.dtype == np.float32 and found.shape == (13, embedder.dimension)
    assert np.array_equal(loaded.embed(new), found) and loaded.embed([]).shape == (0, embedder.dimension)
    lengths = np.linalg.norm(found, axis=1)
    assert lengths[:10] == pytest.approx(1, abs=1e-5) and lengths[10] == 0
    assert np.array_equal(make(texts).embed(new), found)  # the same texts, the same points


def test_a_small_corpus_has_fewer_dimensions() -> None:
    assert TfidfEmbedder.fit(["quark boson", "quark oven"], dimension=64).dimension <= 2


@pytest.mark.parametrize("make", [FastTextEmbedder.fit, TfidfEmbedder.fit])
def test_texts_without_a_word_are_refused(make: Callable[[Sequence[str]], Any]) -> None:
    for texts in ([], ["", "  "]):
        with pytest.raises(ValueError, match="cannot be trained on"):
            make(texts)
    with pytest.raises(ValueError, match=r"no word is in 2|nothing to train on"):
        make(["alpha", "beta"])


def test_a_file_that_is_no_embedder_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(ValueError, match="is no embedder"):
        load_embedder({"embedder.safetensors": tmp_path / "x"})


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights, in the layout of a Hugging Face model."""
    pytest.importorskip("transformers", reason="the package transformers is not installed")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("transformer")
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.train_from_iterator(TOPICS.values(), trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_a_transformer_in_a_folder_embeds(transformer: Path, tmp_path: Path) -> None:
    from labelers.embeddings_transformer import TransformerEmbedder, model_files

    embedder = TransformerEmbedder(transformer, batch=3, device="cpu")
    texts = [*texts_of_topics(7)[0], "", " ".join(["quark"] * 100)]  # the last is longer than the model reads
    found = embedder.embed(texts)
    assert found.shape == (9, 16) and not found[7].any()
    assert np.linalg.norm(found[[0, 6, 8]], axis=1) == pytest.approx(1, abs=1e-5)
    one_by_one = np.concatenate([embedder.embed([t]) for t in texts])
    assert np.allclose(found, one_by_one, atol=1e-5)  # neither order nor padding matters
    assert {"model:config.json", "model:model.safetensors", "model:tokenizer.json"} <= set(model_files(transformer))


def test_a_sentence_transformers_folder_says_how_to_pool(transformer: Path) -> None:
    from labelers.embeddings_transformer import TransformerEmbedder

    (transformer / "1_Pooling").mkdir(exist_ok=True)
    told = transformer / "1_Pooling" / "config.json"
    told.write_text(json.dumps({"pooling_mode_cls_token": True}))
    by_cls = TransformerEmbedder(transformer, device="cpu")
    told.write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    by_mean = TransformerEmbedder(transformer, device="cpu")
    assert (by_cls.pooling, by_mean.pooling) == ("cls", "mean")
    assert not np.allclose(by_cls.embed(["quark boson"]), by_mean.embed(["quark boson"]))


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    from labelers.embeddings_transformer import model_files

    with pytest.raises(ValueError, match="is no folder of a model"):
        model_files(tmp_path)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.text(max_size=4), max_size=30), st.lists(st.integers(0, 30), max_size=3), st.integers(1, 12))
def test_a_sample_does_not_depend_on_how_documents_are_split(ids: set[str], cuts: list[int], size: int) -> None:
    names = sorted(ids)
    column = pa.array([f"text {i}" for i in names], pa.string())
    edges = [0, *sorted(min(c, len(names)) for c in cuts), len(names)]
    parts = [text_sample.sample(names[a:b], {"text": column[a:b]}, size) for a, b in itertools.pairwise(edges)]
    whole = text_sample.sample(names, {"text": column}, size)
    assert text_sample.merge(parts, size).equals(whole) and len(whole) == min(size, len(names))
    assert text_sample.merge([text_sample.merge(parts[:1], size), *parts[1:]], size).equals(whole)


def test_texts_are_cut_by_characters() -> None:
    assert text_sample.texts_of(pa.chunked_array([["éab", None], ["x"]]), 2).to_pylist() == ["éa", "", "x"]


def test_rows_of_zeros_stay() -> None:
    assert unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [pytest.approx([0.6, 0.8]), [0, 0]]
