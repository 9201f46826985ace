from __future__ import annotations

import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.plan import SUMMARY, MixturePlan, add_up, make_plan, render_plan, tokens_told
from pipeline.select import Component


def row(component: str | None, characters: int, **other: object) -> dict:
    told = {"component": component, "reason": None if component else "short", "split": "train" if component else None}
    told |= {
        "language": "en",
        "bucket": None,
        "documents": 1,
        "characters": characters,
        "sampled_characters": 0,
        "sampled_tokens": 0,
    }
    return told | other


def table(*rows: dict) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SUMMARY)


def plan(components: list[Component], summary: pa.Table, tokens: int | None = None, rate: float = 4.0) -> MixturePlan:
    return make_plan("m", components, tokens, rate, summary)


SIZES = st.lists(st.tuples(st.integers(4_000, 10_000_000), st.floats(0.01, 100), st.floats(0.1, 8)), min_size=1, max_size=6)


@given(SIZES)
def test_the_largest_budget_realises_the_weights_and_meets_a_cap_exactly(told: list[tuple[int, float, float]]) -> None:
    components = [Component(name=f"c{i}", weight=w, max_epochs=e) for i, (_, w, e) in enumerate(told)]
    made = plan(components, table(*(row(f"c{i}", n) for i, (n, _, _) in enumerate(told))))
    total = sum(w for _, w, _ in told)
    for c, (_, weight, cap) in zip(made.components, told, strict=True):
        assert c.weight == pytest.approx(weight / total)
        assert c.tokens_planned == pytest.approx(c.weight * made.tokens, abs=1)
        assert c.epochs <= cap
        assert c.epochs == pytest.approx(c.weight * made.tokens / c.tokens_available)
    # No larger budget would do: of some component, one token more than its cap allows.
    assert any(c.weight * (made.tokens + 1) > c.tokens_available * c.max_epochs * (1 - 1e-9) for c in made.components)


@given(SIZES)
def test_the_largest_budget_can_be_asked_for_and_more_cannot(told: list[tuple[int, float, float]]) -> None:
    components = [Component(name=f"c{i}", weight=w, max_epochs=e) for i, (_, w, e) in enumerate(told)]
    summary = table(*(row(f"c{i}", n) for i, (n, _, _) in enumerate(told)))
    largest = plan(components, summary).tokens
    if largest == 0:
        return
    assert plan(components, summary, largest).tokens == largest
    with pytest.raises(ValueError, match="epochs where max_epochs is"):
        plan(components, summary, largest + largest // 1000 + 2)


def test_repetition_beyond_the_cap_names_component_have_need_and_remedy() -> None:
    components = [Component(name="web", weight=1), Component(name="code", weight=1, max_epochs=2)]
    summary = table(row("web", 400_000), row("code", 4_000))
    with pytest.raises(ValueError) as error:
        plan(components, summary, 50_000)
    told = str(error.value)
    assert "component code has 1,000 tokens and the plan needs 25,000, which is 25.00 epochs where max_epochs is 2" in told
    assert "ask for 4,000 tokens or fewer" in told
    assert plan(components, summary, 4_000).components[1].epochs == 2.0


def test_without_weights_components_share_by_what_they_have() -> None:
    made = plan([Component(name="a"), Component(name="b")], table(row("a", 3_000), row("b", 9_000)))
    assert [(c.weight, c.epochs, c.tokens_planned) for c in made.components] == [(0.25, 1.0, 750), (0.75, 1.0, 2250)]
    assert made.tokens == 3_000 and made.capped


def test_tokens_are_measured_where_there_is_a_sample() -> None:
    summary = table(
        row("a", 1_000, language="en", sampled_characters=500, sampled_tokens=100),  # 5 characters per token
        row("a", 1_000, language="ja", sampled_characters=100, sampled_tokens=100),  # 1
        row("a", 1_000, language="fr"),  # not sampled: the component's 3
        row("b", 1_000, language="en"),  # not sampled: all samples' 3
    )
    made = plan([Component(name="a"), Component(name="b")], summary)
    assert made.measured and made.characters_per_token == 3.0
    assert [c.tokens_available for c in made.components] == [200 + 1000 + round(1000 / 3), round(1000 / 3)]
    assert list(made.components[0].languages) == ["ja", "fr", "en"]


def test_held_out_documents_are_no_training_tokens() -> None:
    made = plan([Component(name="a")], table(row("a", 4_000), row("a", 400, split="heldout"), row(None, 40)))
    (a,) = made.components
    assert (a.tokens_available, a.heldout_tokens, a.heldout_documents) == (1_000, 100, 1)
    assert made.selected == 2 and made.documents == 3
    assert made.drops["short"].tokens == 10


@pytest.mark.parametrize(
    ("summary", "told"),
    [
        (table(row("a", 10), row(None, 5)), "no document falls into component b .*dropped: short 1"),
        (table(row("a", 10), row("b", 5, split="heldout")), "every document of component b is held out"),
        (table(row("a", 10), row("b", 1)), "less than one token"),
    ],
)
def test_a_component_without_training_tokens_is_an_error(summary: pa.Table, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plan([Component(name="a", weight=1), Component(name="b", weight=1)], summary)


counts = st.builds(
    row,
    st.sampled_from(["a", "b", None]),
    st.integers(0, 10**9),
    language=st.sampled_from(["en", "de", None]),
    documents=st.integers(0, 10**6),
)


@given(st.lists(counts, min_size=1, max_size=20), st.data())
def test_summaries_add_up_in_any_grouping(rows: list[dict], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(rows)))
    shuffled = data.draw(st.permutations(rows))
    whole = add_up([table(*rows)])
    assert add_up([add_up([table(*shuffled[:cut])]), add_up([table(*shuffled[cut:])])]).equals(whole)
    assert sum(whole["documents"].to_pylist()) == sum(r["documents"] for r in rows)


def test_a_plan_survives_its_file() -> None:
    made = plan([Component(name="a", max_epochs=2.5)], table(row("a", 4_001), row(None, 40)))
    assert MixturePlan.from_json(made.to_json()) == made


def test_the_tree_tells_tokens_epochs_and_reasons() -> None:
    components = [Component(name="a", weight=3, max_epochs=2), Component(name="b", weight=1)]
    made = plan(
        components, table(row("a", 40_000), row("b", 400_000, language="de"), row("a", 400, split="heldout"), row(None, 4_000))
    )
    out = io.StringIO()
    Console(file=out, width=140, color_system=None).print(render_plan(made))
    told = out.getvalue()
    for part in (
        "26.7k tokens",
        "a 75.0%: 20k of 10k tokens, 2.00 epochs (at most 2)",
        "languages: de 100%",
        "short: 1 documents, 1k tokens",
    ):
        assert part in told, told


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1k"),
        (12_345, "12.3k"),
        (999_999, "1M"),
        (5_000 * 10**12, "5,000T"),
        (7_890_000_000, "7.89B"),
    ],
)
def test_tokens_are_told_shortly(tokens: int, told: str) -> None:
    assert tokens_told(tokens) == told
