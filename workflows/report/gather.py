"""What a report tells, gathered from a corpus: receipts, aggregates of the aligned tables, a few documents. Bounded memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from pipeline.corpus import Corpus
from pipeline.plan import MixturePlan
from pipeline.receipt import Receipt
from pipeline.tables import SIMILARITIES
from workflows.report import labels
from workflows.report.labels import LabelFacts

BINS = 40
MOST_DOMAINS = 20
_RANK = "rank"


@dataclass(frozen=True)
class StageTotals:
    """One stage over all its partitions. `bytes`: of its outputs; `seconds`: of all tasks together."""

    name: str
    partitions: int
    rows_in: int
    rows_out: int
    drops: Mapping[str, int]
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Histogram:
    """Counts of documents per bin: all, and the selected ones. `edges` has one entry more than the counts."""

    name: str
    edges: Sequence[float]
    everything: Sequence[int]
    selected: Sequence[int]
    nulls: int


@dataclass(frozen=True)
class Sample:
    """A document, shown: why it was dropped (None: it was kept)."""

    title: str
    url: str
    language: str
    text: str
    reason: str | None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class CorpusFacts:
    """Everything that a report reads of a corpus. Attributes are computed when asked for. problems: what is damaged."""

    corpus: Corpus
    problems: list[str] = field(default_factory=list)

    @cached_property
    def receipts(self) -> dict[str, list[Receipt]]:
        """Receipts by stage, in the order in which the stages ran first."""
        found: dict[str, list[Receipt]] = {}
        for path in self.corpus.storage.files("receipts", ".json"):
            try:
                receipt = self.corpus.read_receipt(path)
            except ValueError as error:
                self.problems.append(str(error))
                continue
            found.setdefault(receipt.stage, []).append(receipt)
        if not found:
            raise ValueError(f"{self.corpus.url} has no receipts: is it a corpus, and is anything built?")
        order = [
            "ingest",
            "paragraphs",
            "language-models",
            "mine",
            "annotate",
            "cluster",
            "deduplicate",
            "fit-embeddings",
            "embed",
        ]
        order += [
            "vote",
            "fit-labels",
            "label",
            "distill",
            "classify",
            "plan",
            "mix",
            "train-tokenizer",
            "tokenize",
            "manifests",
            "train",
            "evaluate",
        ]
        return dict(sorted(found.items(), key=lambda kv: _position(order, kv[0])))

    @cached_property
    def stages(self) -> list[StageTotals]:
        """Totals of each stage; the halves of a global stage together."""
        totals = []
        for name, receipts in self.receipts.items():
            if name.endswith("/summaries") or name in ("evaluate", "report"):
                continue
            drops: Counter[str] = Counter()
            for receipt in receipts:
                drops.update(receipt.drops)
            halves = self.receipts.get(name.removesuffix("/groups") + "/summaries", []) if name.endswith("/groups") else []
            totals.append(
                StageTotals(
                    name.removesuffix("/groups"),
                    len(receipts),
                    sum(r.rows_in for r in receipts),
                    sum(r.rows_out for r in receipts),
                    dict(drops.most_common()),
                    sum(o.bytes for r in receipts for o in r.outputs.values()),
                    sum(r.seconds for r in [*receipts, *halves]),
                )
            )
        return totals

    def stage(self, name: str) -> StageTotals | None:
        return next((s for s in self.stages if s.name == name or s.name.startswith(f"{name}/")), None)

    @cached_property
    def tables(self) -> list[str]:
        """The aligned tables that every partition of `documents` has, so that they can be scanned together."""
        partitions = self.partitions
        families = ("signals", "duplicates", *self._below("labels"), *self._below("mixture")[:1])
        there = (t for t in families if self.corpus.partitions(t) == partitions and partitions)
        return ["documents", *(t for t in there if self._aligned(t))]

    def _aligned(self, table: str) -> bool:
        """Whether a table can be read beside the documents; what is wrong with it goes to `problems`."""
        try:
            for partition in self.partitions:
                self.corpus.check_alignment(partition, "documents", table)
        except (ValueError, OSError) as error:
            self.problems.append(str(error))
            return False
        return True

    @cached_property
    def partitions(self) -> list[str]:
        return self.corpus.partitions("documents")

    def _below(self, family: str) -> list[str]:
        """`labels/<task>` and `mixture/<name>`, as they are in the corpus."""
        return sorted({"/".join(p.split("/")[:2]) for p in self.corpus.storage.files(family, ".parquet")})

    @cached_property
    def mixture(self) -> str | None:
        """Name of the mixture that the report marks as the selection."""
        return next((t.split("/")[1] for t in self.tables if t.startswith("mixture/")), None)

    @cached_property
    def frame(self) -> pl.LazyFrame:
        """All tables of the documents, with `selected` and `raw_content` among the columns."""
        frame = self.corpus.scan(*_without_clash(self.corpus, self.tables, self.partitions), partitions=self.partitions)
        selected = pl.col("component").is_not_null() if self.mixture else pl.lit(True)
        return frame.with_columns(selected.alias("selected"))

    # --- aggregates

    def languages(self) -> pl.DataFrame:
        """language, documents, selected, characters; most documents first."""
        return self._counted("language")

    def domains(self) -> pl.DataFrame:
        """The same by source domain."""
        return self._counted("source_domain").head(MOST_DOMAINS)

    def buckets(self) -> pl.DataFrame:
        """The same by perplexity bucket."""
        return self._counted("bucket")

    def _counted(self, column: str) -> pl.DataFrame:
        counted = self.frame.group_by(column).agg(
            pl.len().alias("documents"), pl.col("selected").sum(), pl.col("length").sum().alias("characters")
        )
        return counted.sort(["documents", column], descending=[True, False]).collect(engine="streaming")

    def histograms(self) -> list[Histogram]:
        """Length, perplexity, language score and every numeric signal, for all documents and for the selected ones."""
        schema = self.frame.collect_schema()
        signals = [c for c, t in schema.items() if c.startswith("rps_doc_") and t.is_numeric()]
        names = [c for c in ("length", "perplexity", "language_score", *signals) if c in schema]
        ends = self.frame.select(
            *(pl.col(n).cast(pl.Float64).quantile(0.001).alias(f"{n}:low") for n in names),
            *(pl.col(n).cast(pl.Float64).quantile(0.99).alias(f"{n}:high") for n in names),
            *(pl.col(n).null_count().alias(f"{n}:nulls") for n in names),
            pl.len().alias("documents"),
        ).collect(engine="streaming").row(0, named=True)  # fmt: skip
        shown = [n for n in names if ends[f"{n}:low"] is not None and ends[f"{n}:high"] > ends[f"{n}:low"]]
        bins = {n: _binned(n, ends[f"{n}:low"], ends[f"{n}:high"]) for n in shown}
        histograms = []
        for name in shown:
            counted = (
                self.frame.select(bins[name].alias("bin"), "selected").drop_nulls("bin").group_by("bin")
                .agg(pl.len().alias("all"), pl.col("selected").sum()).collect(engine="streaming")
            )  # fmt: skip
            everything, selected = [0] * BINS, [0] * BINS
            for number, count, chosen in counted.iter_rows():
                everything[number], selected[number] = count, chosen
            low, high = ends[f"{name}:low"], ends[f"{name}:high"]
            edges = [low + (high - low) * i / BINS for i in range(BINS + 1)]
            histograms.append(Histogram(name, edges, everything, selected, ends[f"{name}:nulls"]))
        return histograms

    # --- duplicates

    def duplicates(self) -> pl.DataFrame:
        """Per kind: clusters, documents in them, documents not kept, size of the largest."""
        if "duplicates" not in self.tables:
            return pl.DataFrame()
        rows = []
        exact = self.frame.filter(pl.col("exact_of").is_not_null()).group_by("exact_of").agg(pl.len()).collect()
        total = int(exact["len"].sum() or 0)
        largest = int(exact["len"].max() or 0)  # type: ignore[arg-type]
        rows.append({"level": "exact", "clusters": len(exact), "documents": total + len(exact), "not kept": total,
                     "largest": largest + 1 if total else 0})  # fmt: skip
        for level in SIMILARITIES:
            column = pl.col(f"cluster_sim{level}")
            sizes = self.frame.filter(column.is_not_null()).group_by(column).agg(
                pl.len(), (~pl.col(f"keep_sim{level}")).sum().alias("lost")
            ).collect()  # fmt: skip
            rows.append({"level": f"similarity {level}", "clusters": len(sizes), "documents": int(sizes["len"].sum() or 0),
                         "not kept": int(sizes["lost"].sum() or 0), "largest": int(sizes["len"].max() or 0)})  # type: ignore # fmt: skip
        return pl.DataFrame(rows)

    def similar_pair(self) -> tuple[Sample, Sample] | None:
        """Two documents of one cluster whose texts differ, the shortest such pair at the loosest level."""
        if "duplicates" not in self.tables:
            return None
        cluster = f"cluster_sim{min(SIMILARITIES)}"
        members = self.frame.filter(pl.col(cluster).is_not_null()).select("id", cluster, "length").collect()
        if members.is_empty():
            return None
        # Clusters whose lengths differ cannot hold exact copies only.
        spread = members.group_by(cluster).agg(
            pl.col("length").n_unique().alias("lengths"), pl.col("length").min().alias("shortest"), pl.col("id").sort()
        )
        chosen = spread.sort(pl.col("lengths") < 2, "shortest", cluster).row(0, named=True)
        lengths = members.filter(pl.col(cluster) == chosen[cluster]).sort("length", "id")
        first, last = lengths["id"][0], lengths["id"][-1]
        texts = {s.facts["id"]: s for s in self._documents(self.frame.filter(pl.col("id").is_in([first, last])))}
        return texts[first], texts[last]

    # --- documents

    def samples(self, count: int) -> tuple[list[Sample], list[Sample]]:
        """Documents kept, and dropped (each reason in turn), chosen by a hash of the id."""
        kept = self._documents(self._lowest(self.frame.filter("selected"), count))
        if not self.mixture:
            return kept, self._rejects(count)
        dropped = self.frame.filter(pl.col("component").is_null()).with_columns(pl.col("id").hash(seed=1).alias(_RANK))
        ids = dropped.select("id", "reason", _RANK).collect()
        chosen = (
            ids.sort(_RANK).with_columns(pl.int_range(pl.len()).over("reason").alias("turn"))
            .sort("turn", "reason").head(count)["id"].to_list()
        )  # fmt: skip
        return kept, [*self._documents(dropped.filter(pl.col("id").is_in(chosen))), *self._rejects(count // 2)]

    def _lowest(self, frame: pl.LazyFrame, count: int) -> pl.LazyFrame:
        ids = frame.select("id").with_columns(pl.col("id").hash(seed=1).alias(_RANK)).collect().sort(_RANK).head(count)["id"]
        return self.frame.filter(pl.col("id").is_in(ids.to_list()))

    def _documents(self, frame: pl.LazyFrame) -> list[Sample]:
        shown = ("id", "length", "language_score", "perplexity", "bucket", "component", "label")
        rows = frame.collect().sort("id").to_dicts()
        return [
            Sample(
                row["title"] or "", row["url"] or row["id"], row["language"] or "", row["raw_content"],
                row.get("reason"), {k: row[k] for k in shown if row.get(k) is not None},
            )
            for row in rows
        ]  # fmt: skip

    def _rejects(self, count: int) -> list[Sample]:
        """What ingest and mine lost, where the recipe keeps it: a few of each reason that has a text to show."""
        found: list[dict[str, Any]] = []
        for stage in ("ingest", "mine"):
            for path in self.corpus.storage.files(f"rejects/{stage}", ".parquet")[:16]:
                with self.corpus.storage.open(path) as source:
                    rows = pl.from_arrow(pq.read_table(source))
                assert isinstance(rows, pl.DataFrame)
                told = rows.filter(pl.col("excerpt").is_not_null() & (pl.col("excerpt") != ""))
                first = told.sort("record_id").group_by("reason", maintain_order=True).head(2)
                found += [row | {"stage": stage} for row in first.to_dicts()]
        turns: Counter[str] = Counter()
        ranked = []
        for row in found:
            turns[row["reason"]] += 1
            ranked.append((turns[row["reason"]], row["reason"], row))
        ranked.sort(key=lambda r: r[:2])
        return [
            Sample("", row["url"] or row["record_id"] or "", "", row["excerpt"], f"{row['stage']}: {row['reason']}",
                   {"detail": row["detail"]} if row["detail"] else {})
            for _, _, row in ranked[:count]
        ]  # fmt: skip

    # --- labels, mixture, training

    def labels(self) -> list[LabelFacts]:
        """Every labelling task."""
        tasks = [t.split("/")[1] for t in self.tables if t.startswith("labels/")]
        return labels.gather(self.corpus, tasks, self.receipts, self.partitions)

    def rules(self) -> pl.DataFrame:
        """What the rule sets of `annotate` say: by rule the documents that fail it, that have it as their reason, and that fail
        no other; rules that no document fails are left out."""
        told = [r.metrics["rules"] for r in self.receipts.get("annotate", []) if "rules" in r.metrics]
        counts = {kind: sum((Counter(each[kind]) for each in told), Counter()) for kind in ("failed", "first", "only")}
        documents = sum(each["documents"] for each in told)
        failed = [reason for each in told[:1] for reason in each["failed"] if counts["failed"][reason]]
        columns: dict[str, Any] = {
            "rule": failed,
            "documents_failing": [counts["failed"][reason] for reason in failed],
            "share": [counts["failed"][reason] / documents for reason in failed],
            "reason": [counts["first"][reason] for reason in failed],
            "only_this": [counts["only"][reason] for reason in failed],
        }
        return pl.DataFrame(columns)

    def plan(self) -> MixturePlan | None:
        """The mixture's plan."""
        path = next((p for p in self.corpus.storage.files("global/plan", ".json") if "summaries" not in p), None)
        return MixturePlan.from_json(self.corpus.storage.read(path)) if path else None

    def training(self) -> tuple[Receipt, list[dict[str, Any]]] | None:
        """The training run's receipt and its metrics by step."""
        from pathlib import Path

        receipts = self.receipts.get("train")
        if not receipts:
            return None
        metrics = Path(receipts[0].metrics["run"]) / "metrics.jsonl"
        if not metrics.exists():
            return receipts[0], []
        return receipts[0], [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]

    def evaluation(self) -> Mapping[str, Any] | None:
        """Perplexity per component, and samples."""
        receipts = self.receipts.get("evaluate")
        return receipts[0].metrics if receipts else None


def _binned(name: str, low: float, high: float) -> pl.Expr:
    """The bin of a value; values outside fall into the first or last one."""
    share = (pl.col(name).cast(pl.Float64) - low) / (high - low) * BINS
    return share.floor().clip(0, BINS - 1).cast(pl.Int32)


def _position(order: Sequence[str], stage: str) -> int:
    name = stage.split("/")[0]
    return order.index(name) if name in order else len(order)


def _without_clash(corpus: Corpus, tables: Sequence[str], partitions: Sequence[str]) -> list[str]:
    """The tables, less those that repeat a column of an earlier one (a second labelling task has a second `label`)."""
    seen: set[str] = set()
    kept = []
    for table in tables:
        columns = set(corpus.header(table, partitions[0]).schema.names) - {"id"}
        if not columns & seen:
            kept.append(table)
            seen |= columns
    return kept
