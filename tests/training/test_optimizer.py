"""Learning rates, decay and clipping."""

from __future__ import annotations

import pytest
import torch

from training.config import ModelConfig, OptimizerConfig, ScheduleConfig
from training.model import Transformer
from training.optimizer import build_optimizer, clip_gradients, learning_rate


def test_cosine_warms_up_and_ends_at_the_floor() -> None:
    config = ScheduleConfig("cosine", warmup=10, floor=0.1)
    rates = [learning_rate(config, 2.0, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert rates[99] == pytest.approx(0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[10 + 45] == pytest.approx(1.1, abs=0.05)


def test_wsd_is_stable_then_falls() -> None:
    config = ScheduleConfig("wsd", warmup=10, decay=0.2, floor=0.0)
    rates = [learning_rate(config, 1.0, step, 100) for step in range(100)]
    assert set(rates[9:80]) == {1.0}
    assert rates[89] == pytest.approx(0.5)
    assert rates[99] == 0.0
    assert {learning_rate(ScheduleConfig("constant"), 1.0, step, 100) for step in range(100)} == {1.0}


def test_only_matrices_decay() -> None:
    model = Transformer(ModelConfig(vocabulary=64, layers=1, d_model=32, heads=4)).initialise(0)
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.5, lr=0.1))
    before = {name: p.clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, before[name] * (0.95 if parameter.ndim == 2 else 1.0))


def test_clipping_scales_the_whole_gradient() -> None:
    model = torch.nn.Linear(3, 2)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert clip_gradients(model, 0).item() == pytest.approx(8**0.5)
    assert clip_gradients(model, 1.0).item() == pytest.approx(8**0.5)
    assert clip_gradients(model, 0).item() == pytest.approx(1.0, rel=1e-4)
