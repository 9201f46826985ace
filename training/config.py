"""What a run is: frozen dataclasses, filled strictly from YAML. Only the standard library, so that a GPU box can read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from training.plain import from_dict, override, to_dict


class _Strict:
    # Read by pydantic where a recipe holds one of these as a field: an unknown name is an error there too.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


def _says(description: str) -> dict[str, str]:
    return {"description": description}


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} is {getattr(config, name)}, must be positive")


def _not_negative(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 0:
            raise ValueError(f"{name} is {getattr(config, name)}, must not be negative")


@dataclass(frozen=True)
class ModelConfig(_Strict):
    """Shape of the Transformer. `d_ff` 0 means 8/3 of `d_model`, rounded up to a multiple of 64 (as SwiGLU papers do)."""

    vocabulary: int = field(
        default=0,
        metadata=_says("Size of the vocabulary; 0: as the tokenizer of the data says, rounded up to a multiple of 64."),
    )
    layers: int = field(default=12, metadata=_says("Blocks of attention and feed-forward."))
    d_model: int = field(default=768, metadata=_says("Width of the residual stream."))
    heads: int = field(default=12, metadata=_says("Query heads; d_model / heads is the head's width, which must be even."))
    kv_heads: int = field(
        default=0, metadata=_says("Key and value heads (grouped-query attention); 0: as many as query heads.")
    )
    d_ff: int = field(
        default=0, metadata=_says("Width of the feed-forward's hidden layer; 0: 8/3 d_model rounded up to a multiple of 64.")
    )
    rope_theta: float = field(default=10_000.0, metadata=_says("Base of the rotary position embedding."))
    norm_eps: float = field(default=1e-5, metadata=_says("Added to the mean square in RMSNorm."))
    tied: bool = field(default=True, metadata=_says("Share the embedding with the output projection."))
    attention: Literal["auto", "fused", "sdpa", "flex"] = field(
        default="auto",
        metadata=_says(
            "Attention over packed documents: this project's kernel, torch's scaled dot product with a mask, or "
            "FlexAttention; auto: fused on CUDA, sdpa on CPU."
        ),
    )

    def __post_init__(self) -> None:
        _positive(self, "layers", "d_model", "heads", "rope_theta", "norm_eps")
        _not_negative(self, "vocabulary", "kv_heads", "d_ff")
        if self.d_model % self.heads or (self.d_model // self.heads) % 2:
            raise ValueError(f"d_model {self.d_model} over {self.heads} heads is no even width; change one of them")
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} query heads cannot share {self.kv_heads} kv_heads evenly")

    @property
    def head_dim(self) -> int:
        return self.d_model // self.heads

    @property
    def key_value_heads(self) -> int:
        return self.kv_heads or self.heads

    @property
    def hidden(self) -> int:
        """Width of the feed-forward's hidden layer."""
        return self.d_ff or -(-(8 * self.d_model) // (3 * 64)) * 64


@dataclass(frozen=True)
class OptimizerConfig(_Strict):
    """AdamW (Loshchilov & Hutter, 2019). Weight decay reaches matrices only, neither norms nor embeddings' scale vectors."""

    lr: float = field(default=3e-4, metadata=_says("Peak learning rate."))
    betas: tuple[float, float] = field(default=(0.9, 0.95), metadata=_says("Decay of the first and second moment."))
    eps: float = field(default=1e-8, metadata=_says("Added to the root of the second moment."))
    weight_decay: float = field(default=0.1, metadata=_says("Decoupled weight decay of matrices."))
    clip: float = field(default=1.0, metadata=_says("Largest norm of the whole gradient; 0: no clipping."))

    def __post_init__(self) -> None:
        _positive(self, "lr", "eps")
        _not_negative(self, "weight_decay", "clip")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas} must lie in [0, 1)")


