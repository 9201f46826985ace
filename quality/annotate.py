"""The stage `annotate`: all signals and the MinHash signature of every document, in one pass over the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from pipeline.minhash import MinHash, MinHashParams
from pipeline.stage import Params, PartitionStage, StageResult
from pipeline.tables import EXCERPT_LENGTH, MINHASH, REJECTS
from pipeline.text import TextBatch
from quality import registry
from quality.classifiers import classifier_files, load_classifiers
from quality.importance import SOURCE, TARGETS, table_names
from quality.registry import Context, Mode, Signal, module_files
from quality.resources import HOW_TO_GET, SignalResources, resource_files
from quality.rules import judge_table, rule_sets

_ANY_TABLE = frozenset((domain, "") for domain in (SOURCE, *TARGETS))
SIGNAL_ERROR = "signal_error"
"""The reason of a document that a user's signal cannot measure."""


class AnnotateParams(Params):
    """What `annotate` measures, and with which word lists."""

    signals: Literal["all"] | tuple[str, ...] = Field(
        default="all", description="Names of quality signals, or `all`; [] leaves `signals` alone."
    )
    modules: tuple[str, ...] = Field(
        default=(), description="Modules with signals of your own: `package.module`, or the path of a .py file."
    )
    mode: Mode = Field(
        default="redpajama-v2", description="`redpajama-v2`: the published values, quirks included. `fixed`: quirks mended."
    )
    stop_words: str | None = Field(
        default=None, description="Stop words: a JSON file by language, or `<lang>.txt` in a folder."
    )
    ldnoobw: str | None = Field(default=None, description="LDNOOBW: a folder of `<lang>.txt`, or a JSON file by language.")
    ut1: str | None = Field(default=None, description="UT1 block list: a JSON file with `domain_to_category_id`.")
    importance: str | None = Field(default=None, description="Folder of importance tables (`models train-importance`).")
    classifiers: dict[str, str | dict[str, str]] = Field(
        default_factory=dict,
        description="fastText models (`models train-classifier`) by signal, or by signal and language.",
    )
    rules: tuple[str, ...] = Field(
        default=(), description="Published rule sets, such as gopher: their signals are measured, their verdicts counted."
    )
    minhash: MinHashParams = Field(default_factory=MinHashParams, description="How documents are signed.")

    @model_validator(mode="after")
    def _measurable(self) -> AnnotateParams:
        selected = registry.select(self.signals, self.modules)
        rule_sets(self.rules)
        if self.signals != "all":
            for each in selected:
                for needed in each.resources:
                    if not getattr(self, needed, None):
                        raise ValueError(f"{needed} is not set: {each.name} needs {HOW_TO_GET[needed]}")
            if missing := list(registry.unavailable(selected, self.held()).values()):
                raise ValueError(missing[0])
        readers = [name for name, each in registry.registered().items() if "classifiers" in each.resources]
        unread = [name for name in self.classifiers if name not in readers]
        if unread and not self.modules:  # a signal of the user's own may read any
            raise ValueError(f"classifiers: no signal {unread[0]} reads a model; there is {', '.join(readers)}")
        return self

    def held(self) -> Mapping[str, Collection[Any]]:
        """What there will be of each resource, as far as it can be told before the files are there."""
        told: dict[str, Collection[Any]] = {name: (getattr(self, name),) * bool(getattr(self, name)) for name in HOW_TO_GET}
        told["classifiers"] = self.classifiers.keys()
        if self.importance is not None:
            folder = Path(self.importance).expanduser()
            here = [file.name for file in folder.iterdir()] if folder.is_dir() else None
            told["importance"] = table_names(here) if here is not None else _ANY_TABLE
        return told

    def files(self) -> Mapping[str, str]:
        """Word lists, tables and modules by key. ValueError if one is not there."""
        given = {name: location for name in HOW_TO_GET if isinstance(location := getattr(self, name, None), str)}
        return {**resource_files(given), **classifier_files(self.classifiers), **module_files(self.modules)}

    def selected(self) -> list[Signal]:
        """The signals to measure: those asked for, and those that the rules read. Modules must be loaded."""
        return registry.select(self.signals, also=[name for each in rule_sets(self.rules) for name in each.signals])


