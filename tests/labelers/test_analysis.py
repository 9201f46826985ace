from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from labelers.analysis import ANALYSIS, analyse, label_shares, render_analysis
from labelers.statistics import VoteStatistics

VOTES = np.array([[0, -1, -1], [0, 1, -1], [0, 0, -1], [-1, -1, -1]], np.int8)
STATISTICS = VoteStatistics.measure(VOTES, ["f", "g", "silent"], ["x", "y"])


def test_coverage_overlaps_and_conflicts_are_shares_of_documents() -> None:
    analysis = analyse(STATISTICS)
    assert analysis.schema.equals(ANALYSIS)
    assert analysis.to_pylist() == [
        {"function": "f", "polarity": ["x"], "votes": 3, "coverage": 0.75, "overlaps": 0.5, "conflicts": 0.25},
        {"function": "g", "polarity": ["x", "y"], "votes": 2, "coverage": 0.5, "overlaps": 0.5, "conflicts": 0.25},
        {"function": "silent", "polarity": [], "votes": 0, "coverage": 0.0, "overlaps": 0.0, "conflicts": 0.0},
    ]
    assert label_shares(STATISTICS) == {"label_coverage": 0.75, "label_overlap": 0.5, "label_conflict": 0.25}


def test_no_documents_are_no_division_by_zero() -> None:
    empty = VoteStatistics.measure(np.empty((0, 1), np.int8), ["f"], ["x", "y"])
    assert analyse(empty)["coverage"].to_pylist() == [0.0]


def test_the_table_shows_every_function() -> None:
    out = io.StringIO()
    Console(file=out, width=100, color_system=None).print(render_analysis(analyse(STATISTICS), label_shares(STATISTICS), 4))
    told = out.getvalue()
    assert all(part in told for part in ("f ", "x, y", "silent", "75.0%", "4 documents", "label conflict 25.0%")), told
