"""From a mixture to token shards: train a tokenizer (or take one), encode what is selected, list the shards in manifests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import Field, model_validator

from pipeline import tables as schemas
from pipeline.shards import TOKENS, Manifest, Shard, encode_shard
from pipeline.stage import GlobalResult, GlobalStage, Params, PartitionStage, Stage, StageResult
from pipeline.tokenizer import BYTES, END_OF_TEXT, DocumentTokenizer, train_bpe

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_SAMPLE = pa.schema([("id_int", pa.uint64()), ("id", pa.string()), ("characters", pa.int64()), ("text", pa.large_string())])
_SAMPLE_ORDER = [("id_int", "ascending"), ("id", "ascending")]  # id_int is a hash: its order is a random one


class TokenizerTraining(Params):
    """How a byte-level BPE tokenizer is trained on the documents of a mixture's training split."""

    vocab_size: int = Field(default=32_768, gt=BYTES, description="Tokens, with the 256 bytes and the end-of-text token.")
    sample_characters: int = Field(
        default=200_000_000, gt=0, description="Characters of documents to learn from, drawn by id hash."
    )
    partition_characters: int = Field(default=4_000_000, gt=0, description="At most this many of them from one partition.")
    document_characters: int = Field(default=100_000, gt=0, description="At most this many from the start of one document.")


class TokenizeParams(Params):
    """Token shards of a mixture, with a tokenizer that is given (`tokenizer`) or trained (`train`)."""

    mixture: str = Field(default="main", pattern=_FILE_NAME.pattern + "$", description="Name of the mixture to tokenize.")
    tokenizer: str | None = Field(default=None, description="Path or URL of a tokenizer.json; leave it out to train one.")
    train: TokenizerTraining | None = Field(
        default=None, description="How to train a tokenizer; not together with `tokenizer`."
    )
    eos: str | None = Field(default=None, description="The end-of-text token, if the tokenizer has it under an uncommon name.")

    @model_validator(mode="after")
    def _one_tokenizer(self) -> TokenizeParams:
        if self.tokenizer is not None and self.train is not None:
            raise ValueError("tokenize: give either tokenizer (a path) or train, not both")
        return self

    @property
    def training(self) -> TokenizerTraining | None:
        """The training, by default if no tokenizer is given; None if one is."""
        return None if self.tokenizer is not None else self.train or TokenizerTraining()

    @property
    def location(self) -> str:
        """Where tokenizer.json is: as given, or where its training leaves it in the corpus."""
        return self.tokenizer or f"global/train-tokenizer/{self.mixture}/tokenizer.json"


def stages(params: TokenizeParams) -> list[Stage]:
    """The stages of a recipe's `tokenize` section, in order."""
    train: list[Stage] = [TrainTokenizer(params)] if params.training else []
    return [*train, Tokenize(params), Manifests(params)]


