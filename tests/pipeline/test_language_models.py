"""The stage that trains language models on the corpus: its sample is the same however the corpus is cut."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.language import LanguageParams
from pipeline.language_models import SAMPLE, LanguageModels, LanguageModelsParams
from pipeline.perplexity import PerplexityModels, PerplexityParams
from tests.pipeline.library_text import docstrings

TEXTS = docstrings(250_000)
GERMAN = [
    "Die Sprache eines Textes erkennt man an seinen häufigsten Zeichenfolgen, und das gelingt schon bei einem kurzen Absatz.",
    "Jeden Morgen fuhr sie mit dem Fahrrad durch den Wald zur Arbeit, obwohl der Weg nach dem Regen kaum noch zu sehen war.",
]
RESILIPARSE = LanguageParams(kind="resiliparse")


def raw(texts: list[str] | tuple[str, ...], start: int = 0) -> pa.Table:
    names = [f"file/{start + i}" for i in range(len(texts))]
    return pa.table({"record_id": names, "raw_content": pa.array(texts, pa.large_string())})


def stage(**changes: object) -> LanguageModels:
    params = {"languages": ("en", "de"), "vocabulary_size": 600, "order": 3, "held_out": 0.3, "language": RESILIPARSE}
    made = LanguageModels(LanguageModelsParams(**{**params, **changes}))  # type: ignore[arg-type]
    made.setup({})
    return made


@pytest.mark.parametrize("limits", [{}, {"sample_documents": 40}, {"sample_characters": 20_000}, {"document_characters": 300}])
def test_the_sample_is_the_same_however_the_corpus_is_cut(limits: dict[str, int]) -> None:
    made = stage(**limits)
    texts = [*TEXTS[:200], *GERMAN]
    whole = made.merge([made.summarise("a", {"raw": raw(texts)})])
    parts = [made.summarise(str(i), {"raw": raw(texts[i : i + 41], i)}) for i in range(0, len(texts), 41)]
    assert whole.equals(made.merge(parts))
    assert whole.equals(made.merge([made.merge(parts[:2]), made.merge(parts[2:])]))
    assert whole.schema.equals(SAMPLE)
    languages = whole["language"].to_pylist()
    by_language = {
        wanted: [t for t, language in zip(whole["text"].to_pylist(), languages, strict=True) if language == wanted]
        for wanted in ("de", "en")
    }
    assert set(GERMAN) <= set(by_language["de"]) and len(by_language["de"]) < 10
    english = by_language["en"]
    if "sample_documents" in limits:
        assert len(english) == 40
    if "sample_characters" in limits:
        assert sum(map(len, english[:-1])) < 20_000 <= sum(map(len, english))
    if "document_characters" in limits:
        assert max(map(len, english)) == 300
    assert made.summarise("empty", {"raw": raw([])}).num_rows == 0


KEYED = st.lists(st.tuples(st.sampled_from(["de", "en"]), st.integers(0, 50), st.text("ab", max_size=9)), max_size=12)


@settings(max_examples=50, deadline=None)
@given(st.lists(KEYED, min_size=3, max_size=3))
def test_merging_is_associative(summaries: list[list[tuple[str, int, str]]]) -> None:
    made = stage(sample_documents=6, sample_characters=20)
    a, b, c = (pa.Table.from_pylist([dict(zip(SAMPLE.names, row, strict=True)) for row in s], SAMPLE) for s in summaries)
    assert made.merge([made.merge([a, b]), c]).equals(made.merge([a, made.merge([b, c])]))
    assert made.merge([a, b, c]).equals(made.merge([c, b, a]))


def test_models_come_out_ready_for_mine(tmp_path: Path) -> None:
    made = stage(minimum_characters=10_000)
    sample = made.summarise("a", {"raw": raw([*TEXTS, *GERMAN])})
    result = made.finish("all", sample)
    assert result.files == made.finish("all", sample).files, "the same bytes again"
    assert set(result.files) == {
        "all/en.arpa", "all/en.sp.model", "all/en.card.json", "all/de.arpa", "all/de.sp.model", "all/cutoffs.json",
    }  # fmt: skip
    assert result.files["all/de.arpa"] == b"" == result.files["all/de.sp.model"]
    assert result.metrics["de"]["skipped"] == "too_little_text"
    assert 2 <= result.metrics["de"]["documents"] < 10 and result.metrics["en"]["held_out"]["scored"] > 20
    for name, content in result.files.items():
        assert isinstance(content, bytes)
        (tmp_path / Path(name).name).write_bytes(content)
    params = PerplexityParams(models="corpus", languages=("en", "de"))
    keys = {key: tmp_path / Path(path).name for key, path in PerplexityModels.files(params).items()}
    models = PerplexityModels.load(params, keys)
    cutoffs = json.loads((tmp_path / "cutoffs.json").read_text())["en"]
    assert models.cutoffs == {"en": (cutoffs["30"], cutoffs["60"])}
    assert models.score(GERMAN, "de") == [None, None]
    assert all(p is not None and p > 1 for p in models.score(TEXTS[:20], "en"))


def test_lines_that_many_documents_share_are_not_trained_on() -> None:
    texts = [f"Home About Contact\n{text}\nCopyright" for text in TEXTS[:60]]
    sample = pa.table({"text": pa.array(texts, pa.large_string())})["text"]
    assert [set(t.split("\n")) & {"Home About Contact", "Copyright"} for t in stage()._texts(sample)] == [set()] * 60
    assert stage(remove_repeated_lines=False)._texts(sample) == texts
