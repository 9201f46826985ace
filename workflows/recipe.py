"""A recipe: one YAML file, one pydantic model, every parameter of every stage. What it says is what is fingerprinted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from labelers.label_stages import label_stages
from labelers.stages import LabelParams
from labelers.stages_embed import EmbedParams, embed_stages
from pipeline.deduplicate import Cluster, Deduplicate, DeduplicateParams
from pipeline.ingest import Ingest, IngestParams
from pipeline.ingest_redpajama import IngestRedPajama, IngestRedPajamaParams
from pipeline.language_models import LanguageModels, LanguageModelsParams
from pipeline.mine import Mine, MineParams
from pipeline.mix import Mix, MixParams, Plan
from pipeline.paragraphs import Paragraphs
from pipeline.sources.redpajama_signals import SIGNALS
from pipeline.stage import Params, Stage
from pipeline.tokenize import TokenizeParams
from pipeline.tokenize import stages as tokenize_stages
from quality.annotate import Annotate, AnnotateParams
from quality.registry import select, unavailable
from workflows.rule_filters import check_measured, expand_rules
from workflows.section import explain, load_yaml
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
    corpus: str = Field(min_length=1, description="Folder or URL of the corpus: local, `s3://`, `gs://`, or what fsspec opens.")
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
    label: tuple[LabelParams, ...] = Field((), description="Labelling tasks: functions, votes, label model, distilled model.")
    embeddings: tuple[EmbedParams, ...] = Field((), description="Document embeddings.")
    mix: MixParams | None = Field(None, description="Selection and mixture.")
    tokenize: TokenizeParams | None = Field(None, description="Tokenizer and token shards.")
    train: TrainParams | None = Field(None, description="Pretraining.")
    evaluate: EvaluateParams | None = Field(None, description="Perplexity on held-out documents, and samples.")
    report: ReportParams | None = Field(None, description="The HTML report.")

    @model_validator(mode="before")
    @classmethod
    def _rule_sets(cls, told: Any) -> Any:
        if isinstance(told, dict) and isinstance(told.get("mix"), dict):
            return {**told, "mix": expand_rules(told["mix"])}
        return told

    @model_validator(mode="after")
    def _one_way_in(self) -> Recipe:
        if (self.ingest is None) == (self.ingest_redpajama is None):
            raise ValueError("give either ingest, or ingest_redpajama")
        if self.ingest_redpajama and (self.mine or self.language_models):
            raise ValueError("ingest_redpajama brings documents that are mined already: leave mine and language_models out")
        if self.ingest_redpajama and self.ingest_redpajama.signatures and self.annotate:
            raise ValueError(
                "ingest_redpajama brings its signatures: leave annotate out, or set ingest_redpajama.signatures to false"
            )
        if self.ingest_redpajama and self.annotate and (self.annotate.signals != () or self.annotate.rules):
            raise ValueError("ingest_redpajama brings its signals: set annotate.signals to [] to add signatures only")
        if self.ingest and not self.mine and (self.annotate or self.deduplicate or self.label or self.embeddings or self.mix):
            raise ValueError("the stages after ingest work on mined documents: add a mine section")
        self._check_wiring()
        return self

    def _check_wiring(self) -> None:
        """Every table that a stage reads, a stage before it writes: told before the first stage runs, not hours later."""
        again = [task for task, count in Counter(t.task for t in self.label).items() if count > 1]
        if again:
            raise ValueError(f"label has the task {again[0]} twice: give each a name of its own")
        named = Counter(e.name for e in self.embeddings)
        if again := [name for name, count in named.items() if count > 1]:
            raise ValueError(f"embeddings has the name {again[0]} twice: give each a name of its own")
        for each in self.embeddings:
            if each.task is not None and each.task not in {t.task for t in self.label}:
                raise ValueError(f"embeddings {each.name} learns from the task {each.task}, which label does not have")
        if self.evaluate and not self.train:
            raise ValueError("the recipe evaluates, but does not train: add a train section")
        if self.train and not (self.tokenize and self.mix):
            raise ValueError("train reads the token shards of a mixture: add a mix and a tokenize section")
        if self.train and self.train.folder is None and "://" in self.corpus and not self.corpus.startswith("file://"):
            raise ValueError(f"train.folder is not set: {self.corpus} is no local folder, and a run needs one")
        for section in (self.tokenize, self.train):
            if section and section.mixture is not None and self.mix and section.mixture != self.mix.name:
                name = "tokenize" if section is self.tokenize else "train"
                raise ValueError(f"{name}.mixture is {section.mixture}, but the recipe's mixture is {self.mix.name}")
        measured = {s.name for s in self.annotate.selected()} if self.annotate else set()
        if self.ingest_redpajama:
            measured |= set(SIGNALS)
        if self.mix:
            check_measured(self.mix.select, measured)
        if self.deduplicate and (compared := self.deduplicate.signal) is not None:
            if compared not in measured:
                raise ValueError(f"deduplicate.signal is {compared}, and nothing measures it: add it to annotate.signals")
            if self.annotate and (missing := unavailable(select([compared]), self.annotate.held())):
                raise ValueError(f"deduplicate.signal: {missing[compared]}")
        written: set[str] = set()
        for stage in self.stages():
            for table in stage.input_tables():
                if table not in written:
                    there = ", ".join(sorted(written)) or "none"
                    raise ValueError(f"{stage.name} reads {table}, which no stage before it writes (there are: {there})")
            written.update(stage.output_tables())

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
        for each in self.embeddings:
            stages += embed_stages(each) if each.task is None else []
        for task in self.label:
            stages += label_stages(task)
            for each in self.embeddings:
                stages += embed_stages(each) if each.task == task.task else []
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
        told = load_yaml(Path(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is not there: name a recipe, such as recipes/demo.yaml") from error
    if not isinstance(told, dict):
        raise ValueError(f"{path} holds no recipe: a recipe is a YAML mapping with name, corpus, ingest, ...")
    for assignment in assignments:
        _assign(told, assignment)
    try:
        return Recipe.model_validate(told)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, Recipe)}") from error


def _assign(told: dict[str, Any], assignment: str) -> None:
    name, equals, value = assignment.partition("=")
    if not equals or not all(name.split(".")):
        raise ValueError(f"--set {assignment}: write it as section.field=value")
    try:
        item = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {assignment}: the value is not YAML: {error}") from error
    *path, last = name.split(".")
    place: Any = told
    for part in path:
        if isinstance(place, list):
            place = place[_index(place, part, assignment)]
            if not isinstance(place, dict | list):
                raise ValueError(f"--set {assignment}: item {part} holds no fields")
            continue
        if not isinstance(place.get(part), dict | list):
            place[part] = {}
        place = place[part]
    if isinstance(place, list):
        place[_index(place, last, assignment)] = item
    else:
        place[last] = item


def _index(items: list[Any], part: str, assignment: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        raise ValueError(f"--set {assignment}: {part} is no item of a list of {len(items)}")
    return int(part)
