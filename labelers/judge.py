"""A language model as a judge: asked over any OpenAI-compatible endpoint, its replies kept by what was asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONGEST_WAIT = 60.0
"""Seconds that a Retry-After header can make us wait, at most."""
_FATAL = {401: "refuses the key", 403: "refuses the key", 404: "knows no such path or model", 405: "is no chat endpoint"}
"""Answers that no repetition mends."""


@dataclass(frozen=True)
class Reply:
    """What became of one question: the model's text, or the reason why there is none."""

    text: str | None
    failure: str | None = None


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible chat endpoint (vLLM, llama.cpp, Ollama, a hosted service) and how to ask it.

    url: base URL, such as http://localhost:8000/v1. key: bearer token, or None. timeout, backoff: seconds; the n-th repetition
    waits backoff x 2^n, or as long as the server says. retries: repetitions after a timeout, a 429 or a 5xx.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    max_tokens: int = 64
    temperature: float = 0.0
    timeout: float = 60.0
    retries: int = 4
    backoff: float = 0.5
    concurrency: int = 8

    def ask(self, prompts: Sequence[str], system: str | None = None) -> list[Reply]:
        """One reply per prompt, in order. ConnectionError if nobody listens at the URL, ValueError if the server will never
        answer (a wrong key, path or model); other failures are the reply's own."""
        import requests
        from requests.adapters import HTTPAdapter

        with requests.Session() as session, ThreadPoolExecutor(max(1, self.concurrency)) as pool:
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(pool_maxsize=max(1, self.concurrency)))
            if self.key:
                session.headers["Authorization"] = f"Bearer {self.key}"
            pending = [pool.submit(self._ask, session, self.request(p, system)) for p in prompts]
            try:
                return [p.result() for p in pending]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def request(self, prompt: str, system: str | None = None) -> dict[str, Any]:
        """The body of a question."""
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        return {
            "model": self.model,
            "messages": messages,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }

    def _ask(self, session: Any, body: Mapping[str, Any]) -> Reply:
        import requests

        failure, url = "", f"{self.url.rstrip('/')}/chat/completions"
        for attempt in range(self.retries + 1):
            wait = self.backoff * 2**attempt * random.uniform(0.75, 1.25)
            try:
                answer = session.post(url, json=body, timeout=self.timeout)
            except requests.Timeout:
                failure = "timeout"
            except requests.ConnectionError as error:
                if "refused" in str(error) or "resolve" in str(error).lower():
                    raise ConnectionError(f"nobody answers at {self.url}: is the server of {self.model} running?") from error
                failure = "connection lost"
            except requests.RequestException as error:
                raise ValueError(f"{self.url} cannot be asked: {error}") from error
            else:
                if answer.status_code in _FATAL:
                    told = f"{url} {_FATAL[answer.status_code]} (HTTP {answer.status_code}, model {self.model})"
                    raise ValueError(f"{told}: {_excerpt(answer.text)}")
                if answer.ok:
                    return _content(answer)
                failure = f"HTTP {answer.status_code}"
                if answer.status_code != 429 and answer.status_code < 500:
                    return Reply(None, failure)  # this question is at fault (too long, say)
                with contextlib.suppress(KeyError, ValueError):
                    wait = min(float(answer.headers["Retry-After"]), LONGEST_WAIT)
            if attempt < self.retries:
                time.sleep(wait)
        return Reply(None, failure)


class ReplyCache:
    """Replies by a digest of the question, in one SQLite file; several processes of a machine may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._open() as database:
                database.execute("CREATE TABLE IF NOT EXISTS replies (question TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        except sqlite3.Error as error:
            raise ValueError(f"{path} is no cache of replies ({error}): name another file, or delete it") from error

    @staticmethod
    def digest(question: Mapping[str, Any]) -> str:
        return hashlib.sha256(json.dumps(question, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def find(self, digests: Sequence[str]) -> dict[str, str]:
        """The replies that are there."""
        found: dict[str, str] = {}
        with self._open() as database:
            for start in range(0, len(digests), 500):
                piece = list(digests[start : start + 500])
                marks = ",".join("?" * len(piece))
                found |= dict(database.execute(f"SELECT question, reply FROM replies WHERE question IN ({marks})", piece))
        return found

    def keep(self, replies: Mapping[str, str]) -> None:
        with self._open() as database:
            database.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?)", replies.items())

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self.path, timeout=120)
        try:
            with database:
                yield database
        finally:
            database.close()


@dataclass(frozen=True)
class Judge:
    """Asks an endpoint about prompts, and never twice the same: replies stay in the cache, failures do not."""

    endpoint: Endpoint
    cache: ReplyCache | None = None
    system: str | None = None

    def replies(self, prompts: Sequence[str], batch: int = 256) -> list[Reply]:
        """One per prompt, in order. Equal prompts are asked once; kept every `batch`, so that a kill loses little."""
        keys = [ReplyCache.digest(self.endpoint.request(p, self.system)) for p in prompts]
        known = self.cache.find(list(dict.fromkeys(keys))) if self.cache else {}
        found = {key: Reply(text) for key, text in known.items()}
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in found}
        asked = list(missing)
        for start in range(0, len(asked), batch):
            piece = asked[start : start + batch]
            answers = dict(zip(piece, self.endpoint.ask([missing[k] for k in piece], self.system), strict=True))
            if self.cache:
                self.cache.keep({k: a.text for k, a in answers.items() if a.text is not None})
            found |= answers
        return [found[k] for k in keys]


def parse_answer(text: str, answers: Sequence[str], pattern: re.Pattern[str] | None = None) -> str | None:
    """The one of `answers` that a reply gives, in any case; None if it gives none, or several.

    pattern: where the answer stands; the first group (or the whole) of its last match must be an answer. Without a pattern, a
    reply may hold one of the answers as a whole word among others.
    """
    by_name = {a.casefold(): a for a in answers}
    if pattern is not None:
        *_, last = [None, *pattern.finditer(text)]
        if last is None:
            return None
        return by_name.get((last.group(1) if pattern.groups else last.group()).strip().casefold())
    stripped = text.strip().strip("\"'`*.!").casefold()
    if stripped in by_name:
        return by_name[stripped]
    longest = sorted(by_name, key=len, reverse=True)
    found = re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)", text.casefold())
    return by_name[found[0]] if len(set(found)) == 1 else None


def _content(answer: Any) -> Reply:
    try:
        text = answer.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return Reply(None, "reply is no chat completion")
    return Reply(text) if isinstance(text, str) and text.strip() else Reply(None, "empty reply")


def _excerpt(text: str) -> str:
    return " ".join(text.split())[:200]
