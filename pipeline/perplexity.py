"""Perplexity of documents as CCNet measures it: normalised text, SentencePiece pieces, a KenLM model per language."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from pipeline.cutoffs import CCNET_CUTOFFS, CCNET_PERCENTILES, Cutoffs, bucket, cutoffs_at, read_percentiles
from pipeline.normalize import normalize
from pipeline.stage import Params
from pipeline.storage import Storage

if TYPE_CHECKING:
    import kenlm
    import sentencepiece

CORPUS_MODELS = "global/language-models/all"
"""Where the stage `language-models` leaves what it trained, below the corpus."""
TOKENIZER_SUFFIX = ".sp.model"
MODEL_SUFFIXES = (".arpa.bin", ".binary", ".arpa")  # in order of preference: a binary file is mapped, not parsed
CUTOFF_FILES = ("cutoffs.json", "cutoffs.csv")
_KEY = "perplexity/"


class PerplexityParams(Params):
    """Which language models score documents, and where head, middle and tail part."""

    models: str = Field(
        description="Folder or URL with `<language>.sp.model` and `<language>.arpa.bin` (or `.binary`, `.arpa`), as CCNet "
        "publishes them and `menagerie models train-lm` writes them; or `corpus`: those of the stage `language-models`."
    )
    languages: tuple[str, ...] = Field(
        default=(),
        description="Languages to score; others get no perplexity and the bucket `all`. Empty: all that the folder holds.",
    )
    cutoffs: Literal["ccnet", "models"] | dict[str, Cutoffs] = Field(
        default="models",
        description="`models`: percentiles from `cutoffs.json` or `cutoffs.csv` beside the models; `ccnet`: CCNet's own table "
        "(for its published models); or a perplexity pair [head, middle] per language.",
    )
    percentiles: Cutoffs = Field(
        default=CCNET_PERCENTILES, description="Percentiles that end head and middle; where `cutoffs` is not a mapping."
    )

    @model_validator(mode="after")
    def _agree(self) -> PerplexityParams:
        if self.models == "corpus" and not self.languages:
            raise ValueError("perplexity.languages is empty: name the languages that the stage language-models trains")
        if self.models == "corpus" and self.cutoffs == "ccnet":
            raise ValueError("perplexity.cutoffs is ccnet, which holds for CCNet's own models only: use cutoffs: models")
        if self.cutoffs == "ccnet" and self.percentiles != CCNET_PERCENTILES:
            raise ValueError(
                "perplexity.percentiles must be 30, 60 with cutoffs: ccnet; or put CCNet's cutoff.csv in the folder"
            )
        pairs = [self.percentiles, *(self.cutoffs.values() if isinstance(self.cutoffs, dict) else ())]
        for low, high in pairs:
            if not 0 < low <= high:
                raise ValueError(f"perplexity: the pair {low:g}, {high:g} does not rise; head comes first, then middle")
        return self


@dataclass(frozen=True)
class LanguageModel:
    """A SentencePiece model and the KenLM model over its pieces. Loads on first use; a binary model is mapped, not read."""

    tokenizer: Path
    model: Path

    @cached_property
    def pieces(self) -> sentencepiece.SentencePieceProcessor:
        import sentencepiece

        try:
            return sentencepiece.SentencePieceProcessor(model_file=str(self.tokenizer))
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{self.tokenizer} is not a SentencePiece model: {error}") from error

    @cached_property
    def grams(self) -> kenlm.Model:
        import kenlm

        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE
        config.load_method = kenlm.LoadMethod.LAZY
        try:
            return kenlm.Model(str(self.model), config)
        except OSError as error:
            raise ValueError(f"{self.model} is not a KenLM model: {error}") from error

    def perplexities(self, texts: Sequence[str]) -> list[float | None]:
        """CCNet's perplexity of each text, one decimal; None where nothing is left after normalisation.

        10 ** (-s / (n + 1)), s = log10 probability of the n pieces and the end of sentence, given its start.
        """
        return [_perplexity(self.grams.score(" ".join(p)), len(p)) if p else None for p in self.tokenize(texts)]

    def tokenize(self, texts: Sequence[str]) -> list[list[str]]:
        """The pieces of each text, after CCNet's normalisation."""
        # One thread: an engine runs one task per core, and KenLM, which has only one, takes the longer part anyway.
        return self.pieces.encode([normalize(t) for t in texts], out_type=str, num_threads=1)


