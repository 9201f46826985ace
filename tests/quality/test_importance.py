"""Importance signals: the published values with the published hash, and tables that are made, kept and checked."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.text import TextBatch
from pipeline.word_hashes import ngram_hash
from quality.importance import (
    SOURCE,
    TARGETS,
    Features,
    ImportanceTable,
    ImportanceWeights,
    count_features,
    hashed_features,
    load_tables,
    log_poisson,
    log_ratios,
    make_table,
    save_tables,
)
from quality.registry import DECIMALS
from quality.signals.content import by_language

_PYTHONS_HASH = """
import json, sys
import regex
for line in sys.stdin:
    words = regex.findall(r"\\w+|[^\\w\\s]+", json.loads(line))
    pairs = zip(words, words[1:])
    print(json.dumps([[abs(hash(w)) % 10000 for w in words], [abs(hash(p)) % 10000 for p in pairs]]))
"""


def files(folder: Path) -> dict[str, Path]:
    return {f.name: f for f in folder.iterdir()}


def features_by_pythons_hash(texts: list[str]) -> Features:
    """The features of texts as RedPajama-V2 hashes them, in a Python of the release's hash seed."""
    told = subprocess.run(
        [sys.executable, "-c", _PYTHONS_HASH], input="".join(json.dumps(t) + "\n" for t in texts), text=True, check=True,
        capture_output=True, env={**os.environ, "PYTHONHASHSEED": "42"},
    )  # fmt: skip
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    flat = [[b for row in rows for b in row[kind]] for kind in (0, 1)]
    offsets = [np.cumsum([0, *(len(row[kind]) for row in rows)]) for kind in (0, 1)]
    return Features(offsets[0], np.array(flat[0], np.uint32), offsets[1], np.array(flat[1], np.uint32))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="older Pythons hash strings otherwise")
@pytest.mark.parametrize("folder", ["", "edge"])
def test_the_formula_equals_the_reference_with_its_hash(shared: Path, folder: str, tmp_path: Path) -> None:
    (tmp_path / "importance.json").write_text('{"hash": "siphash13, seed 42"}')
    told = {**files(shared / "rpv2" / "dsir"), "importance.json": tmp_path / "importance.json"}
    weights = ImportanceWeights(load_tables(told, made_by="siphash13, seed 42"))
    documents = pq.read_table(shared / "rpv2" / folder / "documents.parquet")
    golden = pq.read_table(shared / "rpv2" / folder / "signals.parquet")
    text = TextBatch(documents["raw_content"], {"language": documents["language"]})
    which = by_language(text, weights.languages)
    sums = log_ratios([features_by_pythons_hash(text.strings)], weights, which)
    for j, target in enumerate(TARGETS):
        source, of_target = (weights.mean_lengths[which, k] for k in (0, 1 + j))
        correction = log_poisson(text.characters, of_target) - log_poisson(text.characters, source)
        for name, values in (("", sums[:, j]), ("_length_correction", sums[:, j] + correction)):
            column = golden[f"rps_doc_{target}_importance{name}"].to_pylist()
            for row, (ours, theirs) in enumerate(zip(np.round(values, DECIMALS).tolist(), column, strict=True)):
                if theirs is None:
                    assert np.isnan(ours) or text.characters[row] == 0, (name, row)
                else:
                    assert abs(ours - theirs) < 1.001e-8, (name, row, ours, theirs)


def test_features_are_scaled_hashes_of_words_and_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a b. a", "", "é", "x y"]
    words = [["a", "b", ".", "a"], [], ["é"], ["x", "y"]]
    for stretch in (1 << 20, 3, 1):
        monkeypatch.setattr("quality.importance._STRETCH", stretch)
        stretches = list(hashed_features(TextBatch(pa.array(texts)).raw_words, 100))
        for d, told in enumerate(words):
            singles, pairs = [], []
            for f in stretches:
                singles += f.words[f.word_offsets[d] : f.word_offsets[d + 1]].tolist()
                pairs += f.pairs[f.pair_offsets[d] : f.pair_offsets[d + 1]].tolist()
            assert singles == [(ngram_hash([w]) >> 32) * 100 >> 32 for w in told]
            assert pairs == [(ngram_hash(pair) >> 32) * 100 >> 32 for pair in itertools.pairwise(told)]
        assert count_features(TextBatch(pa.array(texts)), 100)[0].sum() == 7 + 4


def test_tables_are_kept_with_the_name_of_their_hash(tmp_path: Path) -> None:
    table = make_table([TextBatch(pa.array(["a b", "c"])), TextBatch(pa.array(["d e f."]))], 64)
    assert table.counts.sum() == 7 + 1 + 3 and table.mean_length == 7 / 3
    save_tables(tmp_path, {(SOURCE, "en"): table, ("wikipedia", "en"): table})
    read = load_tables(files(tmp_path))
    assert sorted(read) == [("ccnet", "en"), ("wikipedia", "en")]
    assert np.array_equal(read[SOURCE, "en"].counts, table.counts) and read[SOURCE, "en"].mean_length == table.mean_length
    with pytest.raises(ValueError, match="documents with words, and there are none"):
        make_table([TextBatch(pa.array(["", " "]))])
    assert ImportanceTable(np.zeros(3, np.int64), 1.0).log_share().tolist() == pytest.approx([np.log(1e-8)] * 3)


def test_tables_that_do_not_fit_are_named(tmp_path: Path) -> None:
    table = ImportanceTable(np.arange(64), 2.0)
    save_tables(tmp_path, {(SOURCE, "en"): table})
    (tmp_path / "importance.json").unlink()
    with pytest.raises(ValueError, match=r"no importance.json says that the tables are of the hash .* train-importance"):
        load_tables(files(tmp_path))
    save_tables(tmp_path, {(SOURCE, "en"): table, ("books", "en"): ImportanceTable(np.arange(8), 2.0)})
    with pytest.raises(ValueError, match="tables of several sizes"):
        load_tables(files(tmp_path))
    (tmp_path / "books.en.lambda.npy").unlink()
    with pytest.raises(ValueError, match=r"books.en.8.counts.npy has no books.en.lambda.npy beside it"):
        load_tables(files(tmp_path))
    with pytest.raises(ValueError, match="holds no table"):
        load_tables({"importance.json": tmp_path / "importance.json"})
