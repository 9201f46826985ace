"""Small token shards and small runs for the tests of training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pipeline.shards import TOKENS, Manifest, Shard, encode_shard
from training.config import RunConfig

EOS = 256
VOCABULARY = 257


def byte_tokenizer(path: Path) -> Path:
    """A tokenizer.json whose tokens are the 256 bytes and the end of text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)} | {"<|endoftext|>": EOS}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return path


def write_shards(
    folder: Path, documents: Sequence[Sequence[int]], component: str = "web", split: str = "train", shards: int = 1
) -> str:
    """Token shards of documents (without their end-of-text tokens); returns the manifest's path."""
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        byte_tokenizer(tokenizer)
    place = folder / component / split
    place.mkdir(parents=True, exist_ok=True)
    listed = []
    for number, part in enumerate(np.array_split(np.arange(len(documents)), shards)):
        whole = [[*documents[i], EOS] for i in part]
        tokens = np.array([t for document in whole for t in document], np.uint16)
        ids = [f"{component}/{i}" for i in part]
        files = encode_shard(tokens, np.cumsum([len(d) for d in whole]), ids)
        for suffix, content in files.items():
            (place / f"{number:05d}{suffix}").write_bytes(content)
        listed.append(Shard(f"{number:05d}{TOKENS}", len(tokens), len(whole), xxhash.xxh3_128_hexdigest(files[TOKENS])))
    manifest = Manifest(
        component=component,
        split=split,
        dtype="uint16",
        vocabulary=VOCABULARY,
        eos=EOS,
        tokenizer="../../tokenizer.json",
        tokenizer_sha256=hashlib.sha256(tokenizer.read_bytes()).hexdigest(),
        shards=tuple(listed),
    )
    (place / "manifest.json").write_bytes(manifest.to_json())
    return str(place / "manifest.json")


def random_documents(seed: int, count: int, longest: int = 40, high: int = 256) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, high, rng.integers(0, longest)).tolist() for _ in range(count)]


def tiny_run(place: Path, components: dict[str, Any], **changes: Any) -> RunConfig:
    """A run of a model small enough for a test. changes: settings by dotted name, `__` for the dot."""
    values: dict[str, Any] = {
        "folder": str(place / "run"),
        "steps": 12,
        "data": {"components": components, "seq_len": 32, "batch": 4, "seed": 1},
        "model": {"layers": 2, "d_model": 32, "heads": 4, "kv_heads": 2},
        "optimizer": {"lr": 3e-3},
        "schedule": {"warmup": 2},
        "log": {"interval": 2, "checkpoint_interval": 4, "tensorboard": False},
        "device": "cpu",
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        within = values
        for step in path:
            within = within.setdefault(step, {})
        within[last] = value
    return RunConfig.from_dict(values)


def two_components(folder: Path) -> dict[str, Any]:
    """Random text of two kinds: bytes below 64, and bytes below 8."""
    web = write_shards(folder, random_documents(1, 300, high=64), "web", shards=3)
    code = write_shards(folder, random_documents(2, 100, high=8), "code")
    return {
        "web": {"manifest": web, "weight": 3.0, "max_epochs": 2},
        "code": {"manifest": code, "weight": 1, "max_epochs": 2},
    }
