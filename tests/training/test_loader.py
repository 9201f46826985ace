"""Batches by arithmetic: world size, workers and restarts change nothing, and every token is accounted for."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.shards import TokenShards
from tests.training.tiny import EOS, random_documents, write_shards
from training.config import ComponentConfig, DataConfig
from training.loader import MixtureLoader

STEPS, LENGTH, BATCH = 30, 16, 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    folder = tmp_path_factory.mktemp("shards")
    web = write_shards(folder, random_documents(1, 200), "web", shards=3)
    code = write_shards(folder, random_documents(2, 30), "code", shards=2)
    books = write_shards(folder, random_documents(3, 4, longest=2000), "books")
    components = {
        "web": ComponentConfig(web, 5, 10),
        "code": ComponentConfig(code, 2, 10),
        "books": ComponentConfig(books, 1, 10),
    }
    schedule = ((10, {"web": 1.0, "code": 1.0}), (20, {"web": 1.0, "code": 1.0, "books": 6.0}))
    return DataConfig(components, LENGTH, BATCH, 3, schedule)


def rows(batch: Any) -> list[tuple[Any, ...]]:
    return [
        tuple(array[row].tobytes() for array in (batch.inputs, batch.targets, batch.documents)) for row in range(len(batch))
    ]


@settings(deadline=None, max_examples=40)
@given(step=st.integers(0, STEPS - 1), world=st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_the_processes_of_any_world_read_the_same_batch(data: DataConfig, step: int, world: int) -> None:
    fresh = MixtureLoader(data, STEPS)  # asked for one step only, as after a restart
    together = [row for rank in range(world) for row in rows(fresh.batch(step, rank, world))]
    assert together == rows(MixtureLoader(data, STEPS).batch(step))


def test_an_epoch_reads_every_window_once_whatever_the_weights_do(data: DataConfig) -> None:
    loader = MixtureLoader(data, STEPS)
    components, windows, epochs = loader.order(0, STEPS * BATCH)
    for number, name in enumerate(loader.names):
        mine = components == number
        read = Counter(zip(epochs[mine].tolist(), windows[mine].tolist(), strict=True))
        assert set(read.values()) == {1}
        for epoch in range(epochs[mine].max()):
            assert sorted(w for e, w in read if e == epoch) == list(range(loader.windows[name]))
    assert epochs.max() >= 2


def test_realised_tokens_follow_the_schedule_at_every_step(data: DataConfig) -> None:
    loader = MixtureLoader(data, STEPS)
    target = dict.fromkeys(loader.names, 0.0)
    for step in range(STEPS):
        weights = {n: c.weight for n, c in data.components.items()}
        for start, changed in data.schedule:
            weights = changed if step >= start else weights
        for name in loader.names:
            target[name] += BATCH * weights.get(name, 0.0) / sum(weights.values())
        realised = loader.consumed(step + 1)
        assert all(abs(realised[n] - target[n]) < 1 for n in loader.names)


def test_a_row_is_its_documents_each_begun_by_the_end_of_text(data: DataConfig) -> None:
    loader = MixtureLoader(data, STEPS)
    batch = loader.batch(0)
    components, windows, _ = loader.order(0, BATCH)
    for row in range(BATCH):
        shards = TokenShards(data.components[loader.names[components[row]]].manifest)
        stream = np.concatenate([[EOS], shards.tokens(0, len(shards))])
        first = windows[row] * LENGTH
        assert batch.inputs[row].tolist() == stream[first : first + LENGTH].tolist()
        assert batch.targets[row].tolist() == stream[first + 1 : first + LENGTH + 1].tolist()
        # A new document begins exactly behind each end-of-text target, with the end of text as its input.
        changes = np.flatnonzero(np.diff(batch.documents[row])) + 1
        ends = np.flatnonzero(batch.targets[row][:-1] == EOS) + 1
        assert changes.tolist() == ends.tolist()
        assert (batch.inputs[row][changes] == EOS).all()


def test_any_step_names_the_documents_that_it_saw(data: DataConfig) -> None:
    loader = MixtureLoader(data, STEPS)
    for step in (0, 7, 29):
        batch, seen = loader.batch(step), loader.documents_at(step)
        assert sum(part.stop - part.start for part in seen) == BATCH * LENGTH
        for row in range(BATCH):
            mine = [part for part in seen if part.sequence == step * BATCH + row]
            read = []
            for part in mine:
                shards = loader.shards[part.component]
                low, high = shards.document(part.document)
                assert low <= part.start < part.stop <= high
                assert part.id == f"{part.component}/{part.document}"
                read += shards.tokens(part.start, part.stop).tolist()
            assert read == batch.targets[row].tolist()


def test_a_component_keeps_its_order_whatever_comes_beside_it(data: DataConfig) -> None:
    alone = replace(data, components={"web": data.components["web"]}, schedule=())
    loader, other = MixtureLoader(data, STEPS), MixtureLoader(alone, 5)
    components, windows, _ = loader.order(0, 100)
    mine = windows[components == loader.names.index("web")]
    assert mine.tolist() == other.order(0, len(mine))[1].tolist()
    shuffled = replace(data, components=dict(reversed(list(data.components.items()))))
    assert rows(MixtureLoader(shuffled, STEPS).batch(3)) == rows(loader.batch(3))


def test_another_seed_is_another_order(data: DataConfig) -> None:
    one, two = (MixtureLoader(replace(data, seed=seed), STEPS).order(0, 100)[1] for seed in (0, 1))
    assert one.tolist() != two.tolist()


def test_too_many_epochs_are_an_error_before_the_run_starts(data: DataConfig) -> None:
    capped = replace(data, components={**data.components, "code": replace(data.components["code"], max_epochs=1)})
    with pytest.raises(ValueError, match=r"component code would be read \d+\.\d+ times .* raise max_epochs"):
        MixtureLoader(capped, STEPS)
    MixtureLoader(capped, 5)


def test_what_cannot_be_read_is_an_error(data: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not divide among 5 processes"):
        MixtureLoader(data, STEPS).batch(0, 0, 5)
    short = write_shards(tmp_path, [[1, 2, 3]], "short")
    with pytest.raises(ValueError, match="less than one sequence of 16"):
        MixtureLoader(DataConfig({"short": ComponentConfig(short)}, LENGTH, BATCH), 1)
    with pytest.raises(ValueError, match="is missing: tokenize first"):
        MixtureLoader(DataConfig({"none": ComponentConfig(str(tmp_path / "none.json"))}, LENGTH, BATCH), 1)


def test_tokens_that_fill_no_sequence_are_counted(data: DataConfig) -> None:
    loader = MixtureLoader(data, STEPS)
    for name, shards in loader.shards.items():
        assert loader.unused_tokens[name] == len(shards) % LENGTH
    assert pickle.loads(pickle.dumps(loader.shards["web"])).total_tokens == len(loader.shards["web"])
