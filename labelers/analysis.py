"""What labelling functions do on a corpus: coverage, overlaps, conflicts. The table that Snorkel's LFAnalysis prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from labelers.statistics import VoteStatistics

if TYPE_CHECKING:
    from rich.table import Table

ANALYSIS = pa.schema(
    [
        pa.field("function", pa.string(), nullable=False),
        pa.field("polarity", pa.list_(pa.string()), nullable=False),  # classes that it ever votes for
        pa.field("votes", pa.int64(), nullable=False),
        pa.field("coverage", pa.float64(), nullable=False),
        pa.field("overlaps", pa.float64(), nullable=False),
        pa.field("conflicts", pa.float64(), nullable=False),
    ]
)
"""One row per labelling function. Coverage: share of documents on which it votes; overlaps: ... and another one votes too;
conflicts: ... and another one votes for a different class."""


def analyse(statistics: VoteStatistics) -> pa.Table:
    """`ANALYSIS` of a vote matrix's statistics. Shares of no documents are 0."""
    n = statistics.documents or 1
    counts = statistics.counts
    return pa.Table.from_arrays(
        [
            pa.array(statistics.functions, pa.string()),
            pa.array(
                [[c for c, v in zip(statistics.classes, row, strict=True) if v] for row in counts], ANALYSIS.field(1).type
            ),
            pa.array(counts.sum(axis=1), pa.int64()),
            pa.array(counts.sum(axis=1) / n, pa.float64()),
            pa.array(statistics.overlaps / n, pa.float64()),
            pa.array(statistics.conflicts / n, pa.float64()),
        ],
        schema=ANALYSIS,
    )


def label_shares(statistics: VoteStatistics) -> dict[str, float]:
    """Shares of documents with a vote (label_coverage), with two or more (label_overlap), with a conflict (label_conflict)."""
    n = statistics.documents or 1
    return {
        "label_coverage": statistics.labelled / n,
        "label_overlap": statistics.overlapping / n,
        "label_conflict": statistics.conflicting / n,
    }


def render_analysis(analysis: pa.Table, shares: dict[str, float], documents: int) -> Table:
    """The table for the terminal."""
    from rich.table import Table

    caption = ", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in shares.items())
    table = Table(box=None, header_style="bold", caption=f"{documents:,} documents: {caption}", caption_justify="left")
    table.add_column("function")
    table.add_column("polarity")
    for column in ("votes", "coverage", "overlaps", "conflicts"):
        table.add_column(column, justify="right")
    for row in analysis.to_pylist():
        shown = (f"{row[c]:.1%}" for c in ("coverage", "overlaps", "conflicts"))
        table.add_row(row["function"], ", ".join(row["polarity"]) or "[dim]none[/dim]", f"{row['votes']:,}", *shown)
    return table
