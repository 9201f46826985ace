"""A recipe, run: its stages on the engine, then training, evaluation and the report."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labelers.stages_distill import Distill, tell
from labelers.stages_fit import FitLabels
from pipeline.corpus import Corpus
from pipeline.download import offline
from pipeline.mix import Plan, plan_path
from pipeline.plan import MixturePlan, render_plan
from pipeline.receipt import Receipt
from pipeline.stage import Executor, GlobalStage, PartitionStage, Stage
from pipeline.storage import split_url
from workflows.engine import Engine, NotBuiltError
from workflows.inline import InlineExecutor
from workflows.progress import Progress
from workflows.recipe import EngineParams, Recipe
from workflows.rule_filters import blind_rules
from workflows.work import Summarise

FINAL_STEPS = ("train", "evaluate", "report")


@contextlib.contextmanager
def executor(corpus: Corpus, params: EngineParams) -> Iterator[Executor]:
    """The executor that a recipe asks for."""
    if params.kind == "inline":
        yield InlineExecutor(corpus.storage)
        return
    from workflows.cluster import ray_executor

    with ray_executor(corpus.storage, params.address, params.cpus) as on_ray:
        yield on_ray


def build(recipe: Recipe, until: str | None = None, progress: Progress | None = None) -> dict[str, list[Receipt]]:
    """Bring a corpus up to date with its recipe. Returns the receipts by stage.

    until: name of the last stage to run. ValueError if there is none of that name, or a stage fails on its input.
    """
    stages = recipe.stages()
    steps = [s for s in FINAL_STEPS if getattr(recipe, s) is not None]
    names = [*(s.name for s in stages), *steps]
    last = _last(names, until) if until is not None else len(names) - 1
    corpus = Corpus(recipe.corpus)
    corpus.storage.sweep()
    progress = progress or Progress()
    check_files(stages[: last + 1])
    if recipe.annotate:
        for line in blind_rules(recipe.mix.select if recipe.mix else (), recipe.annotate):
            progress.show(f"warning: {line}")
    receipts: dict[str, list[Receipt]] = {}
    with executor(corpus, recipe.engine) as runs:
        engine = Engine(corpus, runs, progress, recipe.keep_rejects)
        for position, stage in enumerate(stages[: last + 1]):
            receipts[stage.name] = engine.run(stage)
            _tell(stage, receipts[stage.name], corpus, progress)
            if position < last and {"documents", "raw"} & {*stage.output_tables()}:
                _check_documents(stage, receipts[stage.name])
        for step in steps[: max(last + 1 - len(stages), 0)]:
            receipts[step] = [_run_step(step, recipe, engine)]
    return receipts


def check_files(stages: Sequence[Stage]) -> None:
    """ValueError, before anything runs, if a local file that a stage reads (models, word lists, tables) is not there."""
    for stage in stages:
        for key, location in stage.files().items():
            storage, name = split_url(location)
            if not location.startswith("global/") and storage.local is not None and not (storage.local / name).is_file():
                raise ValueError(f"{stage.name}: {key}: {location} is not there")


def _tell(stage: Stage, receipts: list[Receipt], corpus: Corpus, progress: Progress) -> None:
    """What a person should see before the next stage: warnings, and a mixture's plan before anything is selected by it."""
    for receipt in receipts:
        for warning in receipt.metrics.get("warnings", ()):
            progress.show(f"warning: {warning}")
    if isinstance(stage, FitLabels) and receipts and receipts[0].metrics.get("reason"):
        progress.show(f"{stage.params.task}: {receipts[0].metrics['reason']}")
    if isinstance(stage, Distill) and receipts:
        progress.show(tell(receipts[0].metrics))
    if isinstance(stage, Plan):
        progress.show(render_plan(MixturePlan.from_json(corpus.storage.read(plan_path(stage.params.name)))))


def _check_documents(stage: Stage, receipts: list[Receipt]) -> None:
    """ValueError if a stage left no document at all: the stages after it would fail on what they do not find."""
    if any(r.rows_out for r in receipts):
        return
    drops = Counter[str]()
    for receipt in receipts:
        drops.update(receipt.drops)
    why = ", ".join(f"{reason} {count:,}" for reason, count in drops.most_common())
    raise ValueError(f"{stage.name} leaves no document of {sum(r.rows_in for r in receipts):,}: {why or 'its input is empty'}")


def _last(names: list[str], until: str) -> int:
    """Where to stop: `vote` means the last of `vote/<task>`."""
    matching = [i for i, name in enumerate(names) if name == until or name.startswith(f"{until}/")]
    if not matching:
        raise ValueError(f"--until {until}: this recipe's stages are {', '.join(names)}")
    return matching[-1]


def _run_step(step: str, recipe: Recipe, engine: Engine) -> Receipt:
    from workflows import training_steps

    if step == "train":
        return training_steps.train_step(recipe, engine)
    if step == "evaluate":
        return training_steps.evaluate_step(recipe, engine)
    from workflows.report import report_step

    return report_step(recipe, engine)


@dataclass(frozen=True)
class StageStatus:
    """Where a stage stands. total is None while a stage before it has not said how many partitions there are."""

    name: str
    done: int
    total: int | None
    receipts: list[Receipt]
    problem: str | None = None  # why it cannot be told: a damaged receipt, a model that is not there


def survey(recipe: Recipe) -> list[StageStatus]:
    """Where each stage stands, without running anything, nor asking a server for what is not here."""
    corpus = Corpus(recipe.corpus)
    engine = Engine(corpus, InlineExecutor(corpus.storage), Progress(quiet=True), recipe.keep_rejects)
    found: list[StageStatus] = []
    complete = True
    for stage in recipe.stages():
        with offline():
            status = _survey_stage(engine, stage, complete)
        complete = complete and status.done == status.total
        found.append(status)
    for step in FINAL_STEPS:
        if getattr(recipe, step) is not None:
            done = list(corpus.receipts(step))
            found.append(StageStatus(step, len(done), 1, done))
    return found


def _survey_stage(engine: Engine, stage: Stage, complete: bool) -> StageStatus:
    try:
        if isinstance(stage, PartitionStage):
            plan = engine.plan(stage)
            engine.record(stage, plan.done)
            return StageStatus(stage.name, len(plan.done), len(plan.done) + len(plan.todo) if complete else None, plan.done)
        assert isinstance(stage, GlobalStage)
        summaries = engine.plan(Summarise(stage))
        engine.record(Summarise(stage), summaries.done)
        if summaries.todo:
            return StageStatus(stage.name, 0, None, [])
        groups = engine.plan_groups(stage, summaries.done)
        engine.record(stage, groups.done)
        return StageStatus(stage.name, len(groups.done), len(groups.done) + len(groups.todo), groups.done)
    except NotBuiltError:
        return StageStatus(stage.name, 0, None, [])
    except ValueError as error:
        return StageStatus(stage.name, 0, None, [], str(error))
