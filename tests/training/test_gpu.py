"""On a GPU: fused attention keeps documents apart, bfloat16 follows float32, generation and resuming work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.tiny import random_documents, tiny_run, write_shards
from training.config import ModelConfig
from training.generation import generate
from training.loop import train
from training.metrics import read_metrics
from training.model import Transformer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

CONFIG = ModelConfig(vocabulary=512, layers=2, d_model=256, heads=4, kv_heads=2)


def model(config: ModelConfig) -> Transformer:
    made = Transformer(config).initialise(5)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    return made.cuda()


def packed() -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, 512, (2, 384), generator=torch.Generator().manual_seed(0))
    documents = torch.zeros(2, 384, dtype=torch.int32)
    documents[0, 131:], documents[0, 300:], documents[1, 1:] = 1, 2, 1
    return tokens.cuda(), documents.cuda()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_changing_one_document_leaves_the_others_equal_to_the_bit(dtype: torch.dtype) -> None:
    made = model(CONFIG)
    tokens, documents = packed()
    other = tokens.clone()
    other[0, :131] = (other[0, :131] + 1) % 512
    with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        before, after = made(tokens, documents), made(other, documents)
    assert torch.equal(before[0, 131:], after[0, 131:])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0, :131], after[0, :131])


def test_every_attention_and_its_gradients_equal_the_dense_mask() -> None:
    tokens, documents = packed()
    gradients = []
    for attention in ("fused", "flex", "sdpa"):
        made = model(replace(CONFIG, attention=attention))  # type: ignore[arg-type]
        logits = made(tokens, documents)
        logits.square().mean().backward()
        gradients.append([logits.detach(), *(p.grad for p in made.parameters())])
    for fused, flex, dense in zip(*gradients, strict=True):
        assert fused is not None
        assert flex is not None
        assert dense is not None
        assert (fused - dense).norm() < 2e-5 * dense.norm()
        assert (flex - dense).norm() < 2e-5 * dense.norm()


def test_a_step_on_the_gpu_computes_what_the_cpu_does() -> None:
    tokens, documents = packed()
    targets = tokens.roll(-1, 1).long()
    results = []
    for device in ("cuda", "cpu"):
        made = model(CONFIG).to(device)
        result = made(tokens.to(device), documents.to(device), targets=targets.to(device), scale=1 / tokens.numel())
        result.loss.backward()
        results.append([result.token_loss.detach().cpu(), *(p.grad.cpu() for p in made.parameters() if p.grad is not None)])
    for there, here in zip(*results, strict=True):
        assert (there - here).norm() < 2e-5 * here.norm()


def test_compiled_blocks_compute_the_same() -> None:
    tokens, documents = packed()
    made, compiled = model(CONFIG), model(CONFIG)
    for block in compiled.blocks:
        block.compile()
    with torch.no_grad():
        plain, fused = made(tokens, documents), compiled(tokens, documents)
    assert (plain - fused).norm() < 2e-5 * plain.norm()


def test_bfloat16_follows_float32_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path, random_documents(1, 2000, longest=200, high=32))
    changes = {"device": "cuda", "steps": 40, "data__seq_len": 128, "data__batch": 16, "model__d_model": 128}
    config = tiny_run(tmp_path, {"web": {"manifest": manifest}}, **changes, log__checkpoint_interval=20)
    losses = {}
    for precision in ("float32", "bfloat16"):
        chosen = replace(config, precision=precision, folder=str(tmp_path / precision))  # type: ignore[arg-type]
        train(chosen, lambda line: None)
        losses[precision] = [line["loss"] for line in read_metrics(tmp_path / precision)]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.01)
    assert losses["bfloat16"][-1] < losses["bfloat16"][0] - 1

    def stop(line: str) -> None:
        if line.startswith("step 30/"):
            raise KeyboardInterrupt

    stopped = replace(config, folder=str(tmp_path / "stopped"), precision="bfloat16")
    with pytest.raises(KeyboardInterrupt):
        train(stopped, stop)
    assert train(stopped, lambda line: None).resumed_from == 20
    again = [line["loss"] for line in read_metrics(tmp_path / "stopped")]
    assert again == pytest.approx(losses["bfloat16"], rel=1e-3)  # atomic additions make a GPU's sums vary
    assert generate(tmp_path / "stopped", "abc", 20, temperature=0) == generate(
        tmp_path / "stopped", "abc", 20, temperature=0, use_cache=False
    )
