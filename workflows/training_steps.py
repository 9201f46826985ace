"""The last steps of a build: pretrain on the mixture's token shards, then evaluate. Receipts as for any other stage."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from pipeline.mix import plan_path
from pipeline.plan import MixturePlan
from pipeline.receipt import Output, Receipt, fingerprint
from pipeline.stage import Params
from pipeline.tokenize import manifest_path
from training.config import (
    ComponentConfig,
    DataConfig,
    LogConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    RunConfig,
    ScheduleConfig,
)

if TYPE_CHECKING:
    from workflows.engine import Engine
    from workflows.recipe import Recipe

VERSION = 1
RUN_FILES = ("model.safetensors", "config.json", "tokenizer.json")
"""What a run leaves when its last step is done."""


class TrainParams(Params):
    """Pretraining on the mixture. The components' weights and epoch caps are those of `mix`."""

    mixture: str = Field("main", description="Name of the mixture.")
    folder: str | None = Field(None, description="Local folder for runs; a corpus in a local folder keeps them in `runs/`.")
    workers: int = Field(0, ge=0, description="Ray Train workers; 0: in this process.")
    steps: int = Field(1000, gt=0, description="Optimizer steps.")
    seq_len: int = Field(2048, gt=0, description="Tokens per sequence.")
    batch: int = Field(256, gt=0, description="Sequences per optimizer step, over all workers.")
    micro_batch: int = Field(0, ge=0, description="Sequences per forward pass and worker; 0: all of a step at once.")
    weight_schedule: tuple[tuple[int, Mapping[str, float]], ...] = Field(
        (), description="Other weights from a step on: `[[step, {component: weight}], ...]`."
    )
    model: ModelConfig = Field(ModelConfig(), description="The model's shape.")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="AdamW's settings.")
    schedule: ScheduleConfig = Field(ScheduleConfig(), description="The learning rate by step.")
    parallel: ParallelConfig = Field(ParallelConfig(), description="Processes, checkpointing, compilation.")
    log: LogConfig = Field(LogConfig(), description="Metrics and checkpoints.")
    seed: int = Field(0, description="Seed of the initial weights and of the order of the data.")
    device: str = Field("auto", pattern="^(auto|cpu|cuda)$", description="`auto`, `cpu` or `cuda`.")
    precision: str = Field("auto", pattern="^(auto|float32|bfloat16)$", description="`auto`, `float32` or `bfloat16`.")

    @field_validator("folder")
    @classmethod
    def _local(cls, folder: str | None) -> str | None:
        if folder is not None and "://" in folder:
            raise ValueError(f"{folder} is a URL, and a run needs a local folder")
        return folder


class EvaluateParams(Params):
    """Perplexity per component on held-out documents, and sampled text."""

    prompts: tuple[str, ...] = Field((), description="Texts that the model goes on from.")
    tokens: int = Field(120, gt=0, description="Tokens generated per prompt.")
    temperature: float = Field(0.8, ge=0, description="Sampling temperature; 0 takes the likeliest token.")
    top_p: float = Field(0.95, gt=0, le=1, description="Smallest set of tokens with this probability is sampled from.")
    seed: int = Field(0, description="Seed of the sampling.")


def run_config(recipe: Recipe, engine: Engine) -> tuple[RunConfig, str]:
    """The training run that a recipe asks for, and its fingerprint. The run's folder is named after the fingerprint."""
    params = recipe.train
    assert params is not None
    plan = MixturePlan.from_json(engine.corpus.storage.read(_built(engine, plan_path(params.mixture), "mix")))
    paths = {c.name: manifest_path(params.mixture, c.name, "train") for c in plan.components if c.documents}
    inputs = {path: engine.catalog[_built(engine, path, "tokenize")].digest for path in paths.values()}
    weights = {c.name: [c.weight, c.max_epochs] for c in plan.components}
    mark = fingerprint("train", VERSION, [params.model_dump(mode="json", exclude={"folder", "workers"}), weights], inputs)
    local = engine.corpus.storage.local
    if local is None and params.folder is None:
        raise ValueError(f"train.folder is not set: {engine.corpus.url} is no local folder, and a run needs one")
    runs = Path(params.folder).expanduser() if params.folder is not None else Path(local or ".") / "runs"
    folder = runs.absolute() / f"{params.mixture}-{mark[:12]}"
    components = {
        c.name: ComponentConfig(str(local_manifest(engine, paths[c.name], folder / "data")), c.weight, c.max_epochs)
        for c in plan.components
        if c.documents
    }
    data = DataConfig(components, params.seq_len, params.batch, params.seed, params.weight_schedule)
    shared = {name: getattr(params, name) for name in ("steps", "model", "optimizer", "schedule", "parallel", "log")}
    config = RunConfig(
        str(folder), data, **shared, micro_batch=params.micro_batch, seed=params.seed,
        device=params.device, precision=params.precision,  # type: ignore[arg-type]
    )  # fmt: skip
    return config, mark


