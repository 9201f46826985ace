"""The engine's promises, with small stages: nothing twice, nothing stale, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.corpus import Corpus
from pipeline.receipt import Receipt
from pipeline.stage import Stage
from tests.workflows.toy_stages import Count, CountParams, NoParams, Repeated, Split, SplitParams, Sum, Unsound
from workflows.engine import Engine
from workflows.inline import InlineExecutor
from workflows.progress import Progress


def run(folder: Path, *stages: Stage, keep_rejects: bool = False) -> list[list[Receipt]]:
    corpus = Corpus(str(folder))
    engine = Engine(corpus, InlineExecutor(corpus.storage), Progress(quiet=True), keep_rejects)
    return [engine.run(s) for s in stages]


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the receipts, which hold times."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and "receipts" not in p.relative_to(folder).parts
    }


def all_stages(modulus: int = 3, salt: int = 0, shards: int = 4) -> tuple[Stage, ...]:
    return (
        Count(CountParams(salt=salt, shards=shards)),
        Sum(NoParams()),
        Repeated(NoParams()),
        Split(SplitParams(modulus=modulus)),
    )


def times(folder: Path) -> dict[str, int]:
    return {k: (folder / k).stat().st_mtime_ns for k in content(folder)}


def test_rows_are_conserved_and_counted_by_reason(tmp_path: Path) -> None:
    counted, *_ = run(tmp_path, *all_stages())
    assert [(r.rows_in, r.rows_out, dict(r.drops)) for r in counted] == [(100, 90, {"multiple_of_ten": 10})] * 4
    assert all(r.conserved for r in counted)


def test_a_second_run_writes_nothing(tmp_path: Path) -> None:
    run(tmp_path, *all_stages())
    before = times(tmp_path)
    run(tmp_path, *all_stages())
    assert times(tmp_path) == before


def test_a_changed_parameter_redoes_exactly_what_depends_on_it(tmp_path: Path) -> None:
    run(tmp_path, *all_stages())
    before = times(tmp_path)
    run(tmp_path, *all_stages(modulus=2))
    after = times(tmp_path)
    assert not any("/r2" in p for p in after), "a partition that no longer exists must go"
    changed = {p for p in after if before.get(p) != after[p]}
    assert changed == {p for p in after if p.startswith("parts/")}


def test_fewer_shards_leave_nothing_behind(tmp_path: Path) -> None:
    run(tmp_path / "a", *all_stages(shards=6))
    run(tmp_path / "a", *all_stages(shards=3))
    run(tmp_path / "b", *all_stages(shards=3))
    assert content(tmp_path / "a") == content(tmp_path / "b")
    receipts = [{str(p.relative_to(tmp_path / x)) for p in (tmp_path / x / "receipts").rglob("*.json")} for x in "ab"]
    assert receipts[0] == receipts[1]


def test_a_lost_output_is_made_again(tmp_path: Path) -> None:
    run(tmp_path, *all_stages())
    before = content(tmp_path)
    (tmp_path / "parts/toy/0001/r1.parquet").unlink()
    (tmp_path / "global/sum/g1.parquet").unlink()
    run(tmp_path, *all_stages())
    assert content(tmp_path) == before


def test_a_merge_tree_and_a_shuffle_give_what_a_loop_gives(tmp_path: Path) -> None:
    shards = 70  # more than FAN_IN
    _, sums, _, _ = run(tmp_path, *all_stages(shards=shards))
    numbers = {s: [v for v in range(s, s + 100) if v % 10] for s in range(shards)}
    assert [r.metrics["sum"] for r in sorted(sums, key=lambda r: int(r.partition[1:]))] == [
        sum(numbers[s]) + sum(numbers[s + 1]) for s in range(0, shards, 2)
    ]
    flat = [v for values in numbers.values() for v in values]
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "global/repeated/all.parquet")["value"].to_pylist() == sorted(
        {v for v in flat if flat.count(v) > 1}
    )


def test_a_stage_that_loses_a_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="unsound breaks conservation on toy/000"):
        run(tmp_path, Count(CountParams()), Unsound(NoParams()))
    assert not (tmp_path / "fewer").exists()


def test_an_error_names_stage_and_partition_and_keeps_what_was_done(tmp_path: Path) -> None:
    failing = Split(SplitParams(fail_on="toy/0002"))
    with pytest.raises(ValueError, match="split failed on toy/0002: toy/0002 is not to my taste"):
        run(tmp_path, Count(CountParams()), failing)
    assert not (tmp_path / "receipts/split/toy/0002.json").exists()
    assert (tmp_path / "receipts/count/toy/0003.json").exists()


def test_a_missing_stage_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split reads numbers, which no stage before it writes"):
        run(tmp_path, Split(SplitParams()))