@dataclass(frozen=True)
class PerplexityModels:
    """The models of a stage that scores, by language."""

    models: Mapping[str, LanguageModel]
    cutoffs: Mapping[str, Cutoffs] = field(default_factory=dict)

    @staticmethod
    def files(params: PerplexityParams) -> Mapping[str, str]:
        """Resource files by key, for `Stage.files`. ValueError if the folder lacks a language's model."""
        if params.models == "corpus":
            names = [f"{lang}{suffix}" for lang in params.languages for suffix in (TOKENIZER_SUFFIX, ".arpa")]
            names += [CUTOFF_FILES[0]] if params.cutoffs == "models" else []
            return {_KEY + name: f"{CORPUS_MODELS}/{name}" for name in names}
        storage = Storage(params.models)
        there = {name for name in storage.files("") if "/" not in name}
        found = [name for lang in _languages(params, there) for name in _pair(lang, there, params.models)]
        if params.cutoffs == "models":
            tables = [name for name in CUTOFF_FILES if name in there]
            if not tables:
                raise ValueError(f"{params.models} has no cutoffs.json or cutoffs.csv: add one, or set perplexity.cutoffs")
            found.append(tables[0])
        return {_KEY + name: f"{params.models.rstrip('/')}/{name}" for name in found}

    @classmethod
    def load(cls, params: PerplexityParams, files: Mapping[str, Path]) -> PerplexityModels:
        """The models among `files` (the keys of `files()`; others are left alone)."""
        mine = {key.removeprefix(_KEY): path for key, path in files.items() if key.startswith(_KEY)}
        models: dict[str, LanguageModel] = {}
        for name, tokenizer in mine.items():
            if not name.endswith(TOKENIZER_SUFFIX):
                continue
            language = name.removesuffix(TOKENIZER_SUFFIX)
            model = next(mine[language + s] for s in MODEL_SUFFIXES if language + s in mine)
            # The stage language-models leaves empty files for a language that has too little text.
            if tokenizer.stat().st_size and model.stat().st_size:
                models[language] = LanguageModel(tokenizer, model)
        if isinstance(params.cutoffs, dict):
            cutoffs = params.cutoffs
        elif params.cutoffs == "ccnet":
            cutoffs = CCNET_CUTOFFS
        else:
            path = next(mine[name] for name in CUTOFF_FILES if name in mine)
            tables = {lang: table for lang, table in read_percentiles(path).items() if lang in models}
            cutoffs = cutoffs_at(tables, params.percentiles, str(path))
        return cls(models, cutoffs)

    def score(self, texts: Sequence[str], language: str | None) -> list[float | None]:
        """The perplexity of each text; all None for a language without a model."""
        model = self.models.get(language or "")
        return model.perplexities(texts) if model else [None] * len(texts)

    def bucket(self, perplexity: float | None, language: str | None) -> str:
        """`head`, `middle`, `tail`, or `all` where there is no perplexity or no cutoff for the language."""
        return bucket(perplexity, self.cutoffs.get(language or ""))


def _perplexity(log10_score: float, pieces: int) -> float:
    # A language model that gives nothing but infinities is broken; a float must not be.
    exponent = -log10_score / (pieces + 1)
    return round(10.0**exponent, 1) if exponent < 300 else math.inf


def _languages(params: PerplexityParams, there: set[str]) -> Sequence[str]:
    if params.languages:
        return params.languages
    found = sorted(name.removesuffix(TOKENIZER_SUFFIX) for name in there if name.endswith(TOKENIZER_SUFFIX))
    if not found:
        raise ValueError(f"{params.models} holds no <language>{TOKENIZER_SUFFIX}: `menagerie models train-lm` makes one")
    return found


def _pair(language: str, there: set[str], folder: str) -> tuple[str, str]:
    model = next((language + s for s in MODEL_SUFFIXES if language + s in there), None)
    if language + TOKENIZER_SUFFIX not in there or model is None:
        raise ValueError(
            f"{folder} lacks {language}{TOKENIZER_SUFFIX} or {language}.arpa (.arpa.bin, .binary): "
            f"train them with `menagerie models train-lm`, or take {language} out of perplexity.languages"
        )
    return language + TOKENIZER_SUFFIX, model
