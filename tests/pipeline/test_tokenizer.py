"""Training is a function of the texts, and the end-of-text token ends texts and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from pipeline.tokenizer import BYTES, END_OF_TEXT, DocumentTokenizer, train_bpe

TEXTS = [Path(f).read_text(encoding="utf-8") for f in (subprocess.__file__, os.__file__, json.__file__)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> DocumentTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_bytes(train_bpe(TEXTS, 600))
    return DocumentTokenizer(path)


def test_training_gives_the_same_bytes_whatever_the_order_the_threads_and_the_hash_seed() -> None:
    expected = train_bpe(TEXTS, 600)
    assert train_bpe(TEXTS[::-1], 600) == expected
    code = (
        "import sys, subprocess, os, json; from pathlib import Path; from pipeline.tokenizer import train_bpe;"
        "sys.stdout.buffer.write(train_bpe([Path(f).read_text(encoding='utf-8') for f in"
        " (os.__file__, json.__file__, subprocess.__file__)], 600))"
    )
    for threads, seed in (("1", "1"), ("5", "2")):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed}
        assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout == expected


@given(st.lists(st.text(max_size=40) | st.sampled_from([END_OF_TEXT, f"a{END_OF_TEXT}b", "", "\x00", "é\u0301\U0001f600"])))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back_and_only_ends_are_ends(trained: DocumentTokenizer, texts: list[str]) -> None:
    tokens, lengths = trained.encode(texts)
    assert tokens.dtype == np.uint16 and len(lengths) == len(texts) and lengths.sum() == len(tokens)
    ends = np.cumsum(lengths)
    assert np.flatnonzero(tokens == trained.eos).tolist() == (ends - 1).tolist()
    assert [trained.decode(tokens[e - n : e]) for e, n in zip(ends, lengths, strict=True)] == texts


def test_batches_do_not_show(trained: DocumentTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained.encode(TEXTS)
    monkeypatch.setattr("pipeline.tokenizer._BATCH_CHARACTERS", 1)
    for one, other in zip(whole, trained.encode(TEXTS), strict=True):
        assert np.array_equal(one, other)


def test_every_byte_and_the_end_need_a_place() -> None:
    with pytest.raises(ValueError, match="257"):
        train_bpe(TEXTS, BYTES)
    assert Tokenizer.from_buffer(train_bpe(["ab"], 1000)).get_vocab_size() <= 258


def test_a_tokenizer_that_cuts_or_pads_is_kept_from_it(trained: DocumentTokenizer, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(trained.path))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "cut.json"))
    cut = DocumentTokenizer(tmp_path / "cut.json")
    assert np.array_equal(cut.encode(TEXTS)[0], trained.encode(TEXTS)[0])
    assert cut.sha256 != trained.sha256


def _words(path: Path, vocabulary: dict[str, int]) -> Path:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer.save(str(path))
    return path


def test_the_end_of_text_is_found_or_must_be_named(tmp_path: Path) -> None:
    assert DocumentTokenizer(_words(tmp_path / "one.json", {"?": 0, "</s>": 7})).eos == 7
    with pytest.raises(ValueError, match=r"any of </s>, <eos>: name one with eos"):
        DocumentTokenizer(_words(tmp_path / "two.json", {"?": 0, "</s>": 1, "<eos>": 2}))
    assert DocumentTokenizer(tmp_path / "two.json", "<eos>").eos == 2
    with pytest.raises(ValueError, match=r"none\.json has no end-of-text token.*eos"):
        DocumentTokenizer(_words(tmp_path / "none.json", {"?": 0, "END": 1}))
    with pytest.raises(ValueError, match="has no token <stop>"):
        DocumentTokenizer(tmp_path / "none.json", "<stop>")
    named = DocumentTokenizer(tmp_path / "none.json", "END")
    assert named.encode(["a b", ""])[0].tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="makes END out of ordinary text"):
        named.encode(["THE END"])


def test_ids_beyond_65535_need_four_bytes(tmp_path: Path) -> None:
    wide = DocumentTokenizer(_words(tmp_path / "wide.json", {"?": 0, "</s>": 1, "far": 1 << 16}))
    tokens, _ = wide.encode(["far far"])
    assert (wide.vocabulary, tokens.dtype) == ((1 << 16) + 1, np.uint32)
    assert tokens.tolist() == [1 << 16, 1 << 16, 1]


def test_what_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.json").write_text("{}")
    with pytest.raises(ValueError, match=r"page\.json is no tokenizer"):
        DocumentTokenizer(tmp_path / "page.json")
    with pytest.raises(ValueError, match=r"cannot read the tokenizer .*missing\.json"):
        DocumentTokenizer(tmp_path / "missing.json")
