from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelers.spans import Spans
from labelers.spans_join import RELATIONS, UNIONS

DOCUMENTS, LENGTH = 3, 12
few = settings(max_examples=40, deadline=None)  # the first join compiles


@st.composite
def spans(draw: st.DrawFn) -> Spans:
    """Spans of three documents with offsets up to 12, so that equal ends, nesting and empty spans are common."""
    offset = st.integers(0, LENGTH)
    found = draw(
        st.lists(st.tuples(st.integers(0, DOCUMENTS - 1), offset, offset, st.none() | st.integers(-3, 3)), max_size=14)
    )
    rows = [(d, min(s, e), max(s, e), math.nan if x is None else x) for d, s, e, x in found]
    return Spans.of(*zip(*rows, strict=True), DOCUMENTS) if rows else Spans.of([], [], [], None, DOCUMENTS)


def rows(s: Spans) -> list[tuple]:
    return [(int(d), int(a), int(b), None if x != x else float(x)) for d, a, b, x in zip(s.document, s.start, s.end, s.score)]  # noqa: B905


def characters(s: Spans) -> set[tuple[int, int]]:
    return {(d, c) for d, a, b, _ in rows(s) for c in range(a, b)}


def relation(a: tuple, b: tuple) -> str | None:
    """Allen's relation of two spans, by its definition."""
    if a[0] != b[0] or a[1] >= a[2] or b[1] >= b[2]:
        return None
    (s1, e1), (s2, e2) = a[1:3], b[1:3]
    told = {
        "before": e1 < s2, "meets": e1 == s2, "overlaps": s1 < s2 < e1 < e2, "starts": s1 == s2 and e1 < e2,
        "during": s2 < s1 and e1 < e2, "finishes": s2 < s1 and e1 == e2, "equals": (s1, e1) == (s2, e2),
        "finished_by": s1 < s2 and e1 == e2, "contains": s1 < s2 and e2 < e1, "started_by": s1 == s2 and e2 < e1,
        "overlapped_by": s2 < s1 < e2 < e1, "met_by": s1 == e2, "after": e2 < s1,
    }  # fmt: skip
    (name,) = [name for name, holds in told.items() if holds]
    return name


@few
@given(spans(), spans(), st.sets(st.sampled_from([*RELATIONS, *UNIONS]), min_size=1))
def test_a_join_finds_the_pairs_that_looking_at_all_pairs_finds(a: Spans, b: Spans, on: set[str]) -> None:
    wanted = {r for name in on for r in UNIONS.get(name, (name,))}
    expected = [(i, j) for i, x in enumerate(rows(a)) for j, y in enumerate(rows(b)) if relation(x, y) in wanted]
    i, j = a.join(b, sorted(on))
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == expected
    assert rows(a.related(b, sorted(on))) == [x for n, x in enumerate(rows(a)) if n in {i for i, _ in expected}]


@few
@given(spans(), spans(), st.integers(1, 4), st.none() | st.integers(0, 6))
def test_before_and_after_are_bounded_by_the_gap(a: Spans, b: Spans, least: int, more: int | None) -> None:
    most = None if more is None else least + more
    for name in ("before", "after"):
        expected = [
            (i, j) for i, x in enumerate(rows(a)) for j, y in enumerate(rows(b))
            if relation(x, y) == name and least <= (y[1] - x[2] if name == "before" else x[1] - y[2]) <= (most or 99)
        ]  # fmt: skip
        assert list(zip(*(k.tolist() for k in a.join(b, name, (least, most))), strict=True)) == expected


@few
@given(spans(), spans())
def test_set_operations_are_those_on_sets_of_characters(a: Spans, b: Spans) -> None:
    lengths = np.full(DOCUMENTS, LENGTH + 2)
    whole = {(d, c) for d in range(DOCUMENTS) for c in range(LENGTH + 2)}
    assert characters(a.minus(b)) == characters(a) - characters(b)
    assert characters(a.intersect(b)) == characters(a) & characters(b)
    assert characters(a.union(b)) == characters(a) | characters(b)
    assert characters(a.complement(lengths)) == whole - characters(a)
    assert sorted(rows(a.union(b)), key=str) == sorted(rows(a) + rows(b), key=str)
    pieces = sum((relation(x, y) in UNIONS["intersects"]) for x in rows(a) for y in rows(b))
    assert len(a.intersect(b)) == pieces


