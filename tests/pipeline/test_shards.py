"""Each sidecar, read as its own format's description says, tells of the same documents."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
from array import array
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.shards import Manifest, Shard, TokenShards, encode_shard, link_for_datatrove, token_dtype

EOS = 0


def _write(folder: Path, shards: list[list[list[int]]], vocabulary: int) -> Path:
    """Shards of documents of token ids (without the end-of-text token), and their manifest."""
    dtype = token_dtype(vocabulary)
    written, number = [], 0
    for index, documents in enumerate(shards):
        tokens = np.array([t for d in documents for t in [*d, EOS]], dtype)
        ends = np.cumsum([len(d) + 1 for d in documents], dtype=np.uint64)
        ids = [f"part/{number + n}" for n in range(len(documents))]
        number += len(documents)
        files = encode_shard(tokens, ends, ids)
        for suffix, content in files.items():
            (folder / f"{index:05d}{suffix}").write_bytes(content)
        digest = xxhash.xxh3_128(files[".bin"]).hexdigest()
        written.append(Shard(f"{index:05d}.bin", len(tokens), len(documents), digest))
    manifest = Manifest("web", "train", dtype.name, vocabulary, EOS, "tokenizer.json", "0" * 64, tuple(written))
    path = folder / "manifest.json"
    path.write_bytes(manifest.to_json())
    return path


def _read_megatron(prefix: Path) -> list[list[int]]:
    """Megatron's IndexedDataset: 9 bytes of magic, u64 version, u8 dtype code, u64 sequences, u64 document entries,
    i32 lengths, i64 byte pointers, i64 document index (sequence numbers, from 0 to the number of sequences)."""
    index = Path(f"{prefix}.idx").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, sequences, entries = struct.unpack_from("<QBQQ", index, 9)
    assert version == 1
    at = 9 + 8 + 1 + 8 + 8
    lengths = struct.unpack_from(f"<{sequences}i", index, at)
    pointers = struct.unpack_from(f"<{sequences}q", index, at + 4 * sequences)
    document_index = struct.unpack_from(f"<{entries}q", index, at + 12 * sequences)
    assert len(index) == at + 12 * sequences + 8 * entries
    kind = {8: "H", 4: "i"}[code]
    content = Path(f"{prefix}.bin").read_bytes()
    read = [list(struct.unpack_from(f"<{n}{kind}", content, p)) for n, p in zip(lengths, pointers, strict=True)]
    return [[t for s in read[a:b] for t in s] for a, b in pairwise(document_index)]


def _read_datatrove(file: Path, token_size: int) -> list[list[int]]:
    """datatrove's tokenized file: raw tokens in `x.ds`, exclusive document ends in tokens, u64, in `x.ds.index`."""
    content, index = file.read_bytes(), Path(f"{file}.index").read_bytes()
    tokens = [t for (t,) in struct.iter_unpack({2: "<H", 4: "<I"}[token_size], content)]
    ends = [e for (e,) in struct.iter_unpack("<Q", index)]
    return [tokens[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def _read_by_eos(file: Path, token_size: int) -> list[list[int]]:
    """nanoGPT and OLMo-core: a stream of tokens with nothing around it; a document ends with the end-of-text token."""
    stream = array({2: "H", 4: "I"}[token_size], file.read_bytes())
    if sys.byteorder == "big":
        stream.byteswap()
    documents: list[list[int]] = [[]]
    for token in stream:
        documents[-1].append(token)
        if token == EOS:
            documents.append([])
    assert documents.pop() == []
    return documents


_vocabularies = st.sampled_from([2, 300, 1 << 16, (1 << 16) + 1, 1 << 20])


@st.composite
def _corpora(draw: st.DrawFn) -> tuple[int, list[list[list[int]]]]:
    vocabulary = draw(_vocabularies)
    document = st.lists(st.integers(1, vocabulary - 1) | st.just(vocabulary - 1), max_size=12)
    return vocabulary, draw(st.lists(st.lists(document, max_size=6), min_size=1, max_size=4))


@given(_corpora(), st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_format_reads_the_same_documents_from_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, corpus: tuple[int, list[list[list[int]]]], data: st.DataObject
) -> None:
    vocabulary, shards = corpus
    folder = tmp_path_factory.mktemp("shards")
    path = _write(folder, shards, vocabulary)
    size = 2 if vocabulary <= 1 << 16 else 4
    links = link_for_datatrove(path)
    for number, documents in enumerate(shards):
        expected = [[*d, EOS] for d in documents]
        prefix = folder / f"{number:05d}"
        assert _read_megatron(prefix) == expected
        assert _read_datatrove(links[number], size) == expected
        assert _read_by_eos(prefix.with_suffix(".bin"), size) == expected
        assert links[number].samefile(prefix.with_suffix(".bin"))

    reader = TokenShards(path)
    flat = [[*d, EOS] for documents in shards for d in documents]
    stream = [t for d in flat for t in d]
    ends = np.cumsum([len(d) for d in flat]).tolist()
    assert (len(reader), reader.total_documents) == (len(stream), len(flat))
    assert reader.tokens(0, len(reader)).tolist() == stream
    for index, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
        assert reader.document(index) == (start, stop)
        assert reader.document_at(start) == reader.document_at(stop - 1) == index
    start = data.draw(st.integers(0, len(stream)))
    stop = data.draw(st.integers(start, len(stream)))
    assert reader.tokens(start, stop).tolist() == stream[start:stop]
    assert reader.documents(start, stop).tolist() == sorted({start, stop, *(e for e in ends if start < e < stop)})
    touched = [i for i, e in enumerate(ends) if e > start and e - len(flat[i]) < stop] if start < stop else []
    assert reader.document_ids(start, stop) == [f"part/{i}" for i in touched]


def test_a_manifest_lists_every_file_and_survives_a_round_trip(tmp_path: Path) -> None:
    path = _write(tmp_path, [[[1, 2], []], [[3]]], 10)
    content = json.loads(path.read_bytes())
    assert (content["tokens"], content["documents"], content["dtype"], content["eos"]) == (6, 3, "uint16", EOS)
    manifest = Manifest.from_json(path.read_bytes())
    assert manifest.to_json() == path.read_bytes()
    assert sorted(manifest.files()) == sorted(p.name for p in tmp_path.iterdir() if p != path)
    assert manifest.shards[0].xxh3 == xxhash.xxh3_128((tmp_path / "00000.bin").read_bytes()).hexdigest()


def test_a_reader_pickles_and_refuses_positions_outside(tmp_path: Path) -> None:
    reader = pickle.loads(pickle.dumps(TokenShards(_write(tmp_path, [[[1, 2]], [[3]]], 10))))
    assert reader.tokens(1, 4).tolist() == [2, EOS, 3]
    assert reader.tokenizer == tmp_path / "tokenizer.json"
    for call in (
        lambda: reader.tokens(0, 6),
        lambda: reader.tokens(-1, 2),
        lambda: reader.documents(3, 2),
        lambda: reader.document(2),
        lambda: reader.document_at(5),
    ):
        with pytest.raises(IndexError):
            call()


@pytest.mark.parametrize("harm", ["cut", "missing", "manifest", "version"])
def test_damage_is_named_when_shards_are_opened(tmp_path: Path, harm: str) -> None:
    path = _write(tmp_path, [[[1, 2]]], 10)
    if harm == "cut":
        (tmp_path / "00000.bin").write_bytes(b"\x01\x00")
    elif harm == "missing":
        (tmp_path / "00000.ds.index").unlink()
    elif harm == "manifest":
        path.write_bytes(path.read_bytes()[:40])
    else:
        path.write_bytes(path.read_bytes().replace(b'"version": 1', b'"version": 9'))
    with pytest.raises(ValueError, match=r"00000|manifest\.json"):
        TokenShards(path)


def test_a_vocabulary_that_megatron_could_not_index_is_refused() -> None:
    assert token_dtype(1 << 16).itemsize == 2
    assert token_dtype((1 << 16) + 1).itemsize == 4
    for vocabulary in (0, (1 << 31) + 1):
        with pytest.raises(ValueError, match="vocabulary"):
            token_dtype(vocabulary)


def test_more_shards_than_may_be_open_at_once_are_read(tmp_path: Path) -> None:
    path = _write(tmp_path, [[[n % 7 + 1]] for n in range(300)], 10)
    reader = TokenShards(path)
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    assert [int(reader.tokens(2 * n, 2 * n + 1)[0]) for n in range(300)] == [n % 7 + 1 for n in range(300)]
    if before:
        assert len(list(Path("/proc/self/fd").iterdir())) - before <= 256


def test_ids_take_few_bytes() -> None:
    ids = [f"2023-06/0000/en_head.json.gz/{n}" for n in range(20_000)]
    tokens = np.zeros(len(ids), np.uint16)
    files = encode_shard(tokens, np.arange(1, len(ids) + 1), ids)
    assert len(files[".docs.parquet"]) < 2 * len(ids)


def test_importing_shards_loads_numpy_and_nothing_else_heavy() -> None:
    code = "import sys, pipeline.shards; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {"pyarrow", "polars", "ray", "pydantic", "xxhash", "torch", "tokenizers"} & set(loaded)


def test_sidecar_ids_are_a_plain_parquet_file(tmp_path: Path) -> None:
    _write(tmp_path, [[[1], [2]]], 10)
    assert pq.read_table(tmp_path / "00000.docs.parquet").to_pydict() == {"id": ["part/0", "part/1"]}
