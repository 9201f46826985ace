"""CCNet's mining of a shard: repeated paragraphs go, then language, perplexity and bucket decide a document's partition.

Steps and their order: CCNet (Wenzek et al. 2019, arXiv 1911.00359) and its code, `mine.py`.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipeline import tables
from pipeline.language import LanguageDetector, LanguageParams, load_detector
from pipeline.paragraphs import Lines, ParagraphsParams, text_batches
from pipeline.perplexity import PerplexityModels, PerplexityParams
from pipeline.stage import Params, PartitionStage, StageResult

_REPEATED = "duplicate_paragraphs"
_CARRIED = ("url", "date_download", "digest", "source_domain", "title", "cc_segment", "original_length", "record_id")


class MineParams(Params):
    """From raw documents to documents by language and bucket."""

    paragraphs: ParagraphsParams | None = Field(
        default=ParagraphsParams(),
        description="Paragraph deduplication over groups of shards; null leaves every line in its place.",
    )
    min_length: int = Field(
        default=0, ge=0, description="Least characters left after paragraph deduplication (CCNet has no such limit)."
    )
    language: LanguageParams = Field(default=LanguageParams(), description="How languages are identified.")
    keep_languages: tuple[str, ...] | None = Field(
        default=None, description="Languages to keep, such as [en, de]; null keeps all (CCNet's lang_whitelist)."
    )
    perplexity: PerplexityParams | None = Field(
        default=None, description="Language models for perplexity and buckets; null puts every document into the bucket `all`."
    )
    keep_buckets: tuple[str, ...] | None = Field(
        default=None, description="Of head, middle, tail and all, the buckets to keep; null keeps all (CCNet's keep_bucket)."
    )


@dataclass
class _Sieve:
    """Documents of a batch that are still in, and why the others are not. Row numbers are those of the batch."""

    rows: np.ndarray
    columns: dict[str, pa.Array]
    dropped: dict[int, tuple[str, str | None]] = field(default_factory=dict)

    def keep(self, mask: np.ndarray, reason: str, detail: Sequence[str | None] | None = None) -> None:
        """Drop the documents where the mask is false. detail: per document, for a person."""
        if mask.all():
            return
        for place in np.flatnonzero(~mask).tolist():
            self.dropped[int(self.rows[place])] = (reason, detail[place] if detail else None)
        self.rows = self.rows[mask]
        self.columns = {name: column.filter(pa.array(mask)) for name, column in self.columns.items()}


@dataclass
class Mine(PartitionStage):
    """Raw documents of a shard to documents in partitions `<snapshot>/<shard>/<language>_<bucket>`.

    In CCNet's order: paragraphs that the group repeats are removed, then repeats inside a document; language; languages to
    keep; perplexity; bucket; buckets to keep. Documents keep the order of the raw rows. `line_ids` are the numbers of the
    lines kept, `length` counts characters. Drops: `empty_text`, `all_paragraphs_duplicate`, `shorter_than_min_length`,
    `language_unknown`, `language_score_below_threshold`, `language_not_kept`, `bucket_not_kept`.
    """

    params: MineParams

    name = "mine"
    version = 1
    inputs = ("raw",)
    outputs = ("documents",)

    def files(self) -> Mapping[str, str]:
        scored = self.params.perplexity
        return {**self.params.language.files(), **(PerplexityModels.files(scored) if scored is not None else {})}

    def global_tables(self, partition: str) -> Mapping[str, str]:
        if self.params.paragraphs is None:
            return {}
        return {_REPEATED: f"paragraphs/{self.params.paragraphs.group(partition)}.parquet"}

    def setup(self, files: Mapping[str, Path]) -> None:
        self._detector: LanguageDetector = load_detector(self.params.language, files)
        scored = self.params.perplexity
        self._models = PerplexityModels.load(scored, files) if scored is not None else None

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        raw = tables["raw"]
        repeated = tables[_REPEATED]["hash"].to_numpy() if self.params.paragraphs is not None else None
        counts: Counter[str] = Counter()
        languages: Counter[str] = Counter()
        mined: list[pa.Table] = []
        dropped: dict[int, tuple[str, str | None]] = {}
        for start, texts in text_batches(raw["raw_content"]):
            rows = raw.slice(start, len(texts))
            sieve = self._remove_paragraphs(texts, repeated, counts)
            self._identify(sieve, languages)
            self._score(sieve)
            dropped |= {start + row: why for row, why in sieve.dropped.items()}
            carried = rows.select(_CARRIED).take(sieve.rows)
            mined.append(pa.table({name: carried[name] for name in _CARRIED} | sieve.columns))
        counts["characters"] = pc.sum(pc.utf8_length(raw["raw_content"])).as_py() or 0
        counts["characters_kept"] = sum(pc.sum(table["length"]).as_py() or 0 for table in mined)
        return StageResult(
            rows_in=raw.num_rows,
            tables={("documents", name): table for name, table in _split(partition, mined)},
            drops=dict(sorted(Counter(reason for reason, _ in dropped.values()).items())),
            rejects=_rejects(raw, dropped),
            metrics=dict(sorted(counts.items())) | {"languages": dict(sorted(languages.items()))},
        )

    def _remove_paragraphs(self, texts: pa.Array, repeated: np.ndarray | None, counts: Counter[str]) -> _Sieve:
        """The batch with the columns that hold text and lines. Counts lines and lines kept."""
        lines = Lines.of(texts)
        kept = np.ones(len(lines.hashes), bool) if repeated is None else lines.kept(repeated)
        bounds = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])[lines.offsets].astype(np.int32)
        numbers = (np.arange(len(kept)) - np.repeat(lines.offsets[:-1], lines.counts)).astype(np.int32)
        remaining = pa.ListArray.from_arrays(pa.array(bounds), lines.values.filter(pa.array(kept)))
        text = pc.binary_join(remaining, pa.scalar("\n", pa.large_string()))
        counts.update(lines=len(kept), lines_kept=int(kept.sum()))
        sieve = _Sieve(
            np.arange(len(texts)),
            {
                "raw_content": text,
                "length": pc.utf8_length(text).cast(pa.int64()),
                "nlines": pa.array(np.diff(bounds).astype(np.int64)),
                "original_nlines": pa.array(lines.counts),
                "line_ids": pa.ListArray.from_arrays(pa.array(bounds), pa.array(numbers[kept])),
            },
        )
        sieve.keep(pc.greater(sieve.columns["original_nlines"], 0).to_numpy(zero_copy_only=False), "empty_text")
        sieve.keep(pc.greater(sieve.columns["nlines"], 0).to_numpy(zero_copy_only=False), "all_paragraphs_duplicate")
        lengths = sieve.columns["length"].to_numpy()
        sieve.keep(lengths > 0, "empty_text")  # one blank line is a paragraph, but it is nothing to identify
        lengths = sieve.columns["length"].to_numpy()
        sieve.keep(lengths >= self.params.min_length, "shorter_than_min_length", [f"{n} characters left" for n in lengths])
        return sieve

    def _identify(self, sieve: _Sieve, languages: Counter[str]) -> None:
        """Language and score; drops documents without, and those of languages not kept. Counts documents by language."""
        codes, scores = self._detector.detect(sieve.columns["raw_content"].to_pylist())
        sieve.columns |= {"language": pa.array(codes, pa.string()), "language_score": pa.array(scores)}
        sieve.keep(np.array([code is not None for code in codes], bool), "language_unknown")
        scores = sieve.columns["language_score"].to_numpy()
        told = [f"{code} {score:.2f}" for code, score in zip(sieve.columns["language"].to_pylist(), scores, strict=True)]
        sieve.keep(scores >= self.params.language.threshold, "language_score_below_threshold", told)
        found = sieve.columns["language"].to_pylist()
        languages.update(found)
        if self.params.keep_languages is not None:
            wanted = set(self.params.keep_languages)
            sieve.keep(np.array([language in wanted for language in found], bool), "language_not_kept", found)

    def _score(self, sieve: _Sieve) -> None:
        """Perplexity and bucket; drops buckets not kept."""
        languages = sieve.columns["language"].to_pylist()
        perplexities: list[float | None] = [None] * len(languages)
        buckets = ["all"] * len(languages)
        if self._models is not None:
            texts = sieve.columns["raw_content"].to_pylist()
            for language in sorted(set(languages)):
                rows = [row for row, other in enumerate(languages) if other == language]
                for row, perplexity in zip(rows, self._models.score([texts[r] for r in rows], language), strict=True):
                    perplexities[row] = perplexity
                    buckets[row] = self._models.bucket(perplexity, language)
        sieve.columns |= {"perplexity": pa.array(perplexities, pa.float64()), "bucket": pa.array(buckets, pa.string())}
        if self.params.keep_buckets is not None:
            wanted = set(self.params.keep_buckets)
            sieve.keep(np.array([bucket in wanted for bucket in buckets], bool), "bucket_not_kept", buckets)


def _split(partition: str, mined: Sequence[pa.Table]) -> Iterator[tuple[str, pa.Table]]:
    """Per language and bucket, the partition's name and its documents, identified."""
    if not mined:
        return
    documents = pa.concat_tables(mined)
    names = pc.binary_join_element_wise(documents["language"], documents["bucket"], "_")
    for name in sorted(pc.unique(names).to_pylist()):
        target = f"{partition}/{name}"
        chosen = documents.filter(pc.equal(names, name))
        ids, numbers = tables.identify(target, chosen.num_rows)
        chosen = chosen.append_column("id", ids).append_column("id_int", numbers)
        yield target, tables.conform(chosen, tables.DOCUMENTS, f"documents {target}")


def _rejects(raw: pa.Table, dropped: Mapping[int, tuple[str, str | None]]) -> pa.Table:
    rows = sorted(dropped)
    excerpts = pc.utf8_slice_codeunits(raw["raw_content"], 0, tables.EXCERPT_LENGTH).cast(pa.string())
    lost = pa.table({"record_id": raw["record_id"], "url": raw["url"], "excerpt": excerpts}).take(pa.array(rows, pa.int64()))
    return pa.table(
        {
            "record_id": lost["record_id"],
            "url": lost["url"],
            "reason": pa.array([dropped[row][0] for row in rows], pa.string()),
            "detail": pa.array([dropped[row][1] for row in rows], pa.string()),
            "excerpt": lost["excerpt"],
        },
        schema=tables.REJECTS,
    )
