"""Labelling functions from a language model's judgement: a prompt per document, an answer that becomes a vote."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from labelers.functions import class_index
from labelers.functions_rules import FunctionParams
from labelers.judge import Endpoint, Judge, ReplyCache, parse_answer
from labelers.votes import ABSTAIN
from pipeline import expressions
from pipeline.frames import TEXT_COLUMNS
from pipeline.models import cache_folder

_PLACE = re.compile(r"\{(\w+)\}")


class JudgeParams(FunctionParams):
    """A labelling function that asks a language model about each document.

    A document whose answer cannot be had or read abstains, and is counted with the reason; a wrong key, path or model, or no
    server at all, stops the stage. Replies are cached by what was asked, so that a second run asks nothing again.
    """

    judge: str = Field(description="Base URL of an OpenAI-compatible endpoint, such as http://localhost:8000/v1.")
    model: str = Field(description="Name of the model there.")
    prompt: str | None = Field(
        None, description="The question; `{text}` and `{column}` stand for the document's text and columns."
    )
    prompt_file: str | None = Field(None, description="The same from a file.")
    system: str | None = Field(None, description="System message.")
    answers: dict[str, str | None] = Field(
        min_length=1, description="Class that each answer stands for; none abstains. Found as a whole word, in any case."
    )
    parse: str | None = Field(
        None, description="Regular expression for where the answer stands, if the reply says more; its last match counts."
    )
    column: str | None = Field(None, description="Column with the text; `raw_content`, `text` or `content` if not given.")
    max_characters: int = Field(8000, ge=1, description="Characters of the text that the judge sees.")
    max_tokens: int = Field(64, ge=1, description="Longest reply, in tokens.")
    temperature: float = Field(0.0, ge=0, description="Sampling temperature.")
    key_variable: str | None = Field(None, description="Environment variable that holds the key.")
    cache: str | None = Field(None, description="File with the replies; `$MENAGERIE_CACHE/judges/replies.sqlite` if not given.")
    concurrency: int = Field(8, ge=1, description="Questions asked at a time by each worker.")
    timeout: float = Field(60.0, gt=0, description="Seconds to wait for a reply.")
    retries: int = Field(4, ge=0, description="Repetitions after a timeout, or when the server is too busy or fails.")
    backoff: float = Field(0.5, ge=0, description="Seconds before the first repetition; each further one waits twice as long.")

    _prompt: str | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _check(self) -> JudgeParams:
        what = f"labelling function {self.name}"
        if (self.prompt is None) == (self.prompt_file is None):
            raise ValueError(f"{what}: give either prompt or prompt_file")
        if not self.judge.startswith(("http://", "https://")):
            raise ValueError(f"{what}: judge {self.judge} is no URL: give one such as http://localhost:8000/v1")
        if self.prompt is not None and not _PLACE.search(self.prompt):
            raise ValueError(f"{what}: the prompt says nothing of the document: put {{text}} in it")
        if self.parse is not None:
            try:
                re.compile(self.parse)
            except re.error as error:
                raise ValueError(f"{what}: parse {self.parse!r} is no regular expression: {error}") from error
        if len({a.casefold() for a in self.answers}) < len(self.answers):
            raise ValueError(f"{what}: two answers differ in case only")
        return self

    def classes_named(self) -> tuple[str | None, ...]:
        return tuple(self.answers.values())

    def files(self) -> Mapping[str, str]:
        return {f"prompt:{self.prompt_file}": self.prompt_file} if self.prompt_file else {}

    def load(self, files: Mapping[str, Path]) -> JudgeParams:
        if self.prompt_file is None:
            return self
        loaded = self.model_copy()
        try:
            loaded._prompt = files[f"prompt:{self.prompt_file}"].read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"labelling function {self.name}: prompt file {self.prompt_file}: {error}") from error
        return loaded

    def vote_on(self, frame: pl.DataFrame, index: Mapping[str, int]) -> tuple[np.ndarray, Counter[str]]:
        what = f"labelling function {self.name}"
        classes = {answer: class_index(c, index, what) for answer, c in self.answers.items()}
        prompts = self.prompts(frame)
        rows = [i for i, p in enumerate(prompts) if p is not None]
        try:
            replies = self._judge().replies([p for p in prompts if p is not None])
        except (ValueError, ConnectionError) as error:
            raise ValueError(f"{what}: {error}") from error
        pattern = re.compile(self.parse) if self.parse else None
        votes, reasons = np.full(frame.height, ABSTAIN, np.int8), Counter[str]()
        for row, reply in zip(rows, replies, strict=True):
            if reply.text is None:
                reasons[reply.failure or "no reply"] += 1
                continue
            answer = parse_answer(reply.text, list(classes), pattern)
            if answer is None:
                reasons["unclear answer"] += 1
            else:
                votes[row] = classes[answer]
        return votes, reasons

    def prompts(self, frame: pl.DataFrame) -> list[str | None]:
        """The question about each document; None where the text is null. ValueError if the prompt names an unknown column."""
        what = f"labelling function {self.name}"
        template = self._prompt or self.prompt
        assert template is not None, "load reads a prompt file"
        text = self.column or next((n for n in TEXT_COLUMNS if n in frame.columns), None)
        names = set(_PLACE.findall(template))
        meant = {n: (text if n == "text" and text else n) for n in names}
        for name in meant.values():
            if name not in frame.columns:
                raise expressions.unknown_column(name, frame.columns, f"{what}: the prompt")
        prompts: list[str | None] = []
        for row in frame.select(sorted(set(meant.values()))).iter_rows(named=True):
            if text in row and row[text] is None:
                prompts.append(None)
                continue
            prompts.append(_PLACE.sub(lambda found, row=row: str(row[meant[found.group(1)]])[: self.max_characters], template))
        return prompts

    def _judge(self) -> Judge:
        key = None
        if self.key_variable is not None:
            key = os.environ.get(self.key_variable)
            if not key:
                raise ValueError(f"the environment variable {self.key_variable}, which holds the key, is not set")
        endpoint = Endpoint(
            self.judge, self.model, key, self.max_tokens, self.temperature, self.timeout, self.retries, self.backoff,
            self.concurrency,
        )  # fmt: skip
        path = Path(self.cache).expanduser() if self.cache else cache_folder() / "judges" / "replies.sqlite"
        return Judge(endpoint, ReplyCache(path), self.system)
