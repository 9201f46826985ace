"""Exact and fuzzy duplicates over a whole corpus: the global stage `cluster` finds them, the stage `deduplicate` marks them.

The method is RedPajama-V2's: documents that share a band of their MinHash signatures are linked, a cluster is a connected
component, and its id is the smallest `id_int` in it. Each (band, bytes) is a key; the rows of a key meet in one bucket of a
shuffle, which leaves an edge from the key's smallest document to each of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from pipeline.components import connected_components
from pipeline.exact import text_digests
from pipeline.minhash import band_bytes, signature_matrix
from pipeline.stage import GlobalResult, GlobalStage, Params, PartitionStage, StageResult
from pipeline.tables import DUPLICATES, SIMILARITIES
from pipeline.text import concatenated

if TYPE_CHECKING:
    import polars as pl

SHUFFLED = pa.schema(
    [
        pa.field("bucket", pa.uint32(), nullable=False),
        pa.field("kind", pa.int8(), nullable=False),
        pa.field("key_high", pa.uint64(), nullable=False),
        pa.field("key_low", pa.uint64(), nullable=False),
        pa.field("id_int", pa.uint64(), nullable=False),
        pa.field("partition", pa.uint64(), nullable=False),  # xxh3 of its name
        pa.field("row", pa.int64(), nullable=False),
        pa.field("rank", pa.float64(), nullable=False),  # what the keep rule compares: lower is better
        pa.field("name", pa.string()),
    ]
)
"""What is shuffled. kind 0: a partition (`name`; `row` counts its documents). 1: a document under the digest of its text, with
its id as `name`. 2 and above: a document under a band of SIMILARITIES[kind - 2]."""

STARS = (
    pa.schema([f for f in SHUFFLED if f.name not in ("bucket", "key_high", "key_low")])
    .append(pa.field("anchor_id_int", pa.uint64(), nullable=False))
    .append(pa.field("anchor_partition", pa.uint64(), nullable=False))
    .append(pa.field("anchor_row", pa.int64(), nullable=False))
)
"""What the shuffle leaves: documents that share a key with others, each beside the smallest document of the key."""

CLUSTERED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id_int", pa.uint64(), nullable=False),
        *(f for f in DUPLICATES if f.name != "id"),
    ]
)
"""`global/cluster/<partition>.parquet`: the documents of a partition that have a duplicate of any kind, in row order."""

_PARTITION, _EXACT, _FUZZY = 0, 1, 2
_NODE = ["id_int", "partition", "row"]  # id_int alone collides once a corpus has billions of documents
_ANCHOR = ["anchor_id_int", "anchor_partition", "anchor_row"]
_NAMED_GIANTS = 20


class DeduplicateParams(Params):
    """What counts as a duplicate, and which of the duplicates is kept. Both stages, `cluster` and `deduplicate`, take it."""

    exact: Literal["raw", "normalized", "none"] = Field(
        default="raw",
        description="Exact duplicates have the same text (`raw`), or the same words up to case, ASCII punctuation and "
        "spacing (`normalized`); `none` looks for none.",
    )
    similarities: tuple[Literal["1.0", "0.9", "0.8", "0.7"], ...] = Field(
        default=SIMILARITIES, description="RedPajama-V2's similarity levels at which documents are clustered; [] for none."
    )
    keep: Literal["lowest_id", "longest", "best"] = Field(
        default="lowest_id",
        description="Which of several duplicates is kept: the smallest `id_int` (RedPajama-V2's), the one of most "
        "characters, or the best by `signal`. Ties go to the smallest `id_int`.",
    )
    signal: str | None = Field(default=None, description="The signal that `keep: best` compares; a null is the worst value.")
    prefer: Literal["highest", "lowest"] = Field(default="highest", description="Which value of `signal` is best.")
    buckets: int = Field(
        default=64, ge=1, le=1 << 16, description="Pieces of the shuffle: each must fit in memory. The result is the same."
    )
    giant: int = Field(
        default=1000, ge=1, description="Clusters of more documents than this are named in a warning: seldom are they real."
    )

    @field_validator("similarities", mode="before")
    @classmethod
    def _as_written(cls, levels: Any) -> Any:
        return (
            tuple(str(float(v)) if isinstance(v, int | float) else v for v in levels)
            if isinstance(levels, list | tuple)
            else levels
        )

    @model_validator(mode="after")
    def _rule(self) -> DeduplicateParams:
        if (self.keep == "best") != (self.signal is not None):
            raise ValueError("`keep: best` and `signal: <name>` go together: the signal is what it compares")
        return self


@dataclass
class Cluster(GlobalStage):
    """documents, minhash -> one file of duplicates per partition. All documents of the corpus are compared."""

    params: DeduplicateParams = field(default_factory=DeduplicateParams)

    name = "cluster"
    inputs = ("documents", "minhash")
    shuffle_key = "bucket"

    def input_tables(self) -> tuple[str, ...]:
        fuzzy = ("minhash",) if self.params.similarities else ()
        return ("documents", *fuzzy, *(("signals",) if self.params.keep == "best" else ()))

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        """A row per document and key (SHUFFLED), and one for the partition."""
        documents = tables["documents"]
        for name in self.input_tables()[1:]:
            if not tables[name]["id"].equals(documents["id"].cast(tables[name]["id"].type)):
                raise ValueError(f"{partition}: {name} and documents hold different documents: build {name} again")
        ranks, place = self._ranks(documents, tables), xxhash.xxh3_64_intdigest(partition.encode())
        id_ints = documents["id_int"].to_numpy().astype(np.uint64)

        def rows(kind: int, keys: NDArray[np.uint64], of: NDArray[np.int64], names: pa.Array | None = None) -> pa.Table:
            """One row per key; `of`: the document of each."""
            return self._rows(kind, keys, id_ints[of], place, of, ranks[of], names)

        no_key, zero = np.zeros((1, 2), np.uint64), np.zeros(1, np.uint64)
        count = np.array([documents.num_rows])
        parts = [self._rows(_PARTITION, no_key, zero, place, count, np.zeros(1), pa.array([partition]))]
        if self.params.exact != "none":
            ids = concatenated(documents["id"].cast(pa.string()))
            parts.append(rows(_EXACT, text_digests(documents, self.params.exact), np.arange(documents.num_rows), ids))
        if self.params.similarities:
            signatures, signed = signature_matrix(tables["minhash"]["signature"])
            for level in self.params.similarities:
                bands = band_bytes(signatures, level)
                kind = _FUZZY + SIMILARITIES.index(level)
                parts.append(rows(kind, _band_keys(bands, kind), np.repeat(signed, bands.shape[1])))
        return pa.concat_tables(parts).combine_chunks()

    def reduce(self, rows: pa.Table) -> pa.Table:
        """Of each key with several documents: each of them (SHUFFLED without key) beside the smallest, its `anchor`."""
        import polars as pl

        frame, key = _frame(rows), ["kind", "key_high", "key_low"]
        linked = frame.filter((pl.col("kind") != _PARTITION) & (pl.len().over(key) > 1)).sort(*key, *_NODE)
        anchors = [pl.col(c).first().over(key).alias(f"anchor_{c}") for c in _NODE]
        itself = [pl.col(c).alias(f"anchor_{c}") for c in _NODE]
        stars = pl.concat([frame.filter(pl.col("kind") == _PARTITION).with_columns(itself), linked.with_columns(anchors)])
        # Documents that share many bands share them with the same anchor, as a rule: those edges are one.
        return _table(stars.select(STARS.names).unique().sort("kind", *_NODE, *_ANCHOR), STARS)

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        """One table CLUSTERED per partition, with no row where nothing is duplicated."""
        import polars as pl

        stars = _frame(summary)
        names = stars.filter(pl.col("kind") == _PARTITION).select("partition", "name", documents="row").sort("name")
        assert names["partition"].is_unique().all(), "64-bit digests of partition names collide"
        places = names.select("partition", place=pl.int_range(pl.len(), dtype=pl.Int64))
        found: dict[int, pl.DataFrame] = {}
        for kind in stars["kind"].unique().sort().to_list():
            if kind != _PARTITION:
                found[kind] = _components(stars.filter(pl.col("kind") == kind)).join(places, on="partition")
        kept = {kind: _kept(members) for kind, members in found.items()}
        members = _side_by_side(kept)
        of_place = members.partition_by("place", as_dict=True)
        files: dict[str, pa.Table | bytes] = {}
        for place, name in enumerate(names["name"].to_list()):
            files[f"{name}.parquet"] = _table(of_place.get((place,), members.clear()).sort("row"), CLUSTERED)
        return GlobalResult(files, self._metrics(names, kept))

    def _ranks(self, documents: pa.Table, tables: Mapping[str, pa.Table]) -> NDArray[np.float64]:
        """What the keep rule compares, float64 (documents,); the lowest is kept."""
        if self.params.keep == "longest":
            lengths = pc.call_function("utf8_length", [concatenated(documents["raw_content"])])
            return -lengths.to_numpy(zero_copy_only=False).astype(np.float64)
        if self.params.keep == "best":
            signals, name = tables["signals"], self.params.signal
            if name not in signals.column_names:
                known = ", ".join(n for n in signals.column_names if n != "id")
                raise ValueError(f"`keep: best` compares the signal {name}, but the table signals has {known}")
            if pa.types.is_nested(kind := signals.schema.field(name).type):
                raise ValueError(f"`keep: best` compares a number per document, but the signal {name} holds {kind}")
            values = concatenated(signals[name].cast(pa.float64())).to_numpy(zero_copy_only=False)
            values = -values if self.params.prefer == "highest" else values
            return np.where(np.isnan(values), np.inf, values)
        return np.zeros(documents.num_rows)

    def _rows(
        self, kind: int, keys: NDArray[np.uint64], id_ints: NDArray[np.uint64], place: int, rows: NDArray[np.int64],
        ranks: NDArray[np.float64], names: pa.Array | None,
    ) -> pa.Table:  # fmt: skip
        columns = {
            "bucket": (keys[:, 0] % np.uint64(self.params.buckets)).astype(np.uint32),
            "kind": np.full(len(rows), kind, np.int8),
            "key_high": keys[:, 0],
            "key_low": keys[:, 1],
            "id_int": id_ints,
            "partition": np.full(len(rows), place, np.uint64),
            "row": rows,
            "rank": ranks,
            "name": pa.nulls(len(rows), pa.string()) if names is None else names,
        }
        return pa.table(columns, schema=SHUFFLED)

    def _metrics(self, names: pl.DataFrame, kept: Mapping[int, pl.DataFrame]) -> dict[str, Any]:
        """Per kind: clusters, the documents in them, those not kept, the largest; and warnings about giant clusters."""
        import polars as pl

        metrics: dict[str, Any] = {"documents": int(names["documents"].sum()), "warnings": []}
        asked = [_EXACT] if self.params.exact != "none" else []
        asked += [_FUZZY + SIMILARITIES.index(level) for level in self.params.similarities]
        for kind in asked:
            members = kept.get(kind)
            keepers = members.filter("keep").sort("size", "cluster", descending=[True, False]) if members is not None else None
            if members is None or keepers is None:
                metrics[_label(kind)] = {"clusters": 0, "documents": 0, "removed": 0, "largest": 0}
                continue
            metrics[_label(kind)] = {
                "clusters": keepers.height,
                "documents": members.height,
                "removed": members.height - keepers.height,
                "largest": keepers["size"][0],
            }
            giants = keepers.filter(pl.col("size") > self.params.giant).head(_NAMED_GIANTS)
            for size, place, row in giants.select("size", "place", "row").iter_rows():
                metrics["warnings"].append(
                    f"{size} documents are one {_label(kind)} cluster (kept: row {row} of {names['name'][place]}): "
                    "look whether they are the same before training without the others"
                )
        return metrics


@dataclass
class Deduplicate(PartitionStage):
    """documents -> duplicates: what `cluster` found, beside every document. Nothing is dropped here; a mixture selects."""

    params: DeduplicateParams = field(default_factory=DeduplicateParams)

    name = "deduplicate"
    inputs = ("documents",)
    outputs = ("duplicates",)

    def global_tables(self, partition: str) -> Mapping[str, str]:
        return {"clustered": f"{Cluster.name}/{partition}.parquet"}

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        documents, clustered = tables["documents"], tables["clustered"]
        rows = clustered["row"].to_numpy()
        if len(rows) and (rows[-1] >= documents.num_rows or not documents["id_int"].take(rows).equals(clustered["id_int"])):
            raise ValueError(f"{partition}: cluster has seen other documents: build cluster again")
        place = np.full(documents.num_rows, -1, np.int64)
        place[rows] = np.arange(len(rows))
        index = pa.array(place, mask=place < 0)
        columns: dict[str, pa.Array | pa.ChunkedArray] = {"id": documents["id"].cast(pa.string())}
        for field_ in DUPLICATES:
            if field_.name != "id":
                values = concatenated(clustered[field_.name]).take(index)
                columns[field_.name] = values if field_.nullable else pc.fill_null(values, True)
        duplicates = pa.table(columns, schema=DUPLICATES)
        removed = {"exact": documents.num_rows - duplicates["exact_of"].null_count}
        for level in SIMILARITIES:
            removed[f"sim{level}"] = int(np.count_nonzero(~duplicates[f"keep_sim{level}"].to_numpy()))
        return StageResult(documents.num_rows, {"duplicates": duplicates}, metrics={"duplicates": removed})


def _band_keys(bands: NDArray[np.void], kind: int) -> NDArray[np.uint64]:
    """Bands (documents, bands) as 128-bit keys, uint64 (documents * bands, 2); bands of different places never meet."""
    count, size, content = bands.shape[1], bands.dtype.itemsize, memoryview(bands.tobytes())
    seeds = [kind << 16 | band for band in range(count)] * len(bands)
    starts = range(0, len(content), size)
    keys = [xxhash.xxh3_128_digest(content[i : i + size], seed) for i, seed in zip(starts, seeds, strict=True)]
    return np.frombuffer(b"".join(keys), ">u8").astype(np.uint64).reshape(-1, 2)


def _components(stars: pl.DataFrame) -> pl.DataFrame:
    """The documents of stars of one kind, once each, with the number of the component that each is in."""
    import polars as pl

    nodes = stars.select(*_NODE, "rank", "name").unique(subset=_NODE).sort(_NODE).with_row_index("node")
    anchors = nodes.select(pl.col(_NODE).name.prefix("anchor_"), anchor="node")
    edges = stars.join(nodes.select(*_NODE, "node"), on=_NODE).join(anchors, on=_ANCHOR)
    components = connected_components(nodes.height, edges["anchor"].to_numpy(), edges["node"].to_numpy())
    return nodes.drop("node").with_columns(component=pl.Series(components))


def _kept(members: pl.DataFrame) -> pl.DataFrame:
    """Members of components with `cluster` (the smallest id_int), `size`, `keep`, and the name of the one kept as `of`."""
    import polars as pl

    of = "component"
    return members.sort(of, "rank", "id_int", "place", "row").with_columns(
        cluster=pl.col("id_int").min().over(of),
        size=pl.len().over(of),
        keep=pl.int_range(pl.len()).over(of) == 0,
        of=pl.col("name").first().over(of),
    )


def _side_by_side(kept: Mapping[int, pl.DataFrame]) -> pl.DataFrame:
    """One row per document that any kind has clustered: `place`, and the columns of CLUSTERED."""
    import polars as pl

    types = {"place": pl.Int64(), "row": pl.Int64(), "id_int": pl.UInt64()}
    keys = list(types)
    side = pl.concat([pl.DataFrame(schema=types), *(members.select(keys) for members in kept.values())]).unique()
    missing = {"exact_of": pl.lit(None, pl.String)}
    for position, level in enumerate(SIMILARITIES):
        cluster, keep = f"cluster_sim{level}", f"keep_sim{level}"
        missing |= {cluster: pl.lit(None, pl.UInt64), keep: pl.lit(True)}
        if (members := kept.get(_FUZZY + position)) is not None:
            del missing[cluster], missing[keep]
            told = members.select(*keys, pl.col("cluster").alias(cluster), pl.col("keep").alias(keep))
            side = side.join(told, on=keys, how="left").with_columns(pl.col(keep).fill_null(True))
    if (members := kept.get(_EXACT)) is not None:
        del missing["exact_of"]
        side = side.join(members.select(*keys, exact_of=pl.when(~pl.col("keep")).then("of")), on=keys, how="left")
    return side.with_columns(**missing)


def _label(kind: int) -> str:
    return "exact" if kind == _EXACT else f"sim{SIMILARITIES[kind - _FUZZY]}"


def _frame(table: pa.Table) -> pl.DataFrame:
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _table(frame: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    import polars as pl

    return frame.select(schema.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