@dataclass
class TrainTokenizer(GlobalStage):
    """Trains a tokenizer on a sample of the training split: the documents of smallest id hash.

    A sample is cut where its characters reach the limit, in the order of the hashes; cutting before or after a merge
    gives the same documents, so merging is associative.
    """

    params: TokenizeParams

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"train-tokenizer/{self.params.mixture}"

    def input_tables(self) -> tuple[str, ...]:
        return "documents", f"mixture/{self.params.mixture}"

    def _training(self) -> TokenizerTraining:
        assert self.params.training is not None, "a tokenizer is given, so none is trained"
        return self.params.training

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        documents, mixture = _aligned(partition, tables, *self.input_tables())
        rows = _numbered(documents.select(["id_int", "id"]))
        rows = rows.append_column("component", mixture["component"]).append_column("split", mixture["split"])
        rows = rows.filter(pc.field("component").is_valid() & (pc.field("split") == "train")).sort_by(_SAMPLE_ORDER)
        texts = documents["raw_content"].combine_chunks()
        limit, kept, seen = self._training(), [], 0
        for row in rows["row"].to_pylist():
            if seen >= min(limit.partition_characters, limit.sample_characters):
                break
            kept.append(texts[row].as_py()[: limit.document_characters])
            seen += len(kept[-1])
        first = rows.select(["id_int", "id"]).slice(0, len(kept))
        lengths = pa.array([len(text) for text in kept], pa.int64())
        return pa.table([*first.columns, lengths, pa.array(kept, pa.large_string())], schema=_SAMPLE)

    def merge(self, summaries: Sequence[pa.Table]) -> pa.Table:
        rows = pa.concat_tables(summaries).sort_by(_SAMPLE_ORDER)
        lengths = rows["characters"].to_numpy()
        before = np.cumsum(lengths) - lengths
        return rows.slice(0, int(np.count_nonzero(before < self._training().sample_characters)))

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        if not summary.num_rows:
            raise ValueError(f"mixture {self.params.mixture} selects no document for training: nothing to train a tokenizer on")
        sample = self.merge([summary])
        eos = self.params.eos or END_OF_TEXT
        content = train_bpe(sample["text"].to_pylist(), self._training().vocab_size, eos)
        characters = int(sample["characters"].to_numpy().sum())
        metrics = {"sample_documents": sample.num_rows, "sample_characters": characters}
        return GlobalResult({"tokenizer.json": content}, metrics)


@dataclass
class Tokenize(PartitionStage):
    """Encodes the selected documents of a partition: one shard per component and split, in document order."""

    params: TokenizeParams

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"tokenize/{self.params.mixture}"

    def __post_init__(self) -> None:
        self._tokenizer: DocumentTokenizer | None = None

    def files(self) -> Mapping[str, str]:
        return {"tokenizer": self.params.location}

    def input_tables(self) -> tuple[str, ...]:
        return "documents", f"mixture/{self.params.mixture}"

    def output_tables(self) -> tuple[str, ...]:
        return f"token_counts/{self.params.mixture}", f"token_shards/{self.params.mixture}"

    def setup(self, files: Mapping[str, Path]) -> None:
        self._tokenizer = DocumentTokenizer(files["tokenizer"], self.params.eos)

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        assert self._tokenizer is not None, "setup comes before run"
        documents, mixture = _aligned(partition, tables, *self.input_tables())
        selected = _numbered(mixture.select(["id", "component", "split"])).filter(pc.field("component").is_valid())
        texts, counts = documents["raw_content"].combine_chunks(), np.zeros(len(documents), np.int64)
        files: dict[str, bytes] = {}
        shards: list[dict[str, object]] = []
        metrics: dict[str, int] = {}
        for component, split in sorted(set(zip(*(selected[c].to_pylist() for c in ("component", "split")), strict=True))):
            chosen = selected.filter((pc.field("component") == component) & (pc.field("split") == split))
            rows = chosen["row"].to_numpy()
            tokens, lengths = self._tokenizer.encode(texts[int(row)].as_py() for row in rows)
            counts[rows] = lengths
            stem = f"{shard_folder(self.params.mixture, component, split)}/{partition.replace('/', '__')}"
            content = encode_shard(tokens, np.cumsum(lengths), chosen["id"].to_pylist())
            files |= {stem + suffix: data for suffix, data in content.items()}
            digest = xxhash.xxh3_128(content[TOKENS]).hexdigest()
            shards.append({
                "component": component, "split": split, "path": stem + TOKENS, "documents": len(lengths),
                "tokens": len(tokens), "xxh3": digest, "dtype": self._tokenizer.dtype.name, "eos": self._tokenizer.eos,
                "vocabulary": self._tokenizer.vocabulary, "tokenizer_sha256": self._tokenizer.sha256,
            })  # fmt: skip
            metrics[f"tokens/{component}/{split}"] = len(tokens)
        rows = selected["row"].to_numpy()
        counted = selected.drop_columns("row").append_column("tokens", pa.array(counts[rows]))
        outputs: dict[str | tuple[str, str], pa.Table] = {
            self.output_tables()[0]: schemas.conform(counted, schemas.TOKEN_COUNTS, f"token counts of {partition}"),
            self.output_tables()[1]: pa.Table.from_pylist(shards, schemas.TOKEN_SHARDS),
        }
        drops = {"not_selected": len(documents) - len(selected)}
        return StageResult(len(documents), outputs, drops, files=files, metrics=metrics)


