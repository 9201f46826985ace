"""What signals need besides the text: word lists, a block list of domains, importance tables, classifiers."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from quality.importance import SOURCE, ImportanceTable, ImportanceWeights, load_tables

T = TypeVar("T")

HOW_TO_GET: Mapping[str, str] = {
    "stop_words": "stop words by language (`menagerie models fetch stop-words`, then --stop-words PATH)",
    "ldnoobw": "the LDNOOBW word lists (`menagerie models fetch ldnoobw`, then --ldnoobw DIR)",
    "ut1": "the UT1 block list (`menagerie models fetch ut1`, then --ut1 FILE)",
    "importance": "importance tables (`menagerie models train-importance`, then --importance DIR)",
    "classifiers": "a quality classifier (`menagerie models train-classifier`, then --classifier NAME=FILE)",
}
"""The fields of SignalResources, and how to come by each."""


@dataclass(frozen=True)
class SignalResources:
    """Word lists and models by language (ISO 639-1, as documents have it). What is empty is not there.

    stop_words: language -> words, compared with raw words. ldnoobw: language -> entries of one or more words. ut1: domain ->
    number of its combination of categories. importance: (domain, language) -> table; the domain `ccnet` is the source, and
    `wikipedia`, `openwebtext`, `books` are targets. classifiers: signal -> model.
    """

    stop_words: Mapping[str, frozenset[str]] = field(default_factory=dict)
    ldnoobw: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ut1: Mapping[str, int] = field(default_factory=dict)
    importance: Mapping[tuple[str, str], ImportanceTable] = field(default_factory=dict)
    classifiers: Mapping[str, Any] = field(default_factory=dict)

    def once(self, key: str, compute: Callable[[], T]) -> T:
        """What `compute` returns, computed at the first call with this key: lists in the form that a signal reads."""
        prepared: dict[str, Any] = self.__dict__.setdefault("_prepared", {})
        if key not in prepared:
            prepared[key] = compute()
        return prepared[key]

    def held(self) -> Mapping[str, Collection[Any]]:
        """What there is of each resource: languages, domains, (domain, language) pairs, signals; as `serves` takes it."""
        return {name: getattr(self, name) for name in HOW_TO_GET}

    @cached_property
    def importance_weights(self) -> ImportanceWeights:
        """The log ratios between the tables, computed once."""
        return ImportanceWeights(self.importance)

    @classmethod
    def load(cls, *, classifiers: Mapping[str, Any] | None = None, **locations: Path | str | None) -> SignalResources:
        """Read what is given: stop_words, ldnoobw, ut1, importance; each a file or folder. ValueError, naming the file, if one
        is not there or is not what it should be."""
        files = resource_files({name: str(location) for name, location in locations.items() if location is not None})
        return cls.from_files({key: Path(path) for key, path in files.items()}, classifiers)

    @classmethod
    def from_files(cls, files: Mapping[str, Path], classifiers: Mapping[str, Any] | None = None) -> SignalResources:
        """The same of files by the keys of `resource_files`."""
        of: dict[str, dict[str, Path]] = {name: {} for name in HOW_TO_GET}
        for key, path in files.items():
            kind, _, name = key.partition("/")
            if kind in of:
                of[kind][name] = path
        ut1 = [load_ut1(path) for path in of["ut1"].values()]
        return cls(
            stop_words={k: frozenset(v) for k, v in load_word_lists(of["stop_words"]).items()},
            ldnoobw=load_word_lists(of["ldnoobw"]),
            ut1=ut1[0] if ut1 else {},
            importance=load_tables(of["importance"]) if of["importance"] else {},
            classifiers=dict(classifiers or {}),
        )


def serves(resource: str, held: Collection[Any], signal: str) -> bool:
    """Whether a built-in signal finds what it reads among what is held of a resource: a model of its own; a table of its target
    and one of the source in the same language; any list."""
    if resource == "classifiers":
        return signal in held
    if resource == "importance":
        sources = {language for domain, language in held if domain == SOURCE}
        return any(signal.startswith(f"rps_doc_{domain}_") and language in sources for domain, language in held)
    return bool(held)


def resource_files(locations: Mapping[str, str]) -> dict[str, str]:
    """The files of word lists and tables, by `<resource>/<file name>`: a file, or all files of a folder.

    ValueError if something is not there, or an empty folder.
    """
    found: dict[str, str] = {}
    for kind, location in locations.items():
        path = Path(location).expanduser()
        if "://" in location or path.is_file():
            found[f"{kind}/{location.rpartition('/')[2]}"] = location if "://" in location else str(path)
            continue
        files = sorted(f for f in path.iterdir() if f.is_file() and f.name[0] != ".") if path.is_dir() else []
        if not files:
            raise ValueError(f"{location} is not there, or empty: it should be {HOW_TO_GET[kind]}")
        found |= {f"{kind}/{file.name}": str(file) for file in files}
    return found


def load_word_lists(files: Mapping[str, Path]) -> dict[str, tuple[str, ...]]:
    """Words or phrases by language, in order, each once: of files `<language>.txt` (or `<language>`), one entry a line; or of
    a JSON file {"en": ["a", ...], ...}. files: by name. ValueError if they are neither, or hold nothing."""
    lists: dict[str, tuple[str, ...]] = {}
    for name, path in files.items():
        if name.endswith(".json"):
            for language, words in _json(path).items():
                if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
                    raise ValueError(f'{path}: word lists are a JSON object by language, such as {{"en": ["a", "the"]}}')
                lists[language.lower()] = _entries(words)
        elif (stem := name.removesuffix(".txt")) and len(stem) in (2, 3):
            lists[stem.lower()] = _entries(_read(path).split("\n"))
    if files and not any(lists.values()):
        first, *others = files.values()
        where = first.parent if others else first
        raise ValueError(f"{where} holds no word list: expected files <language>.txt, one entry a line, such as en.txt")
    return lists


def load_ut1(path: Path) -> dict[str, int]:
    """Domain -> number of its combination of categories, of a JSON file with `domain_to_category_id`."""
    told = _json(path).get("domain_to_category_id")
    if not isinstance(told, dict) or not all(type(number) is int for number in told.values()):
        raise ValueError(f"{path}: a block list is a JSON object whose domain_to_category_id maps domains to integers")
    return told


def _entries(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry for line in lines if (entry := line.strip())))


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{path}: a JSON object is expected, with a key per language or list")
    return told


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise ValueError(f"{path}: {(error.strerror or str(error)).lower()}") from error
