"""A rule: one limit on one value. A rule set: rules in order, of which the first that a document fails is its reason."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

_NAME = re.compile(r"[A-Za-z_]\w*")
_WORDS = frozenset(("ARRAY_SUM", "NULLIF", "CASE", "WHEN", "THEN", "ELSE", "END", "IS", "NOT", "NULL"))


@dataclass(frozen=True)
class Rule:
    """Drops a document whose value is below `at_least` or above `at_most`; with neither, one that has no value.

    value: a signal, or a SQL expression of signals. A document without the value passes a limit: it could not be measured.
    languages: other limits by language (ISO 639-1), for documents of these languages.
    """

    name: str
    value: str
    at_least: float | None = None
    at_most: float | None = None
    languages: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.at_least is None or self.at_most is None, f"rule {self.name}: one limit, so that the reason is one"

    @property
    def limit(self) -> float | None:
        return self.at_least if self.at_least is not None else self.at_most

    @property
    def told(self) -> str:
        """What a document must have, for a person: `rps_doc_word_count >= 50`."""
        return f"{self.value} {self.bound}"

    @property
    def bound(self) -> str:
        """The same without the value: `>= 50`, with other limits by language after it."""
        if self.limit is None:
            return "is there"
        others = "".join(f", {language} {limit:g}" for language, limit in self.languages.items())
        return f"{'>=' if self.at_least is not None else '<='} {self.limit:g}{others}"

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that the value is made of."""
        return tuple(dict.fromkeys(name for name in _NAME.findall(self.value) if name not in _WORDS))

    def drop(self) -> str:
        """The SQL condition of the documents that fail; unknown (null) where the value is."""
        if self.limit is None:
            return f"{self.value} IS NULL"
        limit = _number(self.limit)
        if self.languages:
            cases = " ".join(f"WHEN language = '{language}' THEN {_number(told)}" for language, told in self.languages.items())
            limit = f"CASE {cases} ELSE {limit} END"
        return f"{self.value} {'<' if self.at_least is not None else '>'} {limit}"


@dataclass(frozen=True)
class RuleSet:
    """Rules in order. source: who published them, and where."""

    name: str
    about: str
    source: str
    rules: tuple[Rule, ...]

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that its rules read."""
        return tuple(dict.fromkeys(signal for rule in self.rules for signal in rule.signals))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that its rules read: the signals, and `language` where limits depend on it."""
        return (*self.signals, *(("language",) if any(rule.languages for rule in self.rules) else ()))

    def reason(self, rule: Rule) -> str:
        """The reason of a document that fails a rule: `<set>_<rule>`."""
        return f"{self.name}_{rule.name}"

    def with_limits(self, limits: Mapping[str, float | Mapping[str, float]]) -> RuleSet:
        """The set with other limits: by rule a number, or numbers by language. ValueError on an unknown rule, or one
        without a limit."""
        named = {rule.name: rule for rule in self.rules}
        for name in limits:
            if name not in named:
                near = difflib.get_close_matches(name, named, 2)
                meant = f"; did you mean {' or '.join(near)}?" if near else ""
                raise ValueError(f"rule set {self.name} has no rule {name}{meant} There are: {', '.join(named)}")
            if named[name].limit is None:
                raise ValueError(f"rule {name} of {self.name} has no limit to change")
        return replace(self, rules=tuple(_limited(r, limits[r.name]) if r.name in limits else r for r in self.rules))


def _limited(rule: Rule, limit: float | Mapping[str, float]) -> Rule:
    if isinstance(limit, Mapping):
        for language in limit:
            if not re.fullmatch(r"[a-z]{2,3}", language):
                raise ValueError(f"rule {rule.name}: {language!r} is no language code such as de")
        return replace(rule, languages={**rule.languages, **limit})
    if rule.at_least is not None:
        return replace(rule, at_least=float(limit))
    return replace(rule, at_most=float(limit))


def _number(value: float) -> str:
    return repr(int(value)) if float(value).is_integer() else repr(float(value))
