"""Final weights: safetensors, config.json and the tokenizer, from which evaluation and generation start."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.config import ModelConfig, RunConfig
from training.distributed import Process
from training.files import write_atomically
from training.model import Transformer
from training.plain import from_dict, to_dict
from training.run_folder import RunFolder

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
FORMAT = "menagerie-transformer"


@dataclass(frozen=True)
class Trained:
    """A trained model, ready to be asked. seq_len: the length of sequences that it was trained on."""

    model: Transformer
    tokenizer: Path
    eos: int
    seq_len: int
    step: int


def export_weights(model: nn.Module, config: RunConfig, run: RunFolder, step: int, process: Process) -> None:
    """Gather the weights of all processes and write them with what reads them; config.json goes last."""
    from safetensors.torch import save
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    weights: dict[str, Any] = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if process.is_first:
        tokenizer = run.tokenizer.read_bytes()
        described = {
            "format": FORMAT,
            "model": to_dict(config.model),
            "seq_len": config.data.seq_len,
            "eos": run.eos,
            "tokenizer_sha256": hashlib.sha256(tokenizer).hexdigest(),
            "step": step,
            "tokens": step * config.data.tokens_per_step,
        }
        write_atomically(run.path / WEIGHTS, save({name: w.contiguous() for name, w in weights.items()}, {"format": "pt"}))
        write_atomically(run.path / TOKENIZER, tokenizer)
        write_atomically(run.path / CONFIG, (json.dumps(described, indent=1) + "\n").encode())
    process.barrier()


def load_trained(folder: str | Path, device: torch.device | str = "cpu") -> Trained:
    """The model of a run's folder. ValueError if it is not there or not whole."""
    path = Path(folder).expanduser()
    for name in (CONFIG, WEIGHTS, TOKENIZER):
        if not (path / name).is_file():
            raise ValueError(f"{path / name} is missing: a run writes it when its last step is done")
    from safetensors.torch import load_file

    try:
        described: dict[str, Any] = json.loads((path / CONFIG).read_text())
        config = from_dict(ModelConfig, described["model"])
        model = Transformer(config)
        model.load_state_dict(load_file(path / WEIGHTS))
        eos, seq_len, step = (int(described[name]) for name in ("eos", "seq_len", "step"))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} holds no model of this program ({error}): train it again") from error
    return Trained(model.to(device).eval(), path / TOKENIZER, eos, seq_len, step)
