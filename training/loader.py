"""Batches by arithmetic: what a step reads follows from its number, so world size, workers and restarts change nothing.

A sequence is a window of a component's token stream. Its targets are tokens [w L, (w + 1) L) and its inputs the same
tokens one place earlier; windows share no target, and an epoch of a component reads each window once, in an order that a
keyed permutation gives. Every document ends with the end-of-text token (EOS) and starts with the one before it: the input
that predicts a document's first token is EOS, so a position belongs to the document of its *target*, every token of a
document is predicted exactly once, and no position sees a token of another document.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.shards import TokenShards
from training.config import DataConfig
from training.mixture import Mixture
from training.permutation import permute


@dataclass(frozen=True)
class Batch:
    """Rows of one step. inputs, targets: (rows, seq_len) int64 token ids; documents: (rows, seq_len) int32, numbering the
    documents of a row from 0, by target; components: (rows,) int64, numbers in `MixtureLoader.names`."""

    inputs: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int32]
    components: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: slice) -> Batch:
        return Batch(self.inputs[rows], self.targets[rows], self.documents[rows], self.components[rows])


@dataclass(frozen=True)
class Seen:
    """A part of a document that a step learned from: tokens [start, stop) of the component's stream, as targets."""

    sequence: int
    component: str
    epoch: int
    document: int
    id: str
    start: int
    stop: int


class MixtureLoader:
    """The batches of a run. ValueError if a component is too small for the weights and epochs asked for.

    steps: how long the run is, for the check of epochs. Documents, tokens and order come from the manifests' memory maps.
    """

    def __init__(self, config: DataConfig, steps: int) -> None:
        self.config = config
        self.names = sorted(config.components)  # the order in which a file names them decides nothing
        self.shards = {name: TokenShards(config.components[name].manifest) for name in self.names}
        self.eos = int(self._agreed("eos", {name: s.eos for name, s in self.shards.items()}))
        self.vocabulary = int(self._agreed("vocabulary", {name: s.manifest.vocabulary for name, s in self.shards.items()}))
        self.tokenizer_sha256 = self._agreed("tokenizer", {n: s.manifest.tokenizer_sha256 for n, s in self.shards.items()})
        self.windows = {name: len(s) // config.seq_len for name, s in self.shards.items()}
        weights = {name: config.components[name].weight for name in self.names}
        changes = [(step * config.batch, changed) for step, changed in config.schedule]
        self.mixture = Mixture([(0, weights), *changes])
        self._check_epochs(steps)

    @property
    def unused_tokens(self) -> dict[str, int]:
        """Tokens at the end of each component's stream that fill no whole sequence, and are never read."""
        return {name: len(s) - self.windows[name] * self.config.seq_len for name, s in self.shards.items()}

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """What process `rank` of `world` reads at `step`: its share of the step's sequences, in order."""
        start, stop = self._sequences(step, rank, world)
        length, rows = self.config.seq_len, stop - start
        tokens = np.empty((rows, length + 1), np.int64)
        documents = np.empty((rows, length), np.int32)
        components, windows, _ = self.order(start, stop)
        for row, (component, window) in enumerate(zip(components.tolist(), windows.tolist(), strict=True)):
            shards, first = self.shards[self.names[component]], window * length
            tokens[row, 0] = shards.tokens(first - 1, first)[0] if first else self.eos
            tokens[row, 1:] = shards.tokens(first, first + length)
            lengths = np.diff(shards.documents(first, first + length))
            documents[row] = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        return Batch(tokens[:, :-1], tokens[:, 1:], documents, components)

    def order(self, start: int, stop: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Sequences [start, stop) of the run: component, window of that component, and epoch, each (stop - start,)."""
        components, ranks = self.mixture.components(start, stop)
        windows, epochs = np.empty_like(ranks), np.empty_like(ranks)
        for number, name in enumerate(self.names):
            mine = np.flatnonzero(components == number)
            if not len(mine):
                continue
            epochs[mine], index = np.divmod(ranks[mine], self.windows[name])
            for epoch in np.unique(epochs[mine]).tolist():
                now = epochs[mine] == epoch
                # The name is in the key, so that a component's order does not depend on its companions.
                windows[mine[now]] = permute(index[now], self.windows[name], self.config.seed, name, epoch)
        return components, windows, epochs

    def documents_at(self, step: int) -> list[Seen]:
        """Every document, or part of one, that a step learns from, in order."""
        start, stop = self._sequences(step, 0, 1)
        length, seen = self.config.seq_len, []
        rows = zip(range(start, stop), *(values.tolist() for values in self.order(start, stop)), strict=True)
        for sequence, number, window, epoch in rows:
            name, first = self.names[number], window * length
            shards = self.shards[name]
            bounds = shards.documents(first, first + length).tolist()
            document = shards.document_at(first)
            for offset, (id, low, high) in enumerate(
                zip(shards.document_ids(first, first + length), bounds[:-1], bounds[1:], strict=True)
            ):
                seen.append(Seen(sequence, name, epoch, document + offset, id, low, high))
        return seen

    def consumed(self, step: int) -> dict[str, int]:
        """Sequences of each component that the steps before `step` read."""
        return dict(zip(self.names, self.mixture.counts(step * self.config.batch), strict=True))

    def resume(self, step: int, consumed: Mapping[str, int]) -> None:
        """Check what a checkpoint says was consumed before `step`, and spare working it out. ValueError if it cannot be."""
        self.mixture.remember(step * self.config.batch, consumed)

    def _sequences(self, step: int, rank: int, world: int) -> tuple[int, int]:
        if self.config.batch % world:
            raise ValueError(f"data.batch of {self.config.batch} sequences does not divide among {world} processes evenly")
        each = self.config.batch // world
        start = step * self.config.batch + rank * each
        return start, start + each

    def _agreed(self, what: str, values: Mapping[str, int | str]) -> int | str:
        if len(set(values.values())) > 1:
            raise ValueError(f"data.components differ in their {what} ({values}): tokenize them with one tokenizer")
        return next(iter(values.values()))

    def _check_epochs(self, steps: int) -> None:
        length, target = self.config.seq_len, self.mixture.target(steps * self.config.batch)
        for name, wanted in zip(self.names, target, strict=True):
            needed, windows = math.ceil(wanted), self.windows[name]
            if needed and not windows:
                raise ValueError(
                    f"component {name} ({self.shards[name].path}) has {len(self.shards[name])} tokens, less than one sequence "
                    f"of {length}: lower data.seq_len, or leave the component out"
                )
            cap = self.config.components[name].max_epochs
            if needed > cap * windows:
                raise ValueError(
                    f"component {name} would be read {needed / windows:.2f} times ({needed * length} tokens "
                    f"of {len(self.shards[name])}); max_epochs is {cap:g}: train less, lower its weight, or raise max_epochs"
                )