@few
@given(spans(), spans())
def test_minus_keeps_each_span_apart_with_its_score(a: Spans, b: Spans) -> None:
    gone, expected = characters(b), []
    for d, s, e, x in rows(a):
        if characters(b.select(b.document == d)) >= {(d, c) for c in range(s, e)}:
            continue  # nothing is left, or it was empty
        kept = [c for c in range(s, e) if (d, c) not in gone]
        runs = [i for i, c in enumerate(kept) if i == 0 or c != kept[i - 1] + 1]
        expected += [(d, kept[i], kept[j - 1] + 1, x) for i, j in zip(runs, [*runs[1:], len(kept)], strict=True)]
    assert sorted(rows(a.minus(b)), key=str) == sorted(expected, key=str)


@few
@given(spans(), st.integers(0, 3), st.sampled_from(["max", "min", "sum", "mean", "weighted"]))
def test_coalescing_joins_what_is_close_and_reduces_the_scores(a: Spans, gap: int, how: str) -> None:
    expected: list[list] = []
    for d, s, e, x in rows(a):
        if s == e:
            continue
        if expected and expected[-1][0] == d and s <= expected[-1][2] + gap:
            expected[-1][2] = max(expected[-1][2], e)
            expected[-1][3].append((x, e - s))
        else:
            expected.append([d, s, e, [(x, e - s)]])
    found = rows(a.coalesce(gap, how))  # type: ignore[arg-type]
    assert [r[:3] for r in found] == [tuple(r[:3]) for r in expected]
    for (*_, value), (*_, parts) in zip(found, expected, strict=True):
        assert value == (None if (by_hand := reduced(parts, how)) is None else pytest.approx(by_hand))


def reduced(parts: list[tuple[float | None, int]], how: str) -> float | None:
    scored = [(x, n) for x, n in parts if x is not None]
    if not scored:
        return None
    values = [x for x, _ in scored]
    if how == "weighted":
        total = sum(n for _, n in scored)
        return sum(x * n for x, n in scored) / total if total else None
    return {"max": max, "min": min, "sum": sum, "mean": lambda v: sum(v) / len(v)}[how](values)


@few
@given(spans())
def test_documents_are_reduced_as_by_hand(a: Spans) -> None:
    lengths = np.full(DOCUMENTS, LENGTH)
    for d in range(DOCUMENTS):
        own = [r for r in rows(a) if r[0] == d]
        covered = len({c for e, c in characters(a) if e == d})
        assert a.reduce("count")[d] == len(own)
        assert a.reduce("length")[d] == covered
        assert a.reduce("coverage", lengths)[d] == pytest.approx(covered / LENGTH)
        parts = [(x, e - s) for _, s, e, x in own]
        assert a.reduce("sum")[d] == (reduced(parts, "sum") or 0)
        for how in ("max", "min", "mean", "weighted"):
            value, by_hand = a.reduce(how)[d], reduced(parts, how)
            assert math.isnan(value) if by_hand is None else value == pytest.approx(by_hand)


@few
@given(spans(), st.integers(-3, 5), st.integers(-3, 5))
def test_dilating_stays_inside_the_document(a: Spans, before: int, after: int) -> None:
    lengths = np.full(DOCUMENTS, LENGTH + 1)
    expected = [(d, max(s - before, 0), min(e + after, LENGTH + 1), x) for d, s, e, x in rows(a) if s < e]
    expected = [r for r in expected if r[1] < r[2]]
    assert sorted(rows(a.dilate(before, after, lengths)), key=str) == sorted(expected, key=str)


@few
@given(spans(), st.integers(1, 5))
def test_windows_cover_each_document_and_spans_are_cut_by_them(a: Spans, size: int) -> None:
    lengths = np.array([LENGTH, 0, LENGTH + 3])
    windows = Spans.windows(lengths, size)
    assert characters(windows) == {(d, c) for d, n in enumerate(lengths.tolist()) for c in range(n)}
    inside = a.select(a.end <= lengths[a.document])
    cut = inside.onto(windows)
    assert cut.documents == len(windows)
    back = {(int(windows.document[w]), int(windows.start[w]) + c) for w, c in characters(cut)}
    assert back == characters(inside)


