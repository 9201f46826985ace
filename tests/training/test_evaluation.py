"""Perplexity: every token of a held-out document scored once, by itself."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny import EOS, random_documents, tiny_run, write_shards
from training.evaluation import _parts, evaluate
from training.loop import train
from training.weights import load_trained

WORDS = ["apple ", "bread ", "café ", "dough "]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    manifest = write_shards(folder, random_documents(1, 300, high=64))
    train(tiny_run(folder, {"web": {"manifest": manifest}}, optimizer__lr=1e-2), lambda line: None)
    return folder


def test_perplexity_is_that_of_the_documents_one_by_one(run: Path) -> None:
    documents = random_documents(3, 20, longest=30, high=64)  # shorter than the sequences of 32
    manifest = write_shards(run, documents, "held", "heldout", shards=2)
    trained = load_trained(run / "run")
    total, count = 0.0, 0
    for document in documents:
        whole = torch.tensor([EOS, *document, EOS])
        with torch.no_grad():
            logits = trained.model(whole[None, :-1])[0]
        total += float(torch.nn.functional.cross_entropy(logits, whole[1:], reduction="sum"))
        count += len(document) + 1
    got = evaluate(run / "run", {"held": manifest})["held"]
    assert (got["documents"], got["tokens"]) == (20, count)
    assert got["loss"] == pytest.approx(total / count, rel=1e-5)
    assert got["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)


@pytest.mark.parametrize("length", [1, 5, 8, 9, 12, 13, 40, 41])
def test_every_token_of_a_long_document_is_scored_once_with_what_comes_before(length: int) -> None:
    document = np.arange(100, 100 + length)
    scored: list[int] = []
    for part in _parts(document, EOS, 8):
        assert len(part.inputs) == len(part.targets) <= 8
        assert (part.inputs[1:] == part.targets[:-1]).all()
        new = part.targets[len(part.targets) - part.scored :]
        assert not scored or len(part.targets) - part.scored >= 4  # half a sequence of context
        scored += new.tolist()
    assert scored == document.tolist()


def test_bits_per_byte_count_the_text(run: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(run / "tokenizer.json"))
    texts = ["".join(WORDS), "bread "]
    manifest = write_shards(run, [tokenizer.encode(text).ids for text in texts], "words", "heldout")
    got = evaluate(run / "run", {"words": manifest})["words"]
    size = sum(len(text.encode()) for text in texts)
    assert got["bits_per_byte"] == pytest.approx(got["loss"] * got["tokens"] / math.log(2) / size)


def test_it_stops_where_it_is_told_to_and_refuses_other_tokenizers(run: Path, tmp_path: Path) -> None:
    manifest = write_shards(run, [[1] * 9] * 10, "ones", "heldout")
    assert evaluate(run / "run", {"ones": manifest}, max_tokens=25)["ones"]["tokens"] == 30
    other = write_shards(tmp_path, [[1, 2]], "other")
    text = Path(other).read_text().replace('"tokenizer_sha256": "', '"tokenizer_sha256": "0')
    Path(other).write_text(text)
    with pytest.raises(ValueError, match="written with another tokenizer"):
        evaluate(run / "run", {"other": other})
    with pytest.raises(ValueError, match=r"config\.json is missing: a run writes it when its last step is done"):
        evaluate(tmp_path, {"ones": manifest})
