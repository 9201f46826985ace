"""RedPajama-V2's published quality signals as columns: one number per document, or one list with a number per line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.sources.jsonl import Row, read_json
from pipeline.sources.lines import LineLimits
from pipeline.tables import signals_schema

SIGNALS = (
    "ccnet_bucket",
    "ccnet_language_score",
    "ccnet_length",
    "ccnet_nlines",
    "ccnet_original_length",
    "ccnet_original_nlines",
    "ccnet_perplexity",
    "rps_doc_curly_bracket",
    "rps_doc_ldnoobw_words",
    "rps_doc_lorem_ipsum",
    "rps_doc_stop_word_fraction",
    "rps_doc_ut1_blacklist",
    "rps_doc_frac_chars_dupe_10grams",
    "rps_doc_frac_chars_dupe_5grams",
    "rps_doc_frac_chars_dupe_6grams",
    "rps_doc_frac_chars_dupe_7grams",
    "rps_doc_frac_chars_dupe_8grams",
    "rps_doc_frac_chars_dupe_9grams",
    "rps_doc_frac_chars_top_2gram",
    "rps_doc_frac_chars_top_3gram",
    "rps_doc_frac_chars_top_4gram",
    "rps_doc_frac_all_caps_words",
    "rps_doc_frac_lines_end_with_ellipsis",
    "rps_doc_frac_no_alph_words",
    "rps_doc_frac_unique_words",
    "rps_doc_mean_word_length",
    "rps_doc_symbol_to_word_ratio",
    "rps_doc_unigram_entropy",
    "rps_doc_word_count",
    "rps_lines_ending_with_terminal_punctution_mark",
    "rps_lines_javascript_counts",
    "rps_lines_num_words",
    "rps_lines_numerical_chars_fraction",
    "rps_lines_start_with_bulletpoint",
    "rps_lines_uppercase_letter_fraction",
    "rps_doc_ml_palm_score",
    "rps_doc_ml_wikipedia_score",
    "rps_doc_ml_wikiref_score",
    "rps_doc_books_importance",
    "rps_doc_openwebtext_importance",
    "rps_doc_wikipedia_importance",
    "rps_doc_num_sentences",
)
"""The 42 signals of the release, in the key order of its records."""
LINE_START, LINE_END = "line_start", "line_end"
"""Columns with the span of each line, in characters of `raw_content`; the end includes the line feed."""
DUPLICATE = "is_duplicate"
"""Whether the release lists the document as an exact duplicate of an earlier one; null where the list is missing."""

_NUMERIC = {int, float, type(None)}


def published_schema() -> pa.Schema:
    """Schema of `signals` as the release has them: doubles, lists of doubles for lines, the lines' spans, `is_duplicate`."""
    spans: dict[str, pa.DataType] = {name: pa.list_(pa.int64()) for name in (LINE_START, LINE_END)}
    values = {name: pa.list_(pa.float64()) if is_of_lines(name) else pa.float64() for name in SIGNALS}
    return signals_schema({**values, **spans, DUPLICATE: pa.bool_()})


def is_of_lines(name: str) -> bool:
    """Whether a signal has a value per line rather than one."""
    return name.startswith("rps_lines_")


@dataclass
class SignalFile:
    """One signals file in memory. rows: by row of the documents file. bad: records that could not be used, by reason."""

    rows: dict[int, SignalRow] = field(default_factory=dict)
    bad: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)  # signals that the release does not have

    def count(self, reason: str) -> None:
        self.bad[reason] = self.bad.get(reason, 0) + 1


@dataclass(frozen=True, slots=True)
class SignalRow:
    """The signals of one document. url: of the document, as the signals file has it."""

    url: str | None
    values: dict[str, Any]


def read_signals(file: str, base: str, limits: LineLimits) -> SignalFile:
    """A signals file. Bad records are counted: `bad_json` and so on as `read_json` says, `bad_id`, `bad_signal`.

    ValueError if a record belongs to another documents file: then the copy does not have the published layout.
    """
    read = SignalFile()
    for row in read_json(file, base, limits):
        if not isinstance(row, Row):
            read.count(row.reason)
            continue
        number = _row_number(row, base, file)
        if number is None or number in read.rows:
            read.count("bad_id")
            continue
        try:
            values = dict(_columns(row.value.get("quality_signals"), read.unknown))
        except (TypeError, ValueError, LookupError, OverflowError):
            read.count("bad_signal")
            continue
        metadata = row.value.get("metadata")
        url = metadata.get("url") if isinstance(metadata, Mapping) else None
        read.rows[number] = SignalRow(url if isinstance(url, str) else None, values)
    return read


def _row_number(row: Row, base: str, file: str) -> int | None:
    told = row.value.get("id")
    if not isinstance(told, str):
        return None
    owner, _, number = told.rpartition("/")
    if owner != f"{base}.json.gz":
        raise ValueError(
            f"{file}, line {row.number + 1}, has signals of {told}, not of {base}.json.gz: "
            f"lay the files out as quality_signals/<snapshot>/<shard>/<language>_<bucket>.signals.json.gz"
        )
    return int(number) if number.isdecimal() and number.isascii() else None


def _columns(signals: Any, unknown: set[str]) -> Iterator[tuple[str, Any]]:
    """Columns of one record. Raises what `read_signals` counts if it is not made of [start, end, score] triples."""
    if not isinstance(signals, Mapping):
        raise TypeError("no signals")
    unknown.update(signals.keys() - set(SIGNALS))
    spans: tuple[tuple[Any, ...], tuple[Any, ...]] | None = None
    for name in SIGNALS:
        triples = signals.get(name)
        if triples is None:
            continue
        if not is_of_lines(name):
            ((_, _, score),) = triples
            yield name, _numbers((score,))[0]
            continue
        if len(triples) == 1 and triples[0][2] is None:  # a text without lines has one null for the document
            yield name, [None]
            continue
        starts, ends, scores = zip(*triples, strict=True) if triples else ((), (), ())
        if spans is None:
            spans = starts, ends
        elif spans != (starts, ends):
            raise ValueError("signals disagree where lines are")
        yield name, _numbers(scores)
    if spans is not None:
        yield LINE_START, _positions(spans[0])
        yield LINE_END, _positions(spans[1])


def _numbers(scores: tuple[Any, ...]) -> Sequence[float | None] | NDArray[np.float64]:
    """Scores as floats; an array, which is small, where none is null."""
    kinds = set(map(type, scores))
    if not kinds <= _NUMERIC:
        raise TypeError("a score is no number")
    if type(None) in kinds:
        return [None if score is None else float(score) for score in scores]
    return np.array(scores, np.float64)


def _positions(values: tuple[Any, ...]) -> NDArray[np.int64]:
    if not set(map(type, values)) <= {int, float}:
        raise TypeError("a position is no number")
    positions = np.array(values, np.float64)
    if not np.all((positions >= 0) & (positions < 1 << 53) & (positions == np.floor(positions))):
        raise ValueError("a position is no place in a text")
    return positions.astype(np.int64)


def to_table(ids: Sequence[str], rows: Sequence[SignalRow | None], duplicates: Sequence[bool | None]) -> pa.Table:
    """The table `signals` of documents; a row is null where there are no signals."""
    schema = published_schema()
    columns: list[pa.Array] = [pa.array(ids, pa.string())]
    for name in schema.names[1:-1]:
        values = [row.values.get(name) if row is not None else None for row in rows]
        columns.append(pa.array(values, schema.field(name).type))
    columns.append(pa.array(duplicates, pa.bool_()))
    return pa.Table.from_arrays(columns, schema=schema)
