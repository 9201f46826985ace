"""Language identification against published answers, and its errors."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.language import MODEL_KEY, FastText, LanguageParams, Resiliparse, load_detector
from tests.pipeline.wet_shards import conversions

ENGLISH = "The committee met on Tuesday and decided that the old bridge across the river should be repaired before winter.\n"
FRENCH = "Le comité s'est réuni mardi et a décidé que le vieux pont sur la rivière serait réparé avant le début de l'hiver.\n"


@pytest.fixture(scope="module")
def model(shared: Path) -> Path:
    return shared / "models" / "lid.176.ftz"


def test_fasttext_gives_the_published_languages_and_scores_of_real_pages(shared: Path, model: Path) -> None:
    truth = {row["id"]: row for row in pq.read_table(shared / "web" / "truth.parquet").to_pylist()}
    texts, expected = [], []
    for file in sorted((shared / "web").glob("*.warc.wet.gz"))[:2]:
        for number, (_, body) in enumerate(conversions(gzip.decompress(file.read_bytes()))):
            row = truth[f"{file.name.split('.')[0]}/{number}"]
            # The table's text is the block without its title line, if the page has a title.
            texts.append(body.split("\n", 1)[1] if row["has_title"] else body)
            expected.append((row["lid_language"], row["lid_score"]))
    languages, scores = FastText(model).detect(texts)
    assert len(expected) == 437
    found = [(language, float(score)) for language, score in zip(languages, scores, strict=True)]
    differing = [(f, e) for f, e in zip(found, expected, strict=True) if f != e and e[0] is not None]
    assert differing == []


def test_newlines_are_deleted_and_not_read_as_spaces(model: Path) -> None:
    detector = FastText(model)
    assert detector.detect(["Das ist\nein Satz"])[1].tolist() == detector.detect(["Das istein Satz"])[1].tolist()


def test_a_text_with_nothing_to_go_by_has_no_language(model: Path) -> None:
    languages, scores = Resiliparse().detect(["", "12 – 34 …\n"])
    assert (languages, scores.tolist()) == ([None, None], [0.0, 0.0])
    languages, scores = FastText(model).detect([""])
    assert (scores < 0.5).all()


def test_resiliparse_scores_half_at_its_own_limit_of_trust() -> None:
    from resiliparse.parse.lang import detect_fast

    languages, scores = Resiliparse().detect([ENGLISH * 3, FRENCH * 3])
    assert languages == ["en", "fr"]
    ranks = [detect_fast(text)[1] for text in (ENGLISH * 3, FRENCH * 3)]
    assert scores.tolist() == [round(1 - rank / 2400, 2) for rank in ranks]
    assert (scores > 0.5).all()


def test_resiliparse_agrees_with_fasttext_on_most_pages_of_its_languages(shared: Path) -> None:
    truth = pq.read_table(shared / "web" / "truth.parquet").to_pylist()
    gold = {row["id"]: row["language"] for row in truth if row["language"]}
    file = shared / "web" / "web-004.warc.wet.gz"
    texts, expected = [], []
    for number, (_, body) in enumerate(conversions(gzip.decompress(file.read_bytes()))):
        if (language := gold.get(f"web-004/{number}")) is not None:
            texts.append(body)
            expected.append(language)
    languages, _ = Resiliparse().detect(texts)
    agreeing = sum(a == b for a, b in zip(languages, expected, strict=True))
    assert len(expected) > 30
    assert agreeing / len(expected) > 0.9


def test_the_parameters_choose_the_detector(model: Path) -> None:
    params = LanguageParams(kind="fasttext", model=str(model))
    assert params.files() == {MODEL_KEY: str(model)}
    assert isinstance(load_detector(params, {MODEL_KEY: model}), FastText)
    assert LanguageParams(kind="resiliparse").files() == {}
    assert isinstance(load_detector(LanguageParams(kind="resiliparse"), {}), Resiliparse)


def test_a_missing_model_is_an_error_that_says_how_to_fetch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENAGERIE_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"lid\.176\.bin: fetch it with `menagerie models fetch lid176`"):
        LanguageParams().files()
    with pytest.raises(ValueError, match=r"none\.bin does not exist: give a path to lid\.176\.bin"):
        LanguageParams(model=str(tmp_path / "none.bin")).files()
    (tmp_path / "lid.176.bin").write_bytes(b"here")
    assert LanguageParams().files() == {MODEL_KEY: str(tmp_path / "lid.176.bin")}


def test_a_file_that_is_no_model_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"not a model" * 100)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'x.bin'} is no fastText classifier")):
        FastText(tmp_path / "x.bin")


def test_a_model_beside_resiliparse_is_an_error() -> None:
    with pytest.raises(ValueError, match="resiliparse takes no model"):
        LanguageParams(kind="resiliparse", model="lid.176.bin")