def train_step(recipe: Recipe, engine: Engine) -> Receipt:
    """Train, or find the run done. A run that was interrupted goes on from its last checkpoint."""
    config, mark = run_config(recipe, engine)
    assert recipe.train is not None
    receipt = engine.corpus.receipt("train", recipe.train.mixture)
    finished = all((Path(config.folder) / name).exists() for name in RUN_FILES)
    if receipt and receipt.fingerprint == mark and finished:
        if receipt.metrics.get("run") != config.folder:  # a corpus that was moved, with its runs
            outputs = _outputs(engine, Path(config.folder))
            receipt = replace(receipt, outputs=outputs, metrics=dict(receipt.metrics) | {"run": config.folder})
            engine.corpus.write_receipt(receipt)
        with engine.progress.stage("train", 1, [receipt]):
            return receipt
    begun = time.perf_counter()
    with engine.progress.stage("train", 1) as bar:
        if recipe.train.workers:
            from training.ray import train_on_ray

            result = train_on_ray(config, recipe.train.workers, gpu=config.device == "cuda")
        else:
            from training import train

            result = train(config, report=bar.tell)
        tokens = config.steps * config.data.tokens_per_step
        metrics = {"run": config.folder, "loss": result.loss, "tokens": tokens, "parameters": result.parameters}
        receipt = Receipt(
            "train", recipe.train.mixture, mark, 0, 0, {},
            _outputs(engine, Path(config.folder)), metrics, 0, round(time.perf_counter() - begun, 3),
        )  # fmt: skip
        engine.corpus.write_receipt(receipt)
        bar.advance(receipt)
    return receipt


def evaluate_step(recipe: Recipe, engine: Engine) -> Receipt:
    """Perplexity per component on the held-out split, and samples; `evaluation.json` in the run's folder."""
    from training import evaluate, generate

    assert recipe.evaluate is not None
    if recipe.train is None:
        raise ValueError("the recipe evaluates, but does not train: add a train section")
    trained = engine.corpus.receipt("train", recipe.train.mixture)
    assert trained is not None, "train comes before evaluate"
    folder = Path(str(trained.metrics["run"]))
    plan = MixturePlan.from_json(engine.corpus.storage.read(plan_path(recipe.train.mixture)))
    paths = {c.name: manifest_path(recipe.train.mixture, c.name, "heldout") for c in plan.components if c.heldout_documents}
    inputs = {path: engine.catalog[_built(engine, path, "tokenize")].digest for path in paths.values()}
    params = recipe.evaluate.model_dump(mode="json")
    mark = fingerprint("evaluate", VERSION, params, inputs | {"train": trained.fingerprint})
    receipt = engine.corpus.receipt("evaluate", recipe.train.mixture)
    known = receipt is not None and receipt.fingerprint == mark and receipt.metrics.get("run") == str(folder)
    if receipt and known and (folder / "evaluation.json").exists():
        with engine.progress.stage("evaluate", 1, [receipt]):
            return receipt
    begun = time.perf_counter()
    with engine.progress.stage("evaluate", 1) as bar:
        manifests = {name: str(local_manifest(engine, path, folder / "data")) for name, path in paths.items()}
        perplexities = evaluate(folder, manifests) if manifests else {}
        asked = recipe.evaluate
        samples = [
            {"prompt": prompt, "text": generate(
                folder, prompt, asked.tokens, temperature=asked.temperature, top_p=asked.top_p, seed=asked.seed
            )}
            for prompt in asked.prompts
        ]  # fmt: skip
        metrics: dict[str, Any] = {"run": str(folder), "heldout": perplexities, "samples": samples}
        (folder / "evaluation.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False), encoding="utf-8")
        receipt = Receipt(
            "evaluate", recipe.train.mixture, mark, 0, 0, {}, {}, metrics, 0, round(time.perf_counter() - begun, 3)
        )
        engine.corpus.write_receipt(receipt)
        bar.advance(receipt)
    return receipt


def local_manifest(engine: Engine, path: str, cache: Path) -> Path:
    """A manifest with its shards on this machine: in place, or copied from an object store into `cache`."""
    from pipeline.shards import Manifest

    storage = engine.corpus.storage
    if storage.local is not None:
        return storage.local / path
    manifest = Manifest.from_json(storage.read(path), path)
    folder = Path("/") / Path(path).parent
    for file in [*manifest.files(), manifest.tokenizer]:
        below = Path("/" + str(folder / file).lstrip("/")).resolve().relative_to("/")
        if not (cache / below).exists():
            storage.fetch(str(below), cache)
    return storage.fetch(path, cache)


def _built(engine: Engine, path: str, section: str) -> str:
    if path not in engine.catalog:
        raise ValueError(f"train needs {path}, which no stage has written: is there a {section} section of this mixture?")
    return path


def _outputs(engine: Engine, folder: Path) -> dict[str, Output]:
    """The run's lasting files, if they lie in the corpus: what `verify` checks."""
    local = engine.corpus.storage.local
    if local is None or not folder.is_relative_to(local):
        return {}
    outputs = {}
    for name in RUN_FILES:
        path = str((folder / name).relative_to(local))
        if (folder / name).exists():
            outputs[path] = Output(engine.corpus.storage.digest(path), (folder / name).stat().st_size)
    return outputs