@few
@given(spans())
def test_arrow_lists_of_structs_and_of_triples_are_the_same_spans(a: Spans) -> None:
    assert rows(Spans.from_arrow(a.to_arrow())) == rows(a)
    triples = [[[s, e, x] for d, s, e, x in rows(a) if d == document] for document in range(DOCUMENTS)]
    column = pa.array(triples, pa.list_(pa.list_(pa.float64())))
    assert rows(Spans.from_arrow(pa.chunked_array([column.slice(0, 1), column.slice(1)]))) == rows(a)


def test_spans_are_sorted_whatever_their_order() -> None:
    assert rows(Spans.of([1, 0, 1], [5, 2, 5], [9, 3, 7], [1, 2, 3])) == [(0, 2, 3, 2.0), (1, 5, 7, 3.0), (1, 5, 9, 1.0)]


def test_touching_spans_meet_and_share_nothing() -> None:
    a, b = Spans.of([0], [0], [5]), Spans.of([0], [5], [9])
    assert len(a.intersect(b)) == 0 and len(a.join(b, "intersects")[0]) == 0
    assert [k.tolist() for k in a.join(b, "meets")] == [[0], [0]]
    assert rows(a.union(b).coalesce()) == [(0, 0, 9, None)]


def test_joins_beyond_a_thousand_spans_lose_nothing() -> None:
    """Rekall's joins consider only pairs within 1 % of the range from 1000 intervals on."""
    n = 1500
    a = Spans.of(np.zeros(n), np.arange(n) * 10, np.arange(n) * 10 + 5)
    whole = Spans.of([0], [0], [n * 10])
    assert len(a.join(whole, "within")[0]) == n and len(whole.join(a, "contains")[0]) == n - 1
    assert len(a.minus(whole)) == 0


def test_pairs_of_many_nested_spans_all_fit() -> None:
    n = 200
    nested = Spans.of(np.zeros(n), np.arange(n), 2 * n - np.arange(n))
    assert len(nested.join(nested, "contains")[0]) == n * (n - 1) // 2


@pytest.mark.parametrize(
    ("score", "value"), [("first", 2), ("second", 5), ("sum", 7), ("product", 10), ("mean", 3.5), ("max", 5)]
)
def test_intersections_combine_scores(score: str, value: float) -> None:
    assert rows(Spans.of([0], [0], [4], [2]).intersect(Spans.of([0], [3], [9], [5]), score)) == [(0, 3, 4, value)]  # type: ignore[arg-type]


def test_votes_come_from_thresholds_and_abstain_without_a_value() -> None:
    a = Spans.of([0, 0, 2], [0, 2, 0], [4, 6, 1], [0.9, 0.2, 0.1], 4)
    lengths = [10, 10, 10, 0]
    assert a.to_votes(1, 0, lengths=lengths, min=0.5).tolist() == [1, 0, 0, -1]
    assert a.to_votes(1, how="max", max=0.5).tolist() == [-1, -1, 1, -1]
    assert a.to_votes(1, 0, how="weighted", min=0.5, max=1).tolist() == [1, -1, 0, -1]


def test_matches_of_a_pattern_are_spans_of_characters() -> None:
    found = Spans.from_matches(["é aa", None, "aaa"], re.compile("aa"))
    assert rows(found) == [(0, 2, 4, 1.0), (2, 0, 2, 1.0)] and found.documents == 3


