"""The training loop. Everything that must survive a restart is in `TrainState`; the rest follows from the configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.checkpoint import Checkpoints
from training.config import RunConfig
from training.distributed import Process, join_processes
from training.flops import attention_pairs, peak_flops, training_flops
from training.loader import Batch, MixtureLoader
from training.metrics import Meter, MetricsLog, read_metrics
from training.model import Transformer
from training.optimizer import build_optimizer, clip_gradients, learning_rate, set_learning_rate
from training.parallelize import gradient_sync, parallelize
from training.run_folder import RunFolder
from training.weights import export_weights


@dataclass(frozen=True)
class TrainResult:
    """What a run came to. loss, losses: the last line of the log; seconds: of this call, tokens_per_second too."""

    folder: str
    steps: int
    tokens: int
    parameters: int
    loss: float
    losses: dict[str, float]
    resumed_from: int
    seconds: float
    tokens_per_second: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class TrainState:
    """Everything that must survive: weights, moments, steps done, and the sums of the log line under way."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    meter: Meter
    step: int = 0

    def resume(self, checkpoints: Checkpoints, loader: MixtureLoader, run: RunFolder) -> None:
        """Go back to the latest checkpoint, if there is one. ValueError if it belongs to other data or another model."""
        latest = checkpoints.latest()
        if latest is None:
            return
        saved = checkpoints.load(latest, self.model, self.optimizer)
        run.check_data(saved["data"])
        loader.resume(latest, saved["consumed"])
        self.step, self.meter = latest, Meter.from_dict(saved["meter"], loader.names)

    def save(self, checkpoints: Checkpoints, loader: MixtureLoader, run: RunFolder) -> None:
        plain = {"consumed": loader.consumed(self.step), "meter": self.meter.to_dict(loader.names), "data": run.data}
        checkpoints.save(self.step, self.model, self.optimizer, plain)


def train(config: RunConfig, report: Callable[[str], None] = print) -> TrainResult:
    """Train a model as `config` says, or go on with the run that is in its folder; returns when all steps are done.

    The same call serves one process, the processes of torchrun and those of Ray Train. report: called in the first process
    with a line per log interval. ValueError for settings, data or checkpoints that do not fit together.
    """
    with join_processes(config.device) as process:
        return _train(config, process, report if process.is_first else lambda line: None)


def _train(config: RunConfig, process: Process, report: Callable[[str], None]) -> TrainResult:
    if config.deterministic:
        torch.use_deterministic_algorithms(True)
    loader = MixtureLoader(config.data, config.steps)
    config = replace(config, model=replace(config.model, vocabulary=_vocabulary(config.model.vocabulary, loader.vocabulary)))
    run = RunFolder.open(config, loader, process)
    precision = _precision(config.precision, process.device)
    bare = Transformer(config.model).initialise(config.seed).to(process.device)
    parameters = sum(p.numel() for p in bare.parameters())
    model = parallelize(bare, process.mesh(), config.parallel, precision)
    checkpoints = Checkpoints(run.checkpoints, process, config.log.keep, config.log.asynchronous)
    state = TrainState(model, build_optimizer(model, config.optimizer), Meter.empty(len(loader.names)))
    state.resume(checkpoints, loader, run)
    first = state.step
    log = MetricsLog(run.path, config.log, config.to_dict(), first) if process.is_first else None
    clock = _Clock(config, process, first)
    report(_opening(config, loader, process, parameters, first))

    for step, batch in _prefetch(loader, first, config.steps, process):
        rate = learning_rate(config.schedule, config.optimizer.lr, step, config.steps)
        set_learning_rate(state.optimizer, rate)
        losses, tokens = accumulate(model, batch, config, process, len(loader.names))
        norm = clip_gradients(model, config.optimizer.clip)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step = step + 1
        state.meter.add(losses, tokens, float(norm))
        clock.count(batch)
        if state.step % config.log.interval == 0 or state.step == config.steps:
            line = {"step": state.step, **state.meter.line(loader.names), "lr": rate}
            line |= {"tokens": state.step * config.data.tokens_per_step, **clock.lap()}
            _check_finite(line, checkpoints)
            if log is not None:
                log.write(line)
            report(_progress(line, config.steps))
            state.meter = Meter.empty(len(loader.names))
        checkpoints.poll()
        if state.step % config.log.checkpoint_interval == 0 or state.step == config.steps:
            state.save(checkpoints, loader, run)

    checkpoints.wait()
    if log is not None:
        log.close()
    export_weights(model, config, run, state.step, process)
    return _result(config, run, parameters, first, clock)


def accumulate(model: nn.Module, batch: Batch, config: RunConfig, process: Process, components: int) -> tuple[Tensor, Tensor]:
    """The gradient of the mean loss over all target tokens of the step, over all processes and micro-batches.

    Divided once, by the tokens of the whole global batch: neither the size of micro-batches nor the number of processes
    changes it. Returns the loss summed by component, and the target tokens, over all processes: float64 (components,) each.
    """
    total = config.data.tokens_per_step  # every input has a target: see training.loader
    size = config.micro_batch or len(batch)
    sums = torch.zeros(2, components, dtype=torch.float64, device=process.device)
    for start in range(0, len(batch), size):
        part = batch[start : start + size]
        inputs, targets, documents, owners = _to_device(part, process.device)
        with gradient_sync(model, start + size >= len(batch)):
            with _autocast(config, process.device):
                # Data parallelism averages gradients over processes; the loss is a sum over them.
                result = model(inputs, documents, targets=targets, scale=process.world / total)
            result.loss.backward()
        rows = result.token_loss.double().sum(dim=1)
        sums[0].index_add_(0, owners, rows)
        sums[1].index_add_(0, owners, torch.full_like(rows, targets.shape[1]))
    return tuple(process.sum(sums).cpu())  # type: ignore[return-value]


