"""Gumbel top-k: ranks keep the order, the number is met, chances grow with weights, and partitions do not matter."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.importance_sample import ImportanceSample, cut, gumbel, ranks
from pipeline.mix import Mix, MixParams, Plan


def table(weights: list[float | None], first: int = 0) -> dict[str, pa.Table]:
    ids = [f"d/{first + i}" for i in range(len(weights))]
    columns = {"id": pa.array(ids, pa.string()), "length": [100] * len(ids), "w": pa.array(weights, pa.float64())}
    return {"documents": pa.table(columns)}


def params(**sample: object) -> MixParams:
    component = {"name": "all", "sample": {"by": "w", **sample}}
    return MixParams.model_validate({"tables": ["documents"], "components": [component], "heldout": 0})


def sampled(mixture: MixParams, parts: list[dict[str, pa.Table]], folder: Path) -> list[str]:
    stage = Plan(mixture)
    plan = stage.finish("all", stage.merge([stage.summarise("p", part) for part in parts])).files["plan.json"]
    assert isinstance(plan, bytes)
    (folder / "plan.json").write_bytes(plan)
    mix = Mix(mixture)
    mix.setup({"plan": folder / "plan.json"})
    rows = [row for part in parts for row in mix.run("p", part).tables["mixture/main"].to_pylist()]
    assert all((row["component"] is None) == (row["reason"] == "not_sampled") for row in rows)
    return [row["id"] for row in rows if row["component"] is not None]


def test_the_number_is_met_wherever_documents_lie(tmp_path: Path) -> None:
    weights: list[float | None] = [float(i % 17) for i in range(600)]
    weights[5] = None
    whole = sampled(params(documents=100), [table(weights)], tmp_path)
    cut_up = sampled(
        params(documents=100), [table(weights[:50]), table(weights[50:400], 50), table(weights[400:], 400)], tmp_path
    )
    assert whole == cut_up and "d/5" not in whole
    assert abs(len(whole) - 100) <= 2
    assert abs(len(sampled(params(fraction=0.5), [table(weights)], tmp_path)) - 300) <= 3
    assert sampled(params(documents=100, seed=1), [table(weights)], tmp_path) != whole


def test_chances_are_in_proportion_to_weights(tmp_path: Path) -> None:
    """Of two kinds, one with twice the weight: a small sample has about twice as many of them."""
    weights: list[float | None] = [math.log(2.0) if i % 2 else 0.0 for i in range(8000)]
    taken = sampled(params(documents=800), [table(weights)], tmp_path)
    odd = sum(int(name[2:]) % 2 for name in taken) / len(taken)
    assert abs(odd - 0.655) < 0.04  # a little less than 2/3, since it is without replacement
    flat = sampled(params(documents=800, temperature=1000), [table(weights)], tmp_path)
    assert abs(sum(int(name[2:]) % 2 for name in flat) / len(flat) - 0.5) < 0.05


def test_noise_is_gumbel_s() -> None:
    noise = gumbel(np.random.default_rng(0).integers(0, 2**64, 200_000, np.uint64))
    assert abs(noise.mean() - np.euler_gamma) < 0.02 and abs(noise.std() - math.pi / math.sqrt(6)) < 0.02
    assert np.isfinite(gumbel(np.array([0, 2**64 - 1], np.uint64))).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_ranks_sort_as_the_noisy_weights(weights: list[float]) -> None:
    sample = ImportanceSample(by="w", documents=1)
    frame = pl.DataFrame({"id": [f"d/{i}" for i in range(len(weights))], "w": weights})
    import xxhash

    noise = gumbel(np.array([xxhash.xxh3_64_intdigest(i.encode(), 0) for i in frame["id"]], np.uint64))
    keys, told = np.array(weights) + noise, ranks(sample, frame, "x").to_list()
    for a in range(len(keys)):
        for b in range(len(keys)):
            if keys[a] < keys[b]:
                assert told[a] <= told[b]


def test_no_weight_no_sample() -> None:
    sample = ImportanceSample(by="w", documents=5)
    assert cut(sample, [{"rank": None, "documents": 9}]) > "fffff"
    with pytest.raises(ValueError, match=r"component x: there is no column w \(did you mean ww"):
        ranks(sample, pl.DataFrame({"id": ["a"], "ww": [1.0]}), "component x")
    with pytest.raises(ValueError, match="the column w holds String, not numbers to sample by"):
        ranks(sample, pl.DataFrame({"id": ["a"], "w": ["1"]}), "component x")
    with pytest.raises(ValueError, match="give either documents, or fraction"):
        ImportanceSample(by="w")