@dataclass
class Annotate(PartitionStage):
    """documents -> signals, minhash. One tokenisation serves both; a batch of a few megabytes is in memory at a time.

    A document that a signal of the user's own cannot measure keeps its row, where that signal is null; it is counted, and
    among the rejects with the reason.
    """

    params: AnnotateParams = field(default_factory=AnnotateParams)
    _resources: SignalResources | None = field(default=None, init=False, repr=False, compare=False)

    name = "annotate"
    version = 2
    inputs = ("documents",)
    outputs = ("signals", "minhash")

    def output_tables(self) -> tuple[str, ...]:
        return self.outputs if self.params.signals or self.params.rules else ("minhash",)

    def files(self) -> Mapping[str, str]:
        return self.params.files()

    def setup(self, files: Mapping[str, Path]) -> None:
        registry.load_modules(self.params.modules, files)
        self._resources = SignalResources.from_files(files, load_classifiers(files))

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        documents = tables["documents"]
        context = Context(self.params.mode, self._resources or SignalResources())
        told = annotate(documents, self.params.selected(), MinHash(self.params.minhash), context)
        metrics: dict[str, Any] = {"unsigned_documents": told.minhash["signature"].null_count}
        if told.rejects.num_rows:
            metrics["rejected_documents"] = dict(Counter(told.rejects["reason"].to_pylist()))
        if self.params.rules:
            metrics["rules"] = judge_table(told.signals, documents, rule_sets(self.params.rules))[1].to_json()
        written = {"signals": told.signals, "minhash": told.minhash}
        return StageResult(
            documents.num_rows, {t: written[t] for t in self.output_tables()}, rejects=told.rejects, metrics=metrics
        )


@dataclass(frozen=True)
class Annotation:
    """What `annotate` found. signals: `registry.schema`; minhash: tables.MINHASH, without rows if nothing was signed; rejects:
    tables.REJECTS, a row for each document and signal of the user's own that raised, with the reason `signal_error`."""

    signals: pa.Table
    minhash: pa.Table
    rejects: pa.Table


def annotate(
    documents: pa.Table, signals: Sequence[Signal], minhash: MinHash | None = None, context: Context | None = None
) -> Annotation:
    """Measure and sign documents with columns `id` and `raw_content`, and whatever else the signals read.

    ValueError if a column is missing or the text is not UTF-8.
    """
    if "id" not in documents.column_names:
        raise ValueError(f"no column id; there is {', '.join(documents.column_names)}")
    context, of_lines = context or Context(), any(s.level == "line" for s in signals)
    # Signatures are made between the signals that read words and those of distinct words, so that in what takes most memory
    # the spelling of words, which no signal reads, is not there any more.
    late = [s for s in signals if "distinct_words" in s.needs]
    early = [s for s in signals if s not in late]
    keep = {view for s in late for view in s.needs} | ({"words"} if minhash is not None else set())
    schema = registry.schema(signals, context.mode)
    measured: dict[str, list[pa.Array]] = {name: [] for name in schema.names[1:]}
    signatures: list[pa.Array] = []
    rejects: list[dict[str, str | None]] = []
    for text in TextBatch.over(documents):
        failures: list[registry.Failure] = []
        spans = registry.line_spans(text) if of_lines else {}
        told = spans | registry.measure(text, early, context, failures, keep)
        if minhash is not None:
            signatures.append(minhash.sign(text))
            text.words.release_utf8()
        for name, values in (told | registry.measure(text, late, context, failures)).items():
            measured[name].append(values)
        rejects += [_reject(text, failure) for failure in failures]
    columns = {name: pa.chunked_array(chunks, schema.field(name).type) for name, chunks in measured.items()}
    ids = documents["id"] if minhash is not None else documents["id"].slice(0, 0)
    signed = pa.chunked_array(signatures, MINHASH.field("signature").type)
    return Annotation(
        signals=pa.table({"id": documents["id"], **columns}, schema=schema),
        minhash=pa.table({"id": ids, "signature": signed}, schema=minhash.schema if minhash is not None else MINHASH),
        rejects=pa.Table.from_pylist(rejects, REJECTS),
    )


def _reject(text: TextBatch, failure: registry.Failure) -> dict[str, str | None]:
    told = {name: text.columns[name][failure.document].as_py() for name in ("id", "url") if name in text.columns}
    return {
        "record_id": told.get("id"),
        "url": told.get("url"),
        "reason": SIGNAL_ERROR,
        "detail": f"{failure.signal}: {type(failure.error).__name__}: {' '.join(str(failure.error).split())}",
        "excerpt": text.string(failure.document)[:EXCERPT_LENGTH],
    }
