"""Text from a model: what it learned comes back, and a cache changes nothing but speed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from tests.training.tiny import tiny_run, write_shards
from training.config import ModelConfig
from training.generation import Sampler, generate
from training.loop import train
from training.model import Transformer

SENTENCE = "the quick brown fox jumps over the lazy dog"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_shards(folder, [[1]], "none")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    manifest = write_shards(folder, [tokenizer.encode(SENTENCE).ids] * 8)
    changes = {"steps": 80, "data__seq_len": 44, "optimizer__lr": 1e-2, "log__checkpoint_interval": 100}
    train(tiny_run(folder, {"web": {"manifest": manifest, "max_epochs": 1000}}, **changes), lambda line: None)
    return folder / "run"


def test_a_learned_text_comes_back_and_ends(run: Path) -> None:
    assert generate(run, "the quick", 100, temperature=0) == SENTENCE
    assert generate(run, "", 100, temperature=0) == SENTENCE
    assert generate(run, "the quick", 6, temperature=0) == "the quick brown"
    assert generate(run, "the quick", 0) == "the quick"


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {"temperature": 1.5}, {"temperature": 1.5, "top_k": 9, "top_p": 0.9}]
)
def test_with_and_without_a_cache_the_text_is_the_same(run: Path, settings: dict[str, float]) -> None:
    cached, slow = (generate(run, "zz", 90, seed=3, use_cache=cache, **settings) for cache in (True, False))  # type: ignore[arg-type]
    assert cached == slow


def test_the_seed_decides(run: Path) -> None:
    one, again, other = (generate(run, "q", 40, temperature=3.0, seed=seed) for seed in (1, 1, 2))
    assert one == again != other


def sampler(**settings: float) -> Sampler:
    model = Transformer(ModelConfig(vocabulary=4, layers=1, d_model=8, heads=2)).initialise(0)
    values = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **settings}
    return Sampler(model, 16, values["temperature"], int(values["top_k"]), values["top_p"], seed=0)


def test_draws_follow_the_distribution_that_is_left() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()

    def drawn(**settings: float) -> list[float]:
        one = sampler(**settings)
        counts = torch.bincount(torch.tensor([one.draw(logits) for _ in range(4000)]), minlength=4)
        return (counts / 4000).tolist()

    close = 4 * (0.25 / 4000) ** 0.5
    assert drawn() == pytest.approx([0.1, 0.4, 0.2, 0.3], abs=close)
    assert drawn(top_k=2) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=close)
    assert drawn(top_p=0.65) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=close)  # 0.4 + 0.3 reach 0.65
    assert drawn(top_p=0.75) == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9], abs=close)
    assert drawn(top_p=0.01) == [0, 1, 0, 0]
    assert drawn(temperature=0.0) == [0, 1, 0, 0]
    assert drawn(temperature=0.5) == pytest.approx([1 / 30, 16 / 30, 4 / 30, 9 / 30], abs=close)


def test_settings_out_of_range_are_errors(run: Path) -> None:
    for wrong in ({"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}, {"tokens": -1}):
        with pytest.raises(ValueError, match="generate takes"):
            generate(run, "x", **wrong)  # type: ignore[arg-type]
