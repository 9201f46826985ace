"""Training: the same text gives the same bytes, and what is held out is not trained on."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece

from pipeline.normalize import normalize
from pipeline.perplexity import LanguageModel
from pipeline.pieces import PieceVocabulary, train_pieces
from pipeline.train_language_model import HashSample, LanguageModelParams, train_language_model
from tests.pipeline.library_text import docstrings

TEXTS = docstrings(250_000)
PARAMS = LanguageModelParams(vocabulary_size=600, order=3, held_out=0.2)


def test_the_same_texts_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    trained = train_language_model(lambda: TEXTS, "en", tmp_path / "here", PARAMS)
    code = (
        "from pathlib import Path; from tests.pipeline.test_train_language_model import *; "
        f"train_language_model(lambda: TEXTS, 'en', Path({str(tmp_path / 'there')!r}), PARAMS, threads=1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], env={"PYTHONHASHSEED": "7"})
    names = ["en.arpa", "en.sp.model"]
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == names, "and scratch files are gone"
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name
    assert trained.card["tokenizer"]["pieces"] == 600
    assert trained.card["model"]["ngrams"].keys() == {"1", "2", "3"}


def test_held_out_documents_are_scored_and_not_trained_on(tmp_path: Path) -> None:
    marked = [f"{text} zyxgnarl" for text in TEXTS]
    seen: list[list[str]] = []

    def texts() -> list[str]:
        seen.append(marked)
        return marked

    trained = train_language_model(texts, "en", tmp_path, PARAMS)
    assert len(seen) == 2
    text, held_out = trained.card["text"], trained.card["held_out"]
    assert text["documents"] == len(TEXTS) == text["training_documents"] + held_out["documents"]
    assert 0.1 < held_out["documents"] / len(TEXTS) < 0.3
    assert held_out["cutoffs"] == {"30": trained.percentiles[30.0], "60": trained.percentiles[60.0]}
    model = LanguageModel(trained.tokenizer, trained.model)
    from pipeline.train_language_model import _hash, _is_held_out

    out = [t for t in marked if _is_held_out(_hash(t, PARAMS.seed), PARAMS)]
    trained_on = [t for t in marked if not _is_held_out(_hash(t, PARAMS.seed), PARAMS)]
    assert len(out) == held_out["documents"]
    scores = [sorted(p for p in model.perplexities(part) if p is not None) for part in (out, trained_on)]
    assert scores[0][len(out) // 2] > 1.5 * scores[1][len(trained_on) // 2], "what was seen in training looks easier"
    below = sum(p < trained.percentiles[30.0] for p in scores[0]) / len(out)
    assert below == pytest.approx(0.3, abs=0.05)


def test_too_little_text_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 documents of en leave 1 to train on and 0 held out"):
        train_language_model(lambda: ["one document", " "], "en", tmp_path, PARAMS)
    with pytest.raises(ValueError, match="cannot train 5 SentencePiece pieces on this text"):
        train_language_model(lambda: TEXTS, "en", tmp_path, PARAMS.model_copy(update={"vocabulary_size": 5}))


def test_a_small_text_gives_fewer_pieces_than_asked_for() -> None:
    model = train_pieces(["a few words make a few pieces", "a few more words"], 65536)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert 10 < pieces.get_piece_size() < 200


def test_ids_spell_what_sentencepiece_writes() -> None:
    lines = [normalize(t) for t in TEXTS[:200]]
    processor = sentencepiece.SentencePieceProcessor(model_proto=train_pieces(lines, 500))
    vocabulary = PieceVocabulary(processor)
    odd = ["日本語 text with 漢字", "日本語", "an emoji 🎉 and 🎉🎉", "", "<s> </s> <unk>", "zażółć ж"]
    for line, ids in zip([*lines, *odd], vocabulary.encode([*lines, *odd]), strict=True):
        assert [vocabulary.words[i] for i in ids] == processor.encode(line, out_type=str)
        assert not len(ids) or ids.min() > 2
    assert len(set(vocabulary.words)) == len(vocabulary.words)


def test_a_sample_does_not_depend_on_the_order_of_its_texts() -> None:
    keyed = [(key, "x" * (key % 7 + 1)) for key in random.Random(5).sample(range(10_000), 300)]
    for limits in ({"characters": 200}, {"texts": 20}, {"characters": 90, "texts": 25}):
        results = []
        for seed in range(3):
            sample = HashSample(**limits)
            for key, text in random.Random(seed).sample(keyed, len(keyed)):
                sample.add(key, text)
            results.append(sample.texts())
        assert results[0] == results[1] == results[2]
        smallest = [text for _, text in sorted(keyed)[: len(results[0])]]
        assert results[0] == smallest
        if "texts" not in limits:
            assert sum(map(len, smallest[:-1])) < limits["characters"] <= sum(map(len, smallest))


def test_no_path_enters_a_model() -> None:
    model = train_pieces(["some words here", "and some there"], 100)
    assert not re.search(rb"/tmp|\.txt|\.model", model)
