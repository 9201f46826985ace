"""Documents judged by rule sets: the reason of each that is dropped, and counts that add up over batches and partitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import expressions
from pipeline.frames import to_polars
from quality.rules.rule import RuleSet


@dataclass
class Verdicts:
    """What rule sets say of a number of documents.

    dropped: by set, how many documents fail any rule. first, failed, only: by reason, how many documents have it as their
    reason (the first rule that fails), fail the rule at all, and fail no other rule of any set. both: by pair of sets, how
    many fail both. unmeasured: by signal, documents for which it is null.
    """

    documents: int = 0
    kept: int = 0  # by all sets
    dropped: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    only: dict[str, int] = field(default_factory=dict)
    both: dict[tuple[str, str], int] = field(default_factory=dict)
    unmeasured: dict[str, int] = field(default_factory=dict)

    def add(self, other: Verdicts) -> None:
        """Count further documents, judged by the same sets."""
        self.documents += other.documents
        self.kept += other.kept
        for name in ("dropped", "first", "failed", "only", "both", "unmeasured"):
            mine, theirs = getattr(self, name), getattr(other, name)
            for key, count in theirs.items():
                mine[key] = mine.get(key, 0) + count

    def to_json(self) -> dict[str, Any]:
        """For a receipt, or `--json`."""
        counts = {name: getattr(self, name) for name in ("dropped", "first", "failed", "only", "unmeasured")}
        both = {f"{a} & {b}": count for (a, b), count in self.both.items()}
        return {"documents": self.documents, "kept": self.kept, **counts, "both": both}


def judge(frame: pl.DataFrame, sets: Sequence[RuleSet]) -> tuple[pl.DataFrame, Verdicts]:
    """One column `rules_<set>` per set, the reason why it drops a document or null, aligned with the frame; and the counts.

    frame: the signals that the sets read as columns, and `language` where a limit depends on it. ValueError if one is missing.
    """
    for each in sets:
        missing = [column for column in each.columns if column not in frame.columns]
        if missing:
            raise ValueError(
                f"rule set {each.name} reads {', '.join(missing)}, which is not there: annotate with --rules {each.name}"
            )
    fails = {each.name: _fails(frame, each) for each in sets}
    reasons = {
        each.name: np.array([None, *(each.reason(rule) for rule in each.rules)], object)[_first(fails[each.name])]
        for each in sets
    }
    columns = {f"rules_{name}": pl.Series(told.tolist(), dtype=pl.String) for name, told in reasons.items()}
    return pl.DataFrame(columns), _count(frame, sets, fails)


def judge_table(signals: pa.Table, documents: pa.Table, sets: Sequence[RuleSet]) -> tuple[pl.DataFrame, Verdicts]:
    """`judge` of the table of signals that the sets read; `language` is taken from the documents, unknown without a column."""
    wanted = [column for column in dict.fromkeys(c for each in sets for c in each.columns) if column in signals.column_names]
    language = documents["language"] if "language" in documents.column_names else pa.nulls(documents.num_rows, pa.string())
    return judge(to_polars(signals.select(wanted).append_column("language", language)), sets)


def _fails(frame: pl.DataFrame, rules: RuleSet) -> NDArray[np.bool_]:
    """Whether each document fails each rule, bool (documents, rules)."""
    conditions = [
        expressions.condition(rule.drop(), frame, f"rule {rules.name}.{rule.name}").fill_null(False).alias(rule.name)
        for rule in rules.rules
    ]
    return frame.select(conditions).to_numpy().astype(bool, copy=False).reshape(frame.height, len(conditions))


def _first(fails: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Per document 1 + the first rule that fails, 0 if none does."""
    return np.where(fails.any(axis=1), fails.argmax(axis=1) + 1, 0)


def _count(frame: pl.DataFrame, sets: Sequence[RuleSet], fails: Mapping[str, NDArray[np.bool_]]) -> Verdicts:
    of_any = {name: matrix.any(axis=1) for name, matrix in fails.items()}
    number = sum((matrix.sum(axis=1) for matrix in fails.values()), np.zeros(frame.height, np.int64))
    told = Verdicts(frame.height, int(np.count_nonzero(number == 0)))
    for each in sets:
        matrix = fails[each.name]
        told.dropped[each.name] = int(of_any[each.name].sum())
        first = np.bincount(_first(matrix), minlength=len(each.rules) + 1)
        for column, rule in enumerate(each.rules):
            reason = each.reason(rule)
            told.first[reason] = int(first[column + 1])
            told.failed[reason] = int(matrix[:, column].sum())
            told.only[reason] = int((matrix[:, column] & (number == 1)).sum())
        told.unmeasured |= {signal: frame[signal].null_count() for signal in each.signals}
    for a, b in _pairs([each.name for each in sets]):
        told.both[a, b] = int((of_any[a] & of_any[b]).sum())
    return told


def _pairs(names: Sequence[str]) -> Iterable[tuple[str, str]]:
    return ((a, b) for i, a in enumerate(names) for b in names[i + 1 :])
