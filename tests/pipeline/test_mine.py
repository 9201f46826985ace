"""Mining against CCNet's own deduplication, and what becomes of every document."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import tables
from pipeline.language import MODEL_KEY, LanguageParams
from pipeline.mine import Mine, MineParams
from pipeline.paragraphs import Paragraphs, ParagraphsParams, normalize, text_batches
from pipeline.perplexity import PerplexityModels, PerplexityParams
from pipeline.stage import StageResult
from tests.pipeline.wet_shards import raw_table, read_shards

ENGLISH = "The committee met on Tuesday and decided that the old bridge across the river should be repaired before winter."
FRENCH = "Le comité s'est réuni mardi et a décidé que le vieux pont sur la rivière serait réparé avant le début de l'hiver."
EMBEDDED = LanguageParams(kind="resiliparse")


@pytest.fixture(scope="module")
def shards(shared: Path) -> dict[str, pa.Table]:
    return read_shards(shared)


@pytest.fixture(scope="module")
def fasttext(shared: Path) -> LanguageParams:
    """Every document gets a language, so that none but paragraph deduplication drops one."""
    return LanguageParams(kind="fasttext", model=str(shared / "models" / "lid.176.ftz"), threshold=0.0)


def mine(raw: Mapping[str, pa.Table], params: MineParams) -> dict[str, StageResult]:
    """Both stages over shards, as an engine would run them."""
    stage = Mine(params)
    left: dict[str, pa.Table] = {}
    if params.paragraphs is not None:
        paragraphs = Paragraphs(params.paragraphs)
        groups: dict[str, list[pa.Table]] = {}
        for partition, table in raw.items():
            groups.setdefault(paragraphs.group(partition), []).append(paragraphs.summarise(partition, {"raw": table}))
        for group, summaries in groups.items():
            files = paragraphs.finish(group, paragraphs.merge(summaries)).files
            left |= {f"paragraphs/{path}": table for path, table in files.items() if isinstance(table, pa.Table)}
    stage.setup({key: Path(path) for key, path in stage.files().items()})
    results = {}
    for partition, table in raw.items():
        given = {key: left[path] for key, path in stage.global_tables(partition).items()}
        results[partition] = stage.run(partition, {"raw": table, **given})
    return results


def documents(result: StageResult) -> pa.Table:
    """All documents of a shard, without the identity that their partition gives them, in the order of the raw rows."""
    parts = [table.drop_columns(["id", "id_int"]) for table in result.tables.values()]
    return pa.concat_tables(parts) if parts else tables.DOCUMENTS.empty_table().drop_columns(["id", "id_int"])


def by_record(results: Mapping[str, StageResult]) -> dict[str, dict]:
    return {row["record_id"]: row for result in results.values() for row in documents(result).to_pylist()}


def test_lines_kept_and_lengths_equal_those_of_ccnet(
    shards: dict[str, pa.Table], shared: Path, fasttext: LanguageParams
) -> None:
    results = mine(shards, MineParams(paragraphs=ParagraphsParams(group_shards=5), language=fasttext))
    found = by_record(results)
    golden = pq.read_table(shared / "ccnet_reference" / "dedup.parquet").to_pylist()
    assert sum(sum(r.drops.values()) for r in results.values()) == 186 == sum(not row["kept"] for row in golden)
    assert {reason for r in results.values() for reason in r.drops} == {"all_paragraphs_duplicate"}
    assert sorted(found) == sorted(row["id"] for row in golden if row["kept"])
    columns = ("line_ids", "original_nlines", "nlines", "original_length", "length")
    for row in golden:
        if row["kept"]:
            assert {c: found[row["id"]][c] for c in columns} == {c: row[c] for c in columns}, row["id"]
    assert sum(r.metrics["lines_kept"] for r in results.values()) == 79843
    assert sum(r.metrics["lines"] for r in results.values()) == 268319


@pytest.mark.parametrize("group_shards", [1, 2, 5])
def test_groups_of_any_size_equal_a_plain_count(
    shards: dict[str, pa.Table], fasttext: LanguageParams, group_shards: int
) -> None:
    found = by_record(mine(shards, MineParams(paragraphs=ParagraphsParams(group_shards=group_shards), language=fasttext)))
    texts = {p: [(r["record_id"], r["raw_content"].split("\n")) for r in t.to_pylist()] for p, t in shards.items()}
    names = list(texts)
    expected = {}
    for start in range(0, len(names), group_shards):
        group = [document for name in names[start : start + group_shards] for document in texts[name]]
        normal = [[normalize(line) for line in lines] for _, lines in group]
        holders = Counter(line for lines in normal for line in set(lines))
        for (record, lines), keys in zip(group, normal, strict=True):
            seen: set[str] = set()
            kept = []
            for number, key in enumerate(keys):
                if holders[key] == 1 and key not in seen:
                    kept.append(number)
                seen.add(key)
            if kept and "\n".join(lines[i] for i in kept):
                expected[record] = (kept, "\n".join(lines[i] for i in kept))
    assert {record: (row["line_ids"], row["raw_content"]) for record, row in found.items()} == expected


def test_every_document_is_kept_or_dropped_with_a_counted_reason(shards: dict[str, pa.Table]) -> None:
    params = MineParams(
        paragraphs=ParagraphsParams(group_shards=5), language=EMBEDDED, keep_languages=("en", "de"), min_length=200
    )
    results = mine(shards, params)
    reasons = Counter()
    for partition, result in results.items():
        kept = documents(result)
        assert result.rows_in == shards[partition].num_rows == kept.num_rows + sum(result.drops.values())
        assert result.rejects is not None
        assert result.rejects.schema == tables.REJECTS
        assert Counter(result.rejects["reason"].to_pylist()) == result.drops
        records = kept["record_id"].to_pylist() + result.rejects["record_id"].to_pylist()
        assert sorted(records) == sorted(shards[partition]["record_id"].to_pylist())
        assert set(kept["language"].to_pylist()) <= {"en", "de"}
        assert min(kept["length"].to_pylist()) >= 200
        assert min(kept["language_score"].to_pylist()) >= 0.5
        told = sum(result.metrics["languages"].values())
        assert told == kept.num_rows + result.drops["language_not_kept"]
        assert result.metrics["characters_kept"] == sum(kept["length"].to_pylist())
        reasons.update(result.drops)
    assert set(reasons) >= {"all_paragraphs_duplicate", "shorter_than_min_length", "language_not_kept"}


def test_partitions_are_named_identified_and_in_the_order_of_the_raw_rows(shards: dict[str, pa.Table]) -> None:
    raw = shards["web/0003"]
    result = mine({"web/0003": raw}, MineParams(paragraphs=ParagraphsParams(group_shards=1), language=EMBEDDED))["web/0003"]
    order = {record: row for row, record in enumerate(raw["record_id"].to_pylist())}
    assert len(result.tables) > 3
    assert list(result.tables) == sorted(result.tables)
    for (name, partition), table in result.tables.items():
        assert name == "documents"
        assert table.schema == tables.DOCUMENTS
        rows = [order[record] for record in table["record_id"].to_pylist()]
        assert rows == sorted(rows)
        assert {f"web/0003/{lang}_all" for lang in table["language"].to_pylist()} == {partition}
        assert table["id"][0].as_py() == f"{partition}.json.gz/0"
        assert table["id_int"][0].as_py() == tables.id_int(f"{partition}.json.gz/0")
        assert table["perplexity"].null_count == table.num_rows
        carried = raw.take(pa.array(rows))
        for column in ("url", "date_download", "digest", "source_domain", "title", "cc_segment", "original_length"):
            assert table[column].to_pylist() == carried[column].to_pylist()
        for row in table.to_pylist():
            assert row["length"] == len(row["raw_content"])
            assert row["nlines"] == len(row["line_ids"]) == row["raw_content"].count("\n") + 1


def test_without_paragraph_deduplication_every_line_stays() -> None:
    text = f"{ENGLISH}\n\n{ENGLISH}"
    result = mine({"x/0000": raw_table([text, text])}, MineParams(paragraphs=None, language=EMBEDDED))["x/0000"]
    rows = documents(result).to_pylist()
    assert [row["raw_content"] for row in rows] == [text, text]
    assert rows[0]["line_ids"] == [0, 1, 2]
    assert result.drops == {}


def test_each_reason_has_its_document() -> None:
    texts = ["", ENGLISH, ENGLISH, "\nshared", f"shared\n{FRENCH}", "12 34 56", "Zq xv kj wq zx qp", f"{ENGLISH} Once more."]
    texts += ["Ein kurzer Text über gar nichts, der nur hier steht und auf Deutsch geschrieben worden ist, damit es so ist."]
    params = MineParams(paragraphs=ParagraphsParams(), language=EMBEDDED, keep_languages=("en", "fr"), min_length=7)
    result = mine({"x/0000": raw_table(texts)}, params)["x/0000"]
    assert result.rejects is not None
    why = dict(zip(result.rejects["record_id"].to_pylist(), result.rejects["reason"].to_pylist(), strict=True))
    assert why == {
        "made/0": "empty_text",
        "made/1": "all_paragraphs_duplicate",
        "made/2": "all_paragraphs_duplicate",
        "made/3": "empty_text",  # its blank line is the only one in the group
        "made/5": "language_unknown",
        "made/6": "language_score_below_threshold",
        "made/8": "language_not_kept",
    }
    assert result.drops == dict(sorted(Counter(why.values()).items()))
    assert [row["raw_content"] for row in documents(result).to_pylist()] == [f"{ENGLISH} Once more.", FRENCH]


def test_a_batch_boundary_changes_nothing(shards: dict[str, pa.Table], monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {"web/0001": shards["web/0001"]}
    params = MineParams(language=EMBEDDED, keep_languages=("de", "it"))
    whole = mine(raw, params)["web/0001"]
    monkeypatch.setattr(text_batches, "__defaults__", (50_000,))
    pieces = mine(raw, params)["web/0001"]
    assert pieces.drops == whole.drops
    assert pieces.metrics == whole.metrics
    assert pieces.rejects == whole.rejects
    assert list(pieces.tables) == list(whole.tables)
    assert all(pieces.tables[key].equals(whole.tables[key]) for key in whole.tables)


def test_an_empty_shard_gives_an_empty_result() -> None:
    result = mine({"x/0000": raw_table([])}, MineParams(language=EMBEDDED))["x/0000"]
    assert (result.rows_in, dict(result.tables), dict(result.drops)) == (0, {}, {})


def test_the_stage_travels_to_a_worker(fasttext: LanguageParams) -> None:
    stage = Mine(MineParams(language=fasttext))
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert stage.files() == {MODEL_KEY: fasttext.model}
    assert stage.global_tables("2023-06/0149") == {"duplicate_paragraphs": "paragraphs/2023-06/0100.parquet"}
    assert Mine(MineParams(paragraphs=None, language=fasttext)).global_tables("2023-06/0149") == {}


@pytest.fixture(scope="module")
def english_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SentencePiece model of English and a bigram model in which common pieces are likely."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("lm")
    lines = [normalize(f"{ENGLISH} {i}") for i in range(50)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "en.sp"), vocab_size=60, minloglevel=2, hard_vocab_limit=False
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "en.sp.model"))
    seen = Counter(piece for line in lines for piece in pieces.encode(line, out_type=str))
    grams = [f"{-1.0 - 1 / count:.4f}\t{piece}\t0" for piece, count in sorted(seen.items())]
    head = f"\\data\\\nngram 1={len(grams) + 3}\nngram 2=1\n\n\\1-grams:\n-4\t<unk>\t0\n-99\t<s>\t0\n-1\t</s>\t0\n"
    (folder / "en.arpa").write_text(head + "\n".join(grams) + f"\n\n\\2-grams:\n-0.5\t<s> {min(seen)}\n\n\\end\\\n")
    return folder


def test_perplexity_parts_a_language_with_a_model_into_buckets_and_others_into_all(english_model: Path) -> None:
    strange = "Quizzical jackdaws vex my big sphinx of black quartz while waltzing with foxy kings of the ghastly zoo."
    texts = [ENGLISH, FRENCH, strange, f"{ENGLISH} {strange}"]
    models = PerplexityModels.load(
        scored := PerplexityParams(models=str(english_model), cutoffs={"en": (1.0, 2.0)}),
        {key: Path(path) for key, path in PerplexityModels.files(scored).items()},
    )
    expected = models.score([ENGLISH, strange, f"{ENGLISH} {strange}"], "en")
    low, high, between = (value for value in expected if value is not None)
    assert low < between < high
    cutoffs = {"en": ((low + between) / 2, (between + high) / 2)}
    perplexity = PerplexityParams(models=str(english_model), cutoffs=cutoffs)
    params = MineParams(paragraphs=None, language=EMBEDDED, perplexity=perplexity)
    raw = {"x/0000": raw_table(texts)}
    result = mine(raw, params)["x/0000"]
    found = {p: (t["raw_content"].to_pylist(), t["perplexity"].to_pylist()) for (_, p), t in result.tables.items()}
    assert found == {
        "x/0000/en_head": ([ENGLISH], [low]),
        "x/0000/en_middle": ([f"{ENGLISH} {strange}"], [between]),
        "x/0000/en_tail": ([strange], [high]),
        "x/0000/fr_all": ([FRENCH], [None]),
    }
    kept = mine(raw, params.model_copy(update={"keep_buckets": ("head", "all")}))["x/0000"]
    assert [p for _, p in kept.tables] == ["x/0000/en_head", "x/0000/fr_all"]
    assert kept.drops == {"bucket_not_kept": 2}
