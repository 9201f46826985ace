"""Where a run lives, and whether a run that is there may go on under the settings given now.

config.yaml  metrics.jsonl  tensorboard/  checkpoints/step-…/  model.safetensors  config.json  tokenizer.json
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config import RunConfig
from training.distributed import Process
from training.files import write_atomically
from training.loader import MixtureLoader


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. data: what identifies the tokens that it reads, by component."""

    path: Path
    data: dict[str, Any]
    tokenizer: Path
    eos: int

    @classmethod
    def open(cls, config: RunConfig, loader: MixtureLoader, process: Process) -> RunFolder:
        """Make the folder, or find the run there. ValueError if that run has another model or another order of data."""
        path = Path(config.folder).expanduser().absolute()
        run = cls(path, _identity(loader), next(iter(loader.shards.values())).tokenizer, loader.eos)
        if not run.tokenizer.is_file():
            raise ValueError(f"{run.tokenizer} is missing, though the manifests name it: put the tokenizer.json back")
        file = path / "config.yaml"
        # Every process compares with what was there before the first one writes.
        if file.is_file():
            run._check_continues(file, config)
        process.barrier()
        if process.is_first:
            import yaml

            write_atomically(file, yaml.safe_dump(config.to_dict(), sort_keys=False).encode())
        process.barrier()
        return run

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def check_data(self, saved: dict[str, Any]) -> None:
        """ValueError unless the token shards are those that the run has read so far."""
        for name in sorted(set(saved) & set(self.data)):
            if saved[name] != self.data[name]:
                raise ValueError(
                    f"the token shards of component {name} are not those that the run in {self.path} began with: "
                    "restore them, or train in a new folder"
                )
        if gone := sorted(set(saved) - set(self.data)):
            raise ValueError(
                f"the run in {self.path} began with component {', '.join(gone)}: keep it, with weight 0 if need be"
            )

    def _check_continues(self, file: Path, config: RunConfig) -> None:
        import yaml

        before, now = yaml.safe_load(file.read_text()), config.to_dict()
        fixed = [("model", before["model"], now["model"]), ("seed", before["seed"], now["seed"])]
        fixed += [(f"data.{name}", before["data"][name], now["data"][name]) for name in ("seq_len", "batch", "seed")]
        for name, was, wanted in fixed:
            # The kernel that computes attention may change; what it computes does not.
            if _without(was, "attention") != _without(wanted, "attention"):
                raise ValueError(
                    f"{self.path} holds a run with {name} = {json.dumps(was)}, not {json.dumps(wanted)}: "
                    "train in a new folder, or go on with the old setting"
                )


def _identity(loader: MixtureLoader) -> dict[str, Any]:
    identity = {}
    for name, shards in loader.shards.items():
        content = hashlib.sha256("".join(f"{s.xxh3}:{s.tokens};" for s in shards.manifest.shards).encode()).hexdigest()
        identity[name] = {"tokens": len(shards), "content": content, "tokenizer": shards.manifest.tokenizer_sha256}
    return identity


def _without(value: Any, name: str) -> Any:
    return {k: v for k, v in value.items() if k != name} if isinstance(value, dict) else value