@dataclass(frozen=True)
class ScheduleConfig(_Strict):
    """Learning rate by step: linear warm-up, then a cosine to the floor, or constant with a linear decay at the end (WSD)."""

    kind: Literal["cosine", "wsd", "constant"] = field(default="cosine", metadata=_says("Shape after the warm-up."))
    warmup: int = field(default=0, metadata=_says("Steps of linear warm-up."))
    decay: float = field(
        default=0.2, metadata=_says("wsd: the share of all steps, at the end, over which the rate falls linearly.")
    )
    floor: float = field(default=0.1, metadata=_says("Last learning rate, as a share of the peak."))

    def __post_init__(self) -> None:
        _not_negative(self, "warmup")
        for name in ("decay", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must lie in [0, 1]")


@dataclass(frozen=True)
class ComponentConfig(_Strict):
    """One component of the mixture: token shards and how much of them to read."""

    manifest: str = field(metadata=_says("The manifest.json of the component's token shards."))
    weight: float = field(default=1.0, metadata=_says("Weight in tokens; only the ratios between components count."))
    max_epochs: float = field(
        default=1.0, metadata=_says("How often its tokens may be read at most; a run that needs more is an error.")
    )

    def __post_init__(self) -> None:
        _not_negative(self, "weight")
        _positive(self, "max_epochs")


@dataclass(frozen=True)
class DataConfig(_Strict):
    """The mixture: which tokens, in which shares, in which order."""

    components: Mapping[str, ComponentConfig] = field(metadata=_says("Components by name."))
    seq_len: int = field(default=2048, metadata=_says("Tokens per sequence."))
    batch: int = field(default=256, metadata=_says("Sequences per optimizer step, over all processes."))
    seed: int = field(default=0, metadata=_says("Key of the order; another seed is another permutation."))
    schedule: tuple[tuple[int, Mapping[str, float]], ...] = field(
        default=(),
        metadata=_says(
            "Weights from a step on: [[step, {component: weight}], ...]; a component that is not named has weight 0."
        ),
    )

    def __post_init__(self) -> None:
        _positive(self, "seq_len", "batch")
        if not self.components:
            raise ValueError("components is empty: name at least one component and its manifest")
        if not any(c.weight > 0 for c in self.components.values()):
            raise ValueError("components: every weight is 0; at least one must be positive")
        previous = 0
        for step, weights in self.schedule:
            if step <= previous:
                raise ValueError(f"schedule: step {step} must come after step {previous}; sort the schedule")
            previous = step
            unknown = sorted(set(weights) - set(self.components))
            if unknown:
                raise ValueError(f"schedule at step {step} names {', '.join(unknown)}, no components of this mixture")
            if any(w < 0 for w in weights.values()) or not any(w > 0 for w in weights.values()):
                raise ValueError(f"schedule at step {step}: weights must not be negative, and one must be positive")

    @property
    def tokens_per_step(self) -> int:
        return self.seq_len * self.batch


@dataclass(frozen=True)
class ParallelConfig(_Strict):
    """How the model is spread over processes; applied from outside the model."""

    strategy: Literal["ddp", "fsdp"] = field(default="ddp", metadata=_says("Replicate the model (ddp) or shard it (FSDP2)."))
    activation_checkpointing: bool = field(
        default=False, metadata=_says("Recompute blocks in the backward pass: less memory, a third more work.")
    )
    compile: bool = field(default=False, metadata=_says("Compile each block with torch.compile."))


@dataclass(frozen=True)
class LogConfig(_Strict):
    """What a run records, and how often, in steps."""

    interval: int = field(default=10, metadata=_says("Steps between lines of metrics.jsonl and the progress line."))
    checkpoint_interval: int = field(default=500, metadata=_says("Steps between checkpoints; the last step always leaves one."))
    keep: int = field(default=2, metadata=_says("Checkpoints to keep; 0: all."))
    asynchronous: bool = field(default=False, metadata=_says("Write checkpoints while training goes on."))
    tensorboard: bool = field(default=True, metadata=_says("Write TensorBoard events."))
    wandb_project: str | None = field(
        default=None, metadata=_says("Log to this Weights & Biases project too; none: never contact it.")
    )
    peak_tflops: float | None = field(
        default=None, metadata=_says("Peak TFLOP/s of one device, for MFU; none: by the GPU's name, else no MFU.")
    )

    def __post_init__(self) -> None:
        _positive(self, "interval", "checkpoint_interval")
        _not_negative(self, "keep")


@dataclass(frozen=True)
class RunConfig(_Strict):
    """Everything about one training run. `from_dict` reads it from YAML; `to_dict` gives plain values back."""

    folder: str = field(
        metadata=_says("Where the run lives: checkpoints, metrics, final weights. A run that is there is resumed.")
    )
    data: DataConfig = field(metadata=_says("The mixture."))
    steps: int = field(default=1000, metadata=_says("Optimizer steps."))
    model: ModelConfig = field(default=ModelConfig(), metadata=_says("The model's shape."))
    optimizer: OptimizerConfig = field(default=OptimizerConfig(), metadata=_says("AdamW's settings."))
    schedule: ScheduleConfig = field(default=ScheduleConfig(), metadata=_says("The learning rate by step."))
    parallel: ParallelConfig = field(
        default=ParallelConfig(), metadata=_says("Processes, activation checkpointing, compilation.")
    )
    log: LogConfig = field(default=LogConfig(), metadata=_says("Metrics and checkpoints."))
    micro_batch: int = field(
        default=0, metadata=_says("Sequences per forward pass and process; 0: all of a step. Changes memory, not results.")
    )
    seed: int = field(default=0, metadata=_says("Seed of the initial weights."))
    device: Literal["auto", "cpu", "cuda"] = field(
        default="auto", metadata=_says("Where to train; auto: CUDA where there is a GPU.")
    )
    precision: Literal["auto", "float32", "bfloat16"] = field(
        default="auto",
        metadata=_says("Precision of matrix products (weights stay float32); auto: bfloat16 on CUDA, float32 on CPU."),
    )
    deterministic: bool = field(
        default=False, metadata=_says("Ask torch for deterministic kernels on CUDA; CPU runs always are.")
    )

    def __post_init__(self) -> None:
        _positive(self, "steps")
        _not_negative(self, "micro_batch")
        if self.schedule.warmup > self.steps:
            raise ValueError(f"schedule.warmup of {self.schedule.warmup} steps is longer than the run of {self.steps}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """A RunConfig from plain values. ValueError names the path of an unknown, missing or wrong entry."""
        return from_dict(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what YAML and JSON hold."""
        return to_dict(self)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A RunConfig from a YAML file. Relative paths in it are relative to the current folder.

    overrides: `a.b=value` entries that replace or add to the file's values; values are read as YAML.
    """
    import yaml

    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: name a YAML file that describes the run") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a run is a mapping of settings, this is {type(values).__name__}")
    for text in overrides:
        override(values, text)
    config = from_dict(RunConfig, values, str(path))
    return with_absolute_paths(config, Path.cwd())


def with_absolute_paths(config: RunConfig, root: Path) -> RunConfig:
    """The same run with its folder and manifests as absolute paths: Ray's workers start in another folder."""
    components = {
        name: dataclasses.replace(component, manifest=str(root / Path(component.manifest).expanduser()))
        for name, component in config.data.components.items()
    }
    data = dataclasses.replace(config.data, components=components)
    return dataclasses.replace(config, folder=str(root / Path(config.folder).expanduser()), data=data)
