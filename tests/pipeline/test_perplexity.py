"""Perplexity and buckets as CCNet has them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import kenlm
import pytest
import sentencepiece
from pydantic import ValidationError

from pipeline.cutoffs import write_percentiles
from pipeline.normalize import normalize
from pipeline.perplexity import PerplexityModels, PerplexityParams
from pipeline.train_language_model import LanguageModelParams, train_language_model
from tests.pipeline.library_text import docstrings

TEXTS = docstrings(250_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of English, with its percentiles, under the names of `menagerie models train-lm`."""
    target = tmp_path_factory.mktemp("models")
    params = LanguageModelParams(vocabulary_size=600, order=4, held_out=0.2)
    trained = train_language_model(lambda: TEXTS, "en", target, params)
    (target / "cutoffs.json").write_bytes(write_percentiles({"en": trained.percentiles}))
    return target


def load(params: PerplexityParams, folder: Path | None = None) -> PerplexityModels:
    files = PerplexityModels.files(params)
    return PerplexityModels.load(params, {key: folder / Path(p).name if folder else Path(p) for key, p in files.items()})


def test_perplexity_is_ccnets_formula(folder: Path) -> None:
    models = load(PerplexityParams(models=str(folder)))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "en.sp.model"))
    grams = kenlm.Model(str(folder / "en.arpa"))
    for text, scored in zip(TEXTS[:100], models.score(TEXTS[:100], "en"), strict=True):
        told = pieces.encode_as_pieces(normalize(text))
        by_word = sum(p for p, _, _ in grams.full_scores(" ".join(told)))
        assert scored == pytest.approx(10 ** (-by_word / (len(told) + 1)), abs=0.051)
        assert scored == round(scored, 1)


def test_unusual_text_is_harder_and_no_text_has_no_perplexity(folder: Path) -> None:
    models = load(PerplexityParams(models=str(folder)))
    plain, shuffled, empty, marks = models.score(
        [TEXTS[3], " ".join(sorted(TEXTS[3].split(), key=lambda w: w[::-1])), "\n \x07", "\u0301"], "en"
    )
    assert plain is not None and shuffled is not None and plain * 2 < shuffled
    assert empty is None and marks is None
    assert [models.bucket(p, "en") for p in (1.0, 1e6, None)] == ["head", "tail", "all"]


def test_a_language_without_a_model_goes_into_all(folder: Path) -> None:
    models = load(PerplexityParams(models=str(folder), cutoffs="ccnet"))
    assert models.score(["ein Text", "noch einer"], "de") == [None, None]
    assert models.bucket(models.score(["ein Text"], "de")[0], "de") == "all"
    assert models.score(["a text"], None) == [None] and models.bucket(None, None) == "all"
    assert [models.bucket(p, "en") for p in (339.9, 340.0, 520.0)] == ["head", "middle", "tail"]


def test_cutoffs_come_from_where_the_recipe_says(folder: Path, tmp_path: Path) -> None:
    held = load(PerplexityParams(models=str(folder)))
    wide = load(PerplexityParams(models=str(folder), percentiles=(10, 90)))
    assert wide.cutoffs["en"][0] < held.cutoffs["en"][0] < held.cutoffs["en"][1] < wide.cutoffs["en"][1]
    fixed = load(PerplexityParams(models=str(folder), cutoffs={"en": (5, 6)}))
    assert [fixed.bucket(p, "en") for p in (4.9, 5.0, 6.0)] == ["head", "middle", "tail"]
    for path in folder.glob("en.*"):
        shutil.copy(path, tmp_path)
    (tmp_path / "cutoffs.csv").write_text("percentile,en,xx\n30,111,1\n60,222,2\n")
    assert load(PerplexityParams(models=str(tmp_path))).cutoffs == {"en": (111.0, 222.0)}


def test_ccnets_file_names_are_read(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "en.sp.model", tmp_path / "en.sp.model")
    shutil.copy(folder / "en.arpa", tmp_path / "en.arpa.bin")  # KenLM tells the format by content
    params = PerplexityParams(models=f"{tmp_path}/", cutoffs="ccnet")
    assert PerplexityModels.files(params) == {
        "perplexity/en.sp.model": f"{tmp_path}/en.sp.model",
        "perplexity/en.arpa.bin": f"{tmp_path}/en.arpa.bin",
    }
    assert load(params).score(TEXTS[:3], "en") == load(PerplexityParams(models=str(folder))).score(TEXTS[:3], "en")


def test_the_corpus_own_models_may_lack_a_language(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        shutil.copy(path, tmp_path)
    for name in ("de.sp.model", "de.arpa"):  # what the stage language-models leaves for too little text
        (tmp_path / name).touch()
    params = PerplexityParams(models="corpus", languages=("en", "de"))
    assert PerplexityModels.files(params)["perplexity/de.arpa"] == "global/language-models/all/de.arpa"
    models = load(params, tmp_path)
    assert models.score(["ein Text"], "de") == [None]
    assert models.score(TEXTS[:1], "en") != [None]


def test_bad_parameters_are_named(folder: Path, tmp_path: Path) -> None:
    for wrong, told in (
        ({"models": "corpus"}, "name the languages"),
        ({"models": "corpus", "languages": ("en",), "cutoffs": "ccnet"}, "CCNet's own models only"),
        ({"models": "m", "cutoffs": "ccnet", "percentiles": (20, 60)}, "30, 60"),
        ({"models": "m", "cutoffs": {"en": (500, 300)}}, "does not rise"),
    ):
        with pytest.raises(ValidationError, match=told):
            PerplexityParams(**wrong)
    with pytest.raises(ValueError, match="train-lm"):
        PerplexityModels.files(PerplexityParams(models=str(tmp_path)))
    with pytest.raises(ValueError, match=r"lacks fr\.sp\.model"):
        PerplexityModels.files(PerplexityParams(models=str(folder), languages=("en", "fr")))
    shutil.copy(folder / "en.sp.model", tmp_path)
    shutil.copy(folder / "en.arpa", tmp_path)
    with pytest.raises(ValueError, match=r"no cutoffs\.json or cutoffs\.csv"):
        PerplexityModels.files(PerplexityParams(models=str(tmp_path)))
    (tmp_path / "en.arpa").write_text("no model")
    with pytest.raises(ValueError, match="is not a KenLM model"):
        load(PerplexityParams(models=str(tmp_path), cutoffs="ccnet")).score(["x"], "en")
    (tmp_path / "en.sp.model").write_text("no model")
    with pytest.raises(ValueError, match="is not a SentencePiece model"):
        load(PerplexityParams(models=str(tmp_path), cutoffs="ccnet")).score(["x"], "en")


def test_a_hopeless_score_is_infinite_and_not_an_error() -> None:
    from pipeline.perplexity import _perplexity

    assert _perplexity(-1e9, 1) == math.inf
    assert _perplexity(-6.0, 2) == 100.0
