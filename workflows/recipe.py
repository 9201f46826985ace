"""A recipe: one YAML file, one pydantic model, every parameter of every stage. What it says is what is fingerprinted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from labelers.stages import FitLabels, Label, LabelParams, Vote
from pipeline.deduplicate import Cluster, Deduplicate, DeduplicateParams
from pipeline.ingest import Ingest, IngestParams
from pipeline.ingest_redpajama import IngestRedPajama, IngestRedPajamaParams
from pipeline.language_models import LanguageModels, LanguageModelsParams
from pipeline.mine import Mine, MineParams
from pipeline.mix import Mix, MixParams, Plan
from pipeline.paragraphs import Paragraphs
from pipeline.stage import Params, Stage
from pipeline.tokenize import TokenizeParams
from pipeline.tokenize import stages as tokenize_stages
from quality.annotate import Annotate, AnnotateParams
from workflows.training_steps import EvaluateParams, TrainParams


class EngineParams(Params):
    """Where the stages run."""

    kind: Literal["ray", "inline"] = Field(default="ray", description="`ray`, or `inline`: one process, one task at a time.")
    address: str | None = Field(default=None, description="Address of a Ray cluster; none starts a Ray on this machine.")
    cpus: int | None = Field(default=None, ge=1, description="Cores that a local Ray uses; all by default.")


class ReportParams(Params):
    """The HTML report."""

    path: str = Field("report.html", description="Local path of the page.")
    samples: int = Field(12, ge=0, description="Sampled documents shown, kept and dropped.")


class Recipe(Params):
    """A whole build. A section that is left out is a stage that does not run."""

    name: str = Field(description="Name of the build, shown in reports and job names.")
    corpus: str = Field(description="Folder or URL of the corpus: local, `s3://`, `gs://`, or what fsspec opens.")
    engine: EngineParams = Field(EngineParams(), description="Where the stages run.")
    keep_rejects: bool = Field(False, description="Write dropped records, with their reasons, to `rejects/`.")
    ingest: IngestParams | None = Field(None, description="Sources to documents.")
    ingest_redpajama: IngestRedPajamaParams | None = Field(
        None, description="RedPajama-V2 as published, its signals too, instead of `ingest` and `mine`."
    )
    language_models: LanguageModelsParams | None = Field(None, description="Language models trained on the corpus itself.")
    mine: MineParams | None = Field(None, description="Paragraph dedup, language, perplexity, bucket.")
    annotate: AnnotateParams | None = Field(None, description="Quality signals and MinHash signatures.")
    deduplicate: DeduplicateParams | None = Field(None, description="Exact and fuzzy duplicates.")
    label: tuple[LabelParams, ...] = Field((), description="Labelling tasks: functions, votes, label model.")
    mix: MixParams | None = Field(None, description="Selection and mixture.")
    tokenize: TokenizeParams | None = Field(None, description="Tokenizer and token shards.")
    train: TrainParams | None = Field(None, description="Pretraining.")
    evaluate: EvaluateParams | None = Field(None, description="Perplexity on held-out documents, and samples.")
    report: ReportParams | None = Field(None, description="The HTML report.")

    @model_validator(mode="after")
    def _one_way_in(self) -> Recipe:
        if (self.ingest is None) == (self.ingest_redpajama is None):
            raise ValueError("give either ingest, or ingest_redpajama")
        if self.ingest_redpajama and (self.mine or self.language_models):
            raise ValueError("ingest_redpajama brings documents that are mined already: leave mine and language_models out")
        if self.ingest_redpajama and self.annotate and self.annotate.signals != ():
            raise ValueError("ingest_redpajama brings its signals: set annotate.signals to [] to add signatures only")
        if self.ingest and not self.mine and (self.annotate or self.deduplicate or self.label or self.mix):
            raise ValueError("the stages after ingest work on mined documents: add a mine section")
        return self

    def stages(self) -> list[Stage]:
        """The stages of the corpus, in order (training and report come after them)."""
        stages: list[Stage] = []
        if self.ingest:
            stages.append(Ingest(self.ingest))
        if self.ingest_redpajama:
            stages.append(IngestRedPajama(self.ingest_redpajama))
        if self.mine and self.mine.paragraphs:
            stages.append(Paragraphs(self.mine.paragraphs))
        if self.language_models:
            stages.append(LanguageModels(self.language_models))
        if self.mine:
            stages.append(Mine(self.mine))
        if self.annotate:
            stages.append(Annotate(self.annotate))
        if self.deduplicate:
            stages += [Cluster(self.deduplicate), Deduplicate(self.deduplicate)]
        for task in self.label:
            stages += [Vote(task), FitLabels(task), Label(task)]
        if self.mix:
            stages += [Plan(self.mix), Mix(self.mix)]
        if self.tokenize:
            stages += tokenize_stages(self.tokenize)
        return stages


def load_recipe(path: str | Path, assignments: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `a.b=value` assignments (values are YAML; list items by number).

    ValueError, in one line, names the file, the field and what is wrong with it.
    """
    try:
        told = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is not there: name a recipe, such as recipes/demo.yaml") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{path} holds no recipe: a recipe is a YAML mapping with name, corpus, ingest, ...")
    for assignment in assignments:
        _assign(told, assignment)
    try:
        return Recipe.model_validate(told)
    except ValidationError as error:
        first, *others = error.errors()
        where = ".".join(str(part) for part in first["loc"]) or "the recipe"
        more = f" (and {len(others)} more)" if others else ""
        raise ValueError(f"{path}: {where}: {first['msg']}{more}") from error


def _assign(told: dict[str, Any], assignment: str) -> None:
    name, equals, value = assignment.partition("=")
    if not equals:
        raise ValueError(f"--set {assignment}: write it as section.field=value")
    *path, last = name.split(".")
    place: Any = told
    for part in path:
        if isinstance(place, list):
            place = place[_index(place, part, assignment)]
            continue
        if not isinstance(place.get(part), dict | list):
            place[part] = {}
        place = place[part]
    if isinstance(place, list):
        place[_index(place, last, assignment)] = yaml.safe_load(value)
    else:
        place[last] = yaml.safe_load(value)


def _index(items: list[Any], part: str, assignment: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ValueError(f"--set {assignment}: {part} is no item of a list of {len(items)}")
    return int(part)