def _prefetch(loader: MixtureLoader, start: int, stop: int, process: Process) -> Iterator[tuple[int, Batch]]:
    """The batches of this process, each read while the one before is learned from."""
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(loader.batch, start, process.rank, process.world) if start < stop else None
        for step in range(start, stop):
            assert following is not None
            batch = following.result()
            following = reader.submit(loader.batch, step + 1, process.rank, process.world) if step + 1 < stop else None
            yield step, batch


def _to_device(batch: Batch, device: torch.device) -> tuple[Tensor, ...]:
    arrays = (batch.inputs, batch.targets, batch.documents, batch.components)
    tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    if device.type == "cpu":
        return tuple(tensors)
    return tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors)


def _precision(wanted: str, device: torch.device) -> torch.dtype:
    if wanted == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, wanted)


def _autocast(config: RunConfig, device: torch.device) -> Any:
    dtype = _precision(config.precision, device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def _vocabulary(wanted: int, of_data: int) -> int:
    if wanted and wanted < of_data:
        raise ValueError(f"model.vocabulary is {wanted}, the token shards need {of_data}: raise it, or leave it out")
    return wanted or -(-of_data // 64) * 64  # multiples of 64 suit matrix units


def _check_finite(line: dict[str, Any], checkpoints: Checkpoints) -> None:
    if not np.isfinite(line["loss"]) or not np.isfinite(line["grad_norm_max"]):
        raise ValueError(
            f"loss {line['loss']} with gradient norm {line['grad_norm_max']} by step {line['step']}: lower optimizer.lr or "
            f"lengthen schedule.warmup; the latest checkpoint is of step {checkpoints.latest()}"
        )


@dataclass
class _Clock:
    """Tokens per second and model-FLOP utilisation of each lap, over all processes."""

    config: RunConfig
    process: Process
    first: int
    began: float = field(default_factory=time.perf_counter)
    lap_began: float = field(default_factory=time.perf_counter)
    steps: int = 0
    lap_steps: int = 0
    lap_pairs: int = 0

    def count(self, batch: Batch) -> None:
        self.steps += 1
        self.lap_steps += 1
        self.lap_pairs += attention_pairs(batch.documents)

    def lap(self) -> dict[str, float | None]:
        """seconds, tokens_per_second and mfu since the last lap. Pairs are those of this process's share of the batch."""
        now = time.perf_counter()
        seconds, self.lap_began = now - self.lap_began, now
        tokens = self.lap_steps * self.config.data.tokens_per_step
        cuda = self.process.device.type == "cuda"
        name = torch.cuda.get_device_name(self.process.device) if cuda else "cpu"
        peak = peak_flops(name, self.config.log.peak_tflops)
        flops = training_flops(self.config.model, tokens // self.process.world, self.lap_pairs)
        self.lap_steps = self.lap_pairs = 0
        return {"seconds": seconds, "tokens_per_second": tokens / seconds, "mfu": flops / seconds / peak if peak else None}


def _opening(config: RunConfig, loader: MixtureLoader, process: Process, parameters: int, first: int) -> str:
    tokens = config.steps * config.data.tokens_per_step
    parts = [f"{name} {count * config.data.seq_len / tokens:.1%}" for name, count in loader.consumed(config.steps).items()]
    start = f"resuming at step {first}" if first else "starting"
    return (
        f"{start}: {parameters / 1e6:.2f}M parameters, {config.steps} steps of {config.data.tokens_per_step} tokens "
        f"({', '.join(parts)}) on {process.world} x {process.device.type}"
    )


def _progress(line: dict[str, Any], steps: int) -> str:
    parts = [f"step {line['step']}/{steps}", f"loss {line['loss']:.4f}"]
    if len(line["losses"]) > 1:
        parts.append("(" + ", ".join(f"{name} {loss:.3f}" for name, loss in line["losses"].items()) + ")")
    parts += [f"lr {line['lr']:.2e}", f"grad {line['grad_norm']:.2f}", f"{line['tokens_per_second']:,.0f} tokens/s"]
    return "  ".join(parts + ([f"MFU {line['mfu']:.1%}"] if line["mfu"] is not None else []))


def _result(config: RunConfig, run: RunFolder, parameters: int, first: int, clock: _Clock) -> TrainResult:
    last = read_metrics(Path(run.path))[-1]
    seconds = time.perf_counter() - clock.began
    return TrainResult(
        folder=str(run.path),
        steps=last["step"],
        tokens=last["tokens"],
        parameters=parameters,
        loss=last["loss"],
        losses=last["losses"],
        resumed_from=first,
        seconds=seconds,
        tokens_per_second=clock.steps * config.data.tokens_per_step / seconds,
    )
