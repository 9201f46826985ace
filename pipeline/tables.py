"""Every Arrow schema of a corpus, and the identity of a document. One place, so that writers and readers cannot disagree."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import xxhash

SCHEMA_VERSION = 1
SIMILARITIES = ("1.0", "0.9", "0.8", "0.7")
"""RedPajama-V2's fuzzy-duplicate levels, as they are written in column names."""
PERMUTATIONS = 128
LINE_SPANS = ("line_start", "line_end")
"""Columns of `signals` with the span of each line, in characters of `raw_content`; the end includes the newline."""

RAW = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),  # "<file>/<number of the document record in it>"
        pa.field("url", pa.string()),
        pa.field("date_download", pa.string()),
        pa.field("digest", pa.string()),  # of the source record's block, as CCNet takes it from the WET header
        pa.field("source_domain", pa.string()),
        pa.field("title", pa.string()),
        pa.field("raw_content", pa.large_string(), nullable=False),
        pa.field("cc_segment", pa.string()),  # the file that the record came from
        pa.field("original_length", pa.int64()),  # bytes of the source record's block
    ]
)
"""What `ingest` writes: one row per document, one table per shard, before languages are known."""

DOCUMENTS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("id_int", pa.uint64(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("date_download", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("length", pa.int64()),  # characters
        pa.field("nlines", pa.int64()),
        pa.field("source_domain", pa.string()),
        pa.field("title", pa.string()),
        pa.field("raw_content", pa.large_string(), nullable=False),
        pa.field("cc_segment", pa.string()),
        pa.field("original_nlines", pa.int64()),
        pa.field("original_length", pa.int64()),
        pa.field("line_ids", pa.list_(pa.int32())),
        pa.field("language", pa.string()),
        pa.field("language_score", pa.float64()),
        pa.field("perplexity", pa.float64()),
        pa.field("bucket", pa.string()),
        pa.field("record_id", pa.string()),
    ]
)
"""CCNet's fields, in CCNet's order, between the identity of a document and the record that it came from."""

MINHASH = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("signature", pa.list_(pa.uint32(), PERMUTATIONS)),  # null below the shingle length
    ]
)

DUPLICATES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("exact_of", pa.string()),  # id of the document kept instead; null if this one is kept
        *(pa.field(f"cluster_sim{level}", pa.uint64()) for level in SIMILARITIES),  # smallest id_int; null outside
        *(pa.field(f"keep_sim{level}", pa.bool_(), nullable=False) for level in SIMILARITIES),
    ]
)
"""Clusters per level, and which member the recipe's keep rule picks (true for every document outside a cluster)."""

MIXTURE = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("component", pa.string()),  # null: not selected
        pa.field("split", pa.string()),  # "train" or "heldout"
        pa.field("repeats", pa.float64(), nullable=False),  # epochs planned over this document; 0 if not selected
        pa.field("reason", pa.string()),  # why a document was not selected
    ]
)

TOKEN_COUNTS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("component", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),  # with the end-of-text token
    ]
)
"""What `tokenize` writes per selected document, in document order: not aligned, since the others have no row."""

TOKEN_SHARDS = pa.schema(
    [
        pa.field("component", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),  # of the .bin, below the corpus
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("xxh3", pa.string(), nullable=False),  # xxh3-128 of the .bin
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("vocabulary", pa.int64(), nullable=False),
        pa.field("eos", pa.int64(), nullable=False),
        pa.field("tokenizer_sha256", pa.string(), nullable=False),
    ]
)

REJECTS = pa.schema(
    [
        pa.field("record_id", pa.string()),
        pa.field("url", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
        pa.field("excerpt", pa.string()),  # the first EXCERPT_LENGTH characters of the text, if there was one
    ]
)
EXCERPT_LENGTH = 2000


def signals_schema(types: Mapping[str, pa.DataType]) -> pa.Schema:
    """Schema of `signals`: `id` and one nullable column per signal name."""
    return pa.schema([pa.field("id", pa.string(), nullable=False), *(pa.field(n, t) for n, t in types.items())])


def votes_schema(functions: Sequence[str]) -> pa.Schema:
    """Schema of `votes/<task>`: `id` and one int8 column per labelling function; -1 abstains, classes count from 0."""
    return pa.schema(
        [pa.field("id", pa.string(), nullable=False), *(pa.field(f, pa.int8(), nullable=False) for f in functions)]
    )


def labels_schema(classes: Sequence[str]) -> pa.Schema:
    """Schema of `labels/<task>`: `label` (null: tie or all abstain), one probability `p_<class>` per class, `votes` cast."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("label", pa.string()),
            *(pa.field(f"p_{c}", pa.float64(), nullable=False) for c in classes),
            pa.field("votes", pa.int16(), nullable=False),
        ]
    )


def embeddings_schema(dimension: int) -> pa.Schema:
    """Schema of `embeddings/<name>`: `id` and a float16 vector; zeros for a document that holds nothing to go by."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(pa.float16(), dimension), nullable=False),
        ]
    )


def document_id(partition: str, row: int) -> str:
    """RedPajama-V2's document id."""
    return f"{partition}.json.gz/{row}"


def id_int(identifier: str) -> int:
    """First eight bytes of sha1(id), little endian, as uint64 (RedPajama-V2)."""
    return int.from_bytes(hashlib.sha1(identifier.encode()).digest()[:8], "little")


def identify(partition: str, rows: int) -> tuple[pa.Array, pa.Array]:
    """The columns `id` and `id_int` of a partition of `rows` documents."""
    ids = [document_id(partition, row) for row in range(rows)]
    return pa.array(ids, pa.string()), pa.array([id_int(i) for i in ids], pa.uint64())


def id_digest(ids: pa.ChunkedArray | pa.Array | Iterable[str]) -> str:
    """xxh3-128 of an id column, in order: equal digests mean aligned tables."""
    state = xxhash.xxh3_128()
    for value in ids:
        state.update(str(value).encode())
        state.update(b"\n")
    return state.hexdigest()


def conform(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """The table with exactly the schema's columns, in its order and types. ValueError names a missing or wrong column."""
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise ValueError(f"{what}: column {', '.join(missing)} is missing; it has {', '.join(table.column_names)}")
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise ValueError(f"{what}: {error}") from error
