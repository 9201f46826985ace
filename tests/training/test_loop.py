"""The training loop: it learns, accumulation is a large batch, and a restart at any step changes nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.training.tiny import EOS, random_documents, tiny_run, two_components, write_shards
from training import loop
from training.config import RunConfig
from training.distributed import Process
from training.loader import MixtureLoader
from training.loop import accumulate, train
from training.metrics import TIMINGS, read_metrics
from training.model import Transformer
from training.weights import load_trained

ROOT = Path(__file__).parents[2]


def record(folder: str | Path) -> tuple[list[dict[str, Any]], bytes]:
    """All that a run leaves which equal runs must share: its metrics without timings, its weights."""
    lines = [{k: v for k, v in line.items() if k not in TIMINGS} for line in read_metrics(Path(folder))]
    return lines, (Path(folder) / "model.safetensors").read_bytes()


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return two_components(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def undisturbed(components: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    config = tiny_run(tmp_path_factory.mktemp("undisturbed"), components, log__checkpoint_interval=5)
    train(config, quiet)
    return config


def test_a_small_model_learns_its_documents_by_heart(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path, random_documents(7, 6, longest=40))
    changes = {"steps": 120, "data__seq_len": 16, "optimizer__lr": 1e-2, "log__checkpoint_interval": 100}
    result = train(tiny_run(tmp_path, {"web": {"manifest": manifest, "max_epochs": 1000}}, **changes), quiet)
    assert read_metrics(Path(result.folder))[0]["loss"] == pytest.approx(np.log(320), abs=0.1)  # it knows nothing at first
    # Nothing foretells which of six documents begins: log 6 for six tokens of 120 is what cannot be learned.
    assert 0.05 < result.loss < 0.2
    assert result.tokens == 120 * 4 * 16


def test_a_small_model_learns_to_copy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    half = rng.integers(0, 16, (6000, 6))
    manifest = write_shards(tmp_path, np.concatenate([half, half], axis=1).tolist())
    changes = {"steps": 300, "data__batch": 32, "data__seq_len": 26, "optimizer__lr": 1e-2, "log__checkpoint_interval": 100}
    config = tiny_run(tmp_path, {"web": {"manifest": manifest, "max_epochs": 4}}, **changes)
    trained = load_trained(train(config, quiet).folder)
    fresh = torch.from_numpy(rng.integers(0, 16, (200, 6)))  # 200 of 17 million: only copying foretells them
    targets = torch.cat([fresh, fresh, torch.full((200, 1), EOS)], dim=1)
    inputs = torch.cat([torch.full((200, 1), EOS), targets[:, :-1]], dim=1)
    with torch.no_grad():
        losses = trained.model(inputs, targets=targets).token_loss.mean(dim=0)
    assert losses[:6].mean().item() == pytest.approx(np.log(16), rel=0.05)  # the first half is random
    assert losses[6:].max().item() < 0.1  # the second is known, and so is the end


@pytest.mark.parametrize("micro_batch", [1, 3, 5])
def test_accumulation_is_a_large_batch(components: dict[str, Any], tmp_path: Path, micro_batch: int) -> None:
    config = tiny_run(tmp_path, components, data__batch=8, model__vocabulary=320)
    batch = MixtureLoader(config.data, config.steps).batch(3)
    alone = Process(0, 1, torch.device("cpu"))
    whole, parts = (Transformer(config.model).initialise(0).double() for _ in range(2))
    sums = accumulate(whole, batch, config, alone, 2)
    sums_of_parts = accumulate(parts, batch, replace(config, micro_batch=micro_batch), alone, 2)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        # Losses are float32: their rounding is all that is left.
        assert (a.grad - b.grad).norm() < 1e-6 * a.grad.norm()
    torch.testing.assert_close(torch.stack(sums), torch.stack(sums_of_parts), rtol=1e-6, atol=0)
    # And it is the gradient of the plain mean over every target token.
    plain = Transformer(config.model).initialise(0).double()
    logits = plain(torch.from_numpy(batch.inputs.copy()), torch.from_numpy(batch.documents))
    mean = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.targets.copy()).flatten())
    mean.backward()
    assert (sums[0].sum() / sums[1].sum()).item() == pytest.approx(mean.item(), rel=1e-6)
    for a, b in zip(whole.parameters(), plain.parameters(), strict=True):
        assert (a.grad - b.grad).norm() < 1e-6 * b.grad.norm()  # type: ignore[operator, union-attr]


def test_losses_are_kept_per_component(undisturbed: RunConfig) -> None:
    for line in read_metrics(Path(undisturbed.folder)):
        assert line["loss"] == pytest.approx(0.75 * line["losses"]["web"] + 0.25 * line["losses"]["code"], rel=1e-9)
        assert line["tokens"] == line["step"] * 128
    assert line["losses"]["code"] < line["losses"]["web"]


@pytest.mark.parametrize("stopped", [2, 5, 8, 11])
def test_a_run_resumed_at_any_step_is_equal_to_the_bit(undisturbed: RunConfig, tmp_path: Path, stopped: int) -> None:
    """Stopped after some step: the last checkpoint may lie before it, and in the middle of a log interval."""
    config = replace(undisturbed, folder=str(tmp_path / "run"))
    calls: list[int] = []
    original = loop.clip_gradients

    def stop(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > stopped:
            raise KeyboardInterrupt
        return original(*arguments)

    loop.clip_gradients = stop
    try:
        with pytest.raises(KeyboardInterrupt):
            train(config, quiet)
    finally:
        loop.clip_gradients = original
    resumed = train(config, quiet)
    assert resumed.resumed_from == stopped // 5 * 5
    assert record(config.folder) == record(undisturbed.folder)


def test_a_killed_run_resumes_to_identical_bytes(undisturbed: RunConfig, tmp_path: Path) -> None:
    """SIGKILL twice: at a random line of the log, then while a checkpoint is being written; then left alone."""
    config = replace(undisturbed, folder=str(tmp_path / "run"))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.to_dict()))
    lines = random.Random().randint(0, 3)
    folder = Path(config.folder)

    def killed_when(happened: Callable[[], bool]) -> int:
        command = [sys.executable, "-m", "workflows.cli", "train", str(tmp_path / "run.yaml")]
        # The order of sums depends on the number of threads: as many as in this process.
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
        while run.poll() is None and not happened():
            time.sleep(0.0005)
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
        return run.wait()

    killed_when(lambda: len(read_metrics(folder)) >= lines)
    killed_when(lambda: any((folder / "checkpoints").glob(".step-*")))
    assert killed_when(lambda: False) == 0
    assert record(config.folder) == record(undisturbed.folder), f"killed at line {lines}"
    assert not list((folder / "checkpoints").glob(".*"))


def test_micro_batches_change_nothing_but_memory(undisturbed: RunConfig, tmp_path: Path) -> None:
    changed = replace(undisturbed, folder=str(tmp_path / "run"), micro_batch=1)
    result = train(replace(changed, parallel=replace(changed.parallel, activation_checkpointing=True)), quiet)
    expected = [line["loss"] for line in read_metrics(Path(undisturbed.folder))]
    assert [line["loss"] for line in read_metrics(Path(result.folder))] == pytest.approx(expected, rel=1e-5)


def test_a_finished_run_is_found_done(undisturbed: RunConfig) -> None:
    before = record(undisturbed.folder)
    again = train(undisturbed, quiet)
    assert (again.steps, again.resumed_from) == (12, 12)
    assert again.loss == before[0][-1]["loss"]
    assert record(undisturbed.folder) == before


def test_a_run_does_not_go_on_as_another(undisturbed: RunConfig, tmp_path: Path) -> None:
    data = undisturbed.data
    for changed, told in [
        (replace(undisturbed, model=replace(undisturbed.model, layers=3)), "holds a run with model"),
        (replace(undisturbed, data=replace(data, seed=9)), "holds a run with data.seed"),
        (replace(undisturbed, data=replace(data, batch=8)), "holds a run with data.batch"),
    ]:
        with pytest.raises(ValueError, match=told):
            train(changed, quiet)
    other = {**data.components, "web": replace(data.components["web"], weight=1.0)}
    with pytest.raises(ValueError, match="keep the weights of the steps that are done"):
        train(replace(undisturbed, data=replace(data, components=other)), quiet)
    shards = write_shards(tmp_path, random_documents(99, 300, high=64))
    other = {**data.components, "web": replace(data.components["web"], manifest=shards)}
    with pytest.raises(ValueError, match="not those that the run"):
        train(replace(undisturbed, data=replace(data, components=other)), quiet)


def test_new_weights_from_a_step_on_may_be_given_to_a_run_under_way(components: dict[str, Any], tmp_path: Path) -> None:
    first = tiny_run(tmp_path, components, schedule__kind="constant")
    train(first, quiet)
    books = write_shards(tmp_path, random_documents(5, 100, high=4), "books")
    more = {**components, "books": {"manifest": books, "weight": 0.0, "max_epochs": 2}}
    weights = [[12, {"web": 1.0, "books": 3.0}]]
    second = tiny_run(tmp_path, more, schedule__kind="constant", steps=20, data__schedule=weights)
    assert train(second, quiet).resumed_from == 12
    lines = read_metrics(Path(second.folder))
    assert [sorted(line["losses"]) for line in lines] == [["code", "web"]] * 6 + [["books", "web"]] * 4


def test_a_diverging_run_stops_with_advice(components: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lower optimizer\.lr .* latest checkpoint is of step None"):
        train(tiny_run(tmp_path, components, optimizer__lr=1e30, optimizer__clip=0), quiet)


def test_tensorboard_shows_each_step_once_after_a_resume(components: dict[str, Any], tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = tiny_run(tmp_path, components, log__tensorboard=True, log__checkpoint_interval=6)

    def stop(line: str) -> None:
        if line.startswith("step 10/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, stop)
    train(config, quiet)
    events = accumulator.EventAccumulator(str(Path(config.folder) / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/web")] == [2, 4, 6, 8, 10, 12]
    assert {"loss", "lr", "grad_norm", "tokens_per_second"} <= set(events.Tags()["scalars"])


def test_utilisation_is_reported_against_the_peak_that_is_given(components: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_run(tmp_path, components, log__peak_tflops=0.05)
    result = train(config, quiet)
    for line in read_metrics(Path(result.folder)):
        assert 0 < line["mfu"] < 1


def test_weights_and_biases_is_asked_for_or_untouched(components: dict[str, Any], tmp_path: Path) -> None:
    try:
        import wandb  # noqa: F401  # type: ignore[import-not-found]
    except ImportError:
        with pytest.raises(ValueError, match="wandb is not installed"):
            train(tiny_run(tmp_path, components, log__wandb_project="menagerie"), quiet)
    else:
        pytest.skip("wandb is installed")


def test_importing_costs_nothing_and_needs_little() -> None:
    code = """if True:
        import json, sys
        import training
        cheap = "torch" in sys.modules
        import training.loop, training.evaluation, training.generation, training.ray, workflows.commands.train
        heavy = ["polars", "ray", "pydantic", "fasttext", "kenlm", "xxhash", "rich", "tensorboard", "datasketch"]
        print(json.dumps([cheap, [name for name in heavy if name in sys.modules]]))
    """
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=dict(os.environ)
    )
    assert json.loads(said.stdout) == [False, []]