def test_line_signals_of_real_documents_are_spans(shared: Path) -> None:
    signals = pq.read_table(shared / "rpv2" / "signals.parquet")
    text = pq.read_table(shared / "rpv2" / "documents.parquet", columns=["raw_content"])["raw_content"].to_pylist()
    name = "rps_lines_ending_with_terminal_punctution_mark"
    found = Spans.from_lines(signals["line_start"], signals["line_end"], signals[name])
    lengths = [len(t) for t in text]
    assert (found.reduce("coverage", lengths) == 1).all()  # lines cover each document
    for d, s, e, x in rows(found)[:: max(1, len(found) // 500)]:
        assert x == float(text[d][s:e].rstrip().endswith((".", "!", "?", "”")))


def test_a_document_level_null_beside_no_lines_is_no_span(shared: Path) -> None:
    signals = pq.read_table(shared / "rpv2" / "edge" / "signals.parquet")
    found = Spans.from_lines(signals["line_start"], signals["line_end"], signals["rps_lines_start_with_bulletpoint"])
    assert found.documents == len(signals) and found.reduce("count").min() == 0


def test_no_spans_and_no_documents_are_fine() -> None:
    none = Spans.of([], [], [])
    assert none.documents == 0 and len(none.join(none)[0]) == 0 and len(none.reduce("coverage", [])) == 0
    few = Spans.of([], [], [], None, 2)
    assert few.reduce("coverage", [3, 0]).tolist()[0] == 0 and len(few.minus(few)) == len(few.coalesce()) == 0
    assert rows(few.complement([3, 0])) == [(0, 0, 3, None)]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Spans.of([0], [5], [3]), r"span 0 has an end before its start: document 0, \[5, 3\)"),
        (lambda: Spans.of([0], [-1], [3]), "start below 0"),
        (lambda: Spans.of([2], [0], [3], None, 2), "document beyond the 2 there are"),
        (lambda: Spans.of([0], [0.5], [3]), "start is no whole number"),
        (lambda: Spans.of([0], [0, 1], [3]), "1 documents, 2 starts and 1 ends"),
        (lambda: Spans.of([0], [0], [3], [1, 2]), "1 starts and 2 scores"),
        (lambda: Spans.of([0], [0], [3]).reduce("coverage", [2]), "document 0 has length 2, and spans that cover 3"),
        (lambda: Spans.of([0], [0], [3]).reduce("coverage"), "needs the documents' lengths"),
        (lambda: Spans.of([0], [0], [3]).complement([2, 3]), "there are 1 documents, and 2 lengths"),
        (lambda: Spans.of([0], [0], [3]).join(Spans.of([1], [0], [3])), "spans of 1 documents and of 2"),
        (lambda: Spans.of([0], [0], [3]).join(Spans.of([0], [0], [3]), "near"), "no relation 'near' of spans; there are"),
        (lambda: Spans.of([0], [0], [3]).join(Spans.of([0], [0], [3]), "meets", (1, 2)), "within bounds the gap of before"),
        (lambda: Spans.of([0], [0], [3]).coalesce(-1), "gap -1 is below 0"),
        (lambda: Spans.of([0], [0], [3]).to_votes(1), "give min or max"),
        (lambda: Spans.from_arrow(pa.array([1.0])), r"give a list of \[start, end, score\] per document"),
        (lambda: Spans.from_arrow(pa.array([[[1.0, 2.0]]])), "some have not three entries"),
    ],
)  # fmt: skip
def test_what_is_no_span_is_told(make, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (lambda s: s.to_votes(200, how="count", min=1), "200 is no vote"),
        (lambda s: s.to_votes(0, -3, how="count", min=1), "-3 is no vote"),
        (lambda s: s.to_votes(0, how="count", min=5, max=1), "no value lies between"),
        (lambda s: s.to_votes(0, how="count", min=np.nan), "no value lies between"),
        (lambda s: s.dilate(np.nan, 1), "whole number of characters"),
        (lambda s: s.dilate(1, 0.5), "whole number of characters"),
        (lambda s: s.windows([4, -5], 2), "document 1 has a length below 0"),
        (lambda s: s.select([True]), "mask has shape"),
        (lambda s: s.join(s, []), "at least one relation"),
    ],
)
def test_what_would_lose_spans_or_votes_is_told(work: Callable, told: str) -> None:
    spans = Spans.of([0, 0], [0, 20], [10, 30], 1.0)
    with pytest.raises(ValueError, match=told):
        work(spans)


def test_plain_lists_are_read() -> None:
    assert Spans.from_arrow([[[0, 10, 1.0]], []]).reduce("count").tolist() == [1, 0]
