"""Receipts and fingerprints: what was done, to what, and what came of it; the reason why a second run does nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Output:
    """One file that a stage wrote: xxh3-128 digest, bytes, and rows (None if it is not a table)."""

    digest: str
    bytes: int
    rows: int | None = None


@dataclass(frozen=True)
class Receipt:
    """What one stage did to one partition (or group, for a global stage). `outputs` by path below the corpus."""

    stage: str
    partition: str
    fingerprint: str
    rows_in: int
    rows_out: int
    drops: Mapping[str, int] = field(default_factory=dict)
    outputs: Mapping[str, Output] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    bytes_in: int = 0
    seconds: float = 0.0

    @property
    def conserved(self) -> bool:
        """No row is lost without a reason."""
        return self.rows_in == self.rows_out + sum(self.drops.values())

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Receipt:
        values = json.loads(content)
        values["outputs"] = {path: Output(**output) for path, output in values["outputs"].items()}
        return cls(**values)


def fingerprint(stage: str, version: int, params: Any, inputs: Mapping[str, str]) -> str:
    """Hex digest of all that determines a stage's output.

    params: anything JSON can hold. inputs: digest by name of every input table, source and resource file. Inputs enter by
    *content*, so a stage that ran again to the same bytes causes no further work.
    """
    told = json.dumps([stage, version, params, sorted(inputs.items())], sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:32]
