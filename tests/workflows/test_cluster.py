"""The Ray executor does what the inline one does, byte for byte, and survives the death of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.corpus import Corpus
from pipeline.stage import Stage
from tests.workflows.test_engine import all_stages, content
from tests.workflows.test_engine import run as run_inline
from tests.workflows.toy_stages import Count, CountParams, Split, SplitParams
from workflows.cluster import ray_executor
from workflows.engine import Engine
from workflows.progress import Progress

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ray_executor(Corpus(str(tmp_path_factory.mktemp("ray"))).storage, cpus=2):
        yield


def run_on_ray(folder: Path, *stages: Stage) -> None:
    corpus = Corpus(str(folder))
    with ray_executor(corpus.storage) as executor:
        engine = Engine(corpus, executor, Progress(quiet=True))
        for stage in stages:
            engine.run(stage)


def test_ray_and_inline_write_the_same_bytes(tmp_path: Path, ray_session: None) -> None:
    run_inline(tmp_path / "inline", *all_stages())
    run_on_ray(tmp_path / "ray", *all_stages())
    assert content(tmp_path / "ray") == content(tmp_path / "inline")


def test_a_worker_killed_in_a_task_costs_nothing(tmp_path: Path, ray_session: None) -> None:
    death = tmp_path / "died"
    run_on_ray(tmp_path / "ray", Count(CountParams()), Split(SplitParams(die_on=str(death))))
    assert death.exists(), "no worker died, so nothing was shown"
    run_inline(tmp_path / "inline", Count(CountParams()), Split(SplitParams()))
    assert content(tmp_path / "ray") == content(tmp_path / "inline")


def test_an_error_on_ray_names_stage_and_partition(tmp_path: Path, ray_session: None) -> None:
    with pytest.raises(ValueError, match="split failed on toy/0002: toy/0002 is not to my taste"):
        run_on_ray(tmp_path, Count(CountParams()), Split(SplitParams(fail_on="toy/0002")))
