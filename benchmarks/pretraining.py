"""How fast a model trains, and whether bfloat16 follows float32. Run: python benchmarks/pretraining.py --help

Makes token shards on the spot (documents of a random bigram language, so that there is something to learn), trains on them,
and prints tokens per second and MFU over the second half of each run; the first half compiles and warms up.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from tokenizers import Tokenizer, models

sys.path.insert(0, str(Path(__file__).parents[1]))  # in this script's folder, `kernels` is a benchmark

from pipeline.shards import TOKENS, Manifest, Shard, encode_shard, token_dtype
from training.config import RunConfig
from training.loop import train
from training.metrics import read_metrics

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 4, "d_model": 128, "heads": 4, "kv_heads": 2},
    "125m": {"layers": 12, "d_model": 768, "heads": 12},
    "360m": {"layers": 24, "d_model": 1024, "heads": 16},
    "1.3b": {"layers": 24, "d_model": 2048, "heads": 16},
}


def synthetic_shards(folder: Path, tokens: int, vocabulary: int, mean_length: int = 700) -> str:
    """Token shards of about so many tokens: each token is followed by one of eight others; lengths are exponential."""
    rng = np.random.default_rng(0)
    eos = vocabulary - 1
    following = rng.integers(0, eos, (eos, 8))
    lengths = np.maximum(rng.exponential(mean_length, tokens // mean_length + 1).astype(np.int64), 2)
    # All documents advance together, one token at a time.
    rows = np.full((len(lengths), lengths.max()), eos, token_dtype(vocabulary))
    rows[:, 0] = rng.integers(0, eos, len(lengths))
    for at in range(1, lengths.max()):
        rows[:, at] = following[rows[:, at - 1] % eos, rng.integers(0, 8, len(lengths))]
    rows[np.arange(len(lengths)), lengths - 1] = eos
    stream = rows[np.arange(lengths.max()) < lengths[:, None]]
    tokenizer = folder / "tokenizer.json"
    Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocabulary)}, unk_token="t0")).save(str(tokenizer))
    files = encode_shard(stream, np.cumsum(lengths), [str(i) for i in range(len(lengths))])
    for suffix, content in files.items():
        (folder / f"00000{suffix}").write_bytes(content)
    shard = Shard(f"00000{TOKENS}", len(stream), len(lengths), xxhash.xxh3_128_hexdigest(files[TOKENS]))
    digest = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    manifest = Manifest("web", "train", stream.dtype.name, vocabulary, eos, "tokenizer.json", digest, (shard,))
    (folder / "manifest.json").write_bytes(manifest.to_json())
    return str(folder / "manifest.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=SHAPES, default="tiny")
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--precision", nargs="+", default=["auto"])
    parser.add_argument("--compile", nargs="+", choices=["no", "yes"], default=["no"])
    parser.add_argument("--attention", nargs="+", choices=["auto", "fused", "flex", "sdpa"], default=["auto"])
    parser.add_argument("--peak-tflops", type=float)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        needed = asked.steps * asked.batch * asked.seq_len
        manifest = synthetic_shards(folder, min(needed, 20_000_000), asked.vocabulary)
        config = RunConfig.from_dict({
            "folder": str(folder / "run"), "steps": asked.steps, "micro_batch": asked.micro_batch,
            "data": {
                "components": {"web": {"manifest": manifest, "max_epochs": 1000}},
                "seq_len": asked.seq_len, "batch": asked.batch,
            },
            "model": SHAPES[asked.model], "optimizer": {"lr": 6e-4}, "schedule": {"warmup": asked.steps // 10},
            "log": {"interval": max(asked.steps // 10, 1), "checkpoint_interval": 10**6, "tensorboard": False,
                    "peak_tflops": asked.peak_tflops},
        })  # fmt: skip
        for precision, compiled, attention in product(asked.precision, asked.compile, asked.attention):
            chosen = replace(
                config, precision=precision, folder=str(folder / f"{precision}-{compiled}-{attention}"),
                parallel=replace(config.parallel, compile=compiled == "yes"), model=replace(config.model, attention=attention),
            )  # fmt: skip
            print(json.dumps(measured(chosen, precision, compiled)), flush=True)


def measured(config: RunConfig, precision: str, compiled: str) -> dict[str, Any]:
    """One run: its losses, and its speed over the second half."""
    result = train(config, lambda line: None)
    lines = read_metrics(Path(config.folder))
    late = lines[len(lines) // 2 :]
    seconds = sum(line["seconds"] for line in late)
    steps = len(late) * config.log.interval
    mfu = [line["mfu"] for line in late if line["mfu"] is not None]
    return {
        "precision": precision,
        "compile": compiled,
        "attention": config.model.attention,
        "parameters": result.parameters,
        "seq_len": config.data.seq_len,
        "batch": config.data.batch,
        "tokens_per_second": round(steps * config.data.tokens_per_step / seconds),
        "mfu": round(float(np.mean(mfu)), 4) if mfu else None,
        "losses": [round(line["loss"], 4) for line in lines],
    }


if __name__ == "__main__":
    main()
