"""Where perplexity divides documents into head, middle and tail: CCNet's table, or percentiles of held-out documents."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Cutoffs = tuple[float, float]
"""Perplexities (head, middle): head is below the first, middle below the second, tail is the rest."""

CCNET_PERCENTILES = (30.0, 60.0)
CCNET_CUTOFFS: dict[str, Cutoffs] = {
    "en": (340.0, 520.0),
    "de": (370.0, 590.0),
    "fr": (180.0, 330.0),
    "es": (180.0, 290.0),
    "it": (220.0, 360.0),
}
"""Rows 30 and 60 of cc_net's `data/cutoff.csv`, for the languages of RedPajama-V2. They hold for CCNet's own models only."""

PercentileTable = Mapping[str, Mapping[float, float]]
"""Language to percentile to perplexity."""


def bucket(perplexity: float | None, cutoffs: Cutoffs | None) -> str:
    """`head`, `middle` or `tail`; `all` without a perplexity or without cutoffs (cc_net `PerplexityBucket`)."""
    if perplexity is None or cutoffs is None:
        return "all"
    if perplexity < cutoffs[0]:
        return "head"
    return "middle" if perplexity < cutoffs[1] else "tail"


def percentile_table(perplexities: Sequence[float], percentiles: Iterable[float] = ()) -> dict[float, float]:
    """Percentiles 1 to 99, and those asked for, of the perplexities, each rounded to one decimal. ValueError without any."""
    import numpy as np

    if not len(perplexities):
        raise ValueError("no held-out document has a perplexity, so there are no percentiles: give more text")
    wanted = sorted({float(p) for p in range(1, 100)} | {float(p) for p in percentiles})
    values = np.percentile(np.asarray(perplexities, np.float64), wanted)
    return {p: round(float(v), 1) for p, v in zip(wanted, values, strict=True)}


def write_percentiles(tables: PercentileTable) -> bytes:
    """The content of a `cutoffs.json`: language to percentile to perplexity."""
    told = {language: {f"{p:g}": v for p, v in sorted(table.items())} for language, table in sorted(tables.items())}
    return (json.dumps(told, indent=1) + "\n").encode()


def read_percentiles(path: Path) -> dict[str, dict[float, float]]:
    """A percentile file: `cutoffs.json` as `write_percentiles` makes it, or a `.csv` as CCNet's.

    CSV: the first column is the percentile, each other column a language. ValueError says what is wrong with the file.
    """
    content = path.read_text("utf-8")
    try:
        if path.suffix == ".json":
            read = {lang: {float(p): float(v) for p, v in table.items()} for lang, table in json.loads(content).items()}
        else:
            rows = list(csv.reader(io.StringIO(content)))
            read = {
                lang: {float(row[0]): float(row[column]) for row in rows[1:] if row and row[column].strip()}
                for column, lang in enumerate(rows[0])
                if column
            }
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a table of perplexity by percentile and language: {error}") from error
    return read


def cutoffs_at(tables: PercentileTable, percentiles: Cutoffs, what: str) -> dict[str, Cutoffs]:
    """The cutoffs of each language at two percentiles. ValueError if the table (named `what`) lacks one."""
    found: dict[str, Cutoffs] = {}
    for language, table in tables.items():
        missing = [f"{p:g}" for p in percentiles if float(p) not in table]
        if missing:
            raise ValueError(f"{what} has no percentile {', '.join(missing)} for {language}: it has {_told(table)}")
        found[language] = (table[float(percentiles[0])], table[float(percentiles[1])])
    return found


def _told(table: Mapping[float, float]) -> str:
    known = [f"{p:g}" for p in sorted(table)]
    return ", ".join(known) if len(known) <= 12 else f"{known[0]} to {known[-1]}"