@dataclass
class Manifests(GlobalStage):
    """Lists the shards of each component and split, which is what a trainer opens."""

    params: TokenizeParams

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"manifests/{self.params.mixture}"

    def files(self) -> Mapping[str, str]:
        return {"tokenizer": self.params.location}

    def input_tables(self) -> tuple[str, ...]:
        return (f"token_shards/{self.params.mixture}",)

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        return tables[self.input_tables()[0]]

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        rows = summary.sort_by([("component", "ascending"), ("split", "ascending"), ("path", "ascending")]).to_pylist()
        if not rows:
            raise ValueError(f"mixture {self.params.mixture} selects no document: there are no token shards")
        files: dict[str, pa.Table | bytes] = {}
        if self.params.tokenizer is not None:  # the shards travel with their tokenizer
            files["tokenizer.json"] = _read(self.params.tokenizer)
        metrics: dict[str, int] = {}
        for (component, split), members in _grouped(rows):
            manifest = self._manifest(component, split, members)
            files[manifest_path(self.params.mixture, component, split).removeprefix(f"global/{self.name}/")] = (
                manifest.to_json()
            )
            metrics[f"tokens/{component}/{split}"] = manifest.tokens
        return GlobalResult(files, metrics)

    def _manifest(self, component: str, split: str, rows: Sequence[Mapping[str, object]]) -> Manifest:
        shared = ("dtype", "vocabulary", "eos", "tokenizer_sha256")
        facts = {tuple(row[name] for name in shared) for row in rows}
        assert len(facts) == 1, f"shards of one build with several tokenizers: {facts}"
        up = "../" * manifest_path(self.params.mixture, component, split).count("/")
        tokenizer = up + self.params.location if self.params.training else "../../tokenizer.json"
        shards = tuple(
            Shard(up + str(r["path"]), int(str(r["tokens"])), int(str(r["documents"])), str(r["xxh3"])) for r in rows
        )
        told = dict(zip(shared, facts.pop(), strict=True))
        return Manifest(component=component, split=split, tokenizer=tokenizer, shards=shards, **told)  # type: ignore[arg-type]


def shard_folder(mixture: str, component: str, split: str) -> str:
    """Where the shards of a component and split are, below the corpus. ValueError if a name is no file name."""
    for name in (component, split):
        if not _FILE_NAME.fullmatch(name):
            raise ValueError(f"component or split {name!r} names a folder of token shards: use letters, digits, '.', '_', '-'")
    return f"tokens/{mixture}/{component}/{split}"


def manifest_path(mixture: str, component: str, split: str) -> str:
    """Where the manifest of a component and split is, below the corpus."""
    return f"global/manifests/{mixture}/{component}/{split}/manifest.json"


def _numbered(table: pa.Table) -> pa.Table:
    return table.append_column("row", pa.array(np.arange(len(table))))


def _aligned(partition: str, tables: Mapping[str, pa.Table], *names: str) -> list[pa.Table]:
    found = [tables[name] for name in names]
    if any(not table["id"].equals(found[0]["id"]) for table in found[1:]):
        raise ValueError(f"{' and '.join(names)} hold different documents in {partition}: build {names[-1]} again")
    return found


def _grouped(rows: Sequence[Mapping[str, object]]) -> Iterator[tuple[tuple[str, str], list[Mapping[str, object]]]]:
    groups: dict[tuple[str, str], list[Mapping[str, object]]] = {}
    for row in rows:
        groups.setdefault((str(row["component"]), str(row["split"])), []).append(row)
    yield from groups.items()


def _read(location: str) -> bytes:
    from pipeline.storage import Storage

    folder, _, name = location.rpartition("/")
    return Storage(folder).read(name) if "://" in location else Path(location).read_bytes()
