"""Rule sets: limits, reasons, overlap, and that they decide as their publishers' code does."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quality.annotate import Annotate, AnnotateParams, annotate
from quality.registry import registered, select
from quality.rules import RULE_SETS, Rule, RuleSet, Verdicts, judge, judge_table, rule_set, rule_sets


def signals_of(sets: tuple[RuleSet, ...]) -> list[str]:
    return [name for each in sets for name in each.signals]


def test_every_rule_reads_signals_that_exist() -> None:
    known = registered()
    for each in RULE_SETS.values():
        assert set(each.signals) <= set(known), each.name
        names = [rule.name for rule in each.rules]
        assert len(set(names)) == len(names) and each.about and each.source


def test_the_first_rule_that_fails_is_the_reason() -> None:
    two = RuleSet("two", "", "", (Rule("small", "a", at_least=2), Rule("large", "b", at_most=5), Rule("there", "b")))
    frame = pl.DataFrame({"a": [1.0, 2.0, 1.0, None, 3.0], "b": [6.0, 6.0, 5.0, 5.0, None]})
    reasons, told = judge(frame, [two])
    assert reasons["rules_two"].to_list() == ["two_small", "two_large", "two_small", None, "two_there"]
    assert (told.documents, told.kept, told.dropped) == (5, 1, {"two": 4})
    assert told.first == {"two_small": 2, "two_large": 1, "two_there": 1}
    assert told.failed == {"two_small": 2, "two_large": 2, "two_there": 1}
    assert told.only == {"two_small": 1, "two_large": 1, "two_there": 1}
    assert told.unmeasured == {"a": 1, "b": 1}


def test_limits_by_language() -> None:
    rules = rule_set("gopher").with_limits({"long_words": {"de": 14, "fi": 16}, "short_document": 20})
    assert rules.columns[-1] == "language" and "language" not in rule_set("gopher").columns
    long_words = next(rule for rule in rules.rules if rule.name == "long_words")
    assert long_words.told == "gopher_mean_word_length <= 10, de 14, fi 16"
    values = {name: [None] * 4 for name in rules.signals} | {"gopher_mean_word_length": [12.0] * 4}
    frame = pl.DataFrame(values | {"language": ["de", "en", None, "fi"]}, schema_overrides=dict.fromkeys(values, pl.Float64))
    assert judge(frame, [rules])[0]["rules_gopher"].to_list() == [None, "gopher_long_words", "gopher_long_words", None]


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"short_documents": 3}, "rule set gopher has no rule short_documents; did you mean short_document"),
        ({"long_words": {"German": 3}}, "'German' is no language code such as de"),
    ],
)
def test_wrong_limits_are_named(limits: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        rule_set("gopher").with_limits(limits)


def test_wrong_names_are_named() -> None:
    with pytest.raises(ValueError, match=r"no rule set is called gofer \(is gopher meant\?\); there is gopher, c4, fineweb"):
        rule_set("gofer")
    with pytest.raises(ValueError, match="rule empty of fineweb has no limit to change"):
        rule_set("fineweb").with_limits({"empty": 1})
    with pytest.raises(ValueError, match=r"rule set c4 reads c4_lines_lorem_ipsum, .* annotate with --rules c4"):
        judge(pl.DataFrame({"id": ["a"]}), [rule_set("c4")])


def test_counts_add_up_over_batches(shared: Path) -> None:
    table, sets = pq.read_table(shared / "rpv2" / "documents.parquet").slice(0, 90), rule_sets(["gopher", "c4", "fineweb"])
    signals = select([], also=signals_of(sets))
    _, whole = judge_table(annotate(table, signals).signals, table, sets)
    parts = Verdicts()
    for first in (0, 30, 60):
        part = table.slice(first, 30)
        parts.add(judge_table(annotate(part, signals).signals, part, sets)[1])
    assert parts == whole
    for each in sets:
        assert sum(whole.first[each.reason(rule)] for rule in each.rules) == whole.dropped[each.name]
    assert whole.documents == 90 and 0 < whole.kept < 90


def test_redpajamas_example_decides_as_its_code(shared: Path) -> None:
    golden = pl.read_parquet(shared / "rpv2" / "signals.parquet")
    reasons, _ = judge(golden, [rule_set("redpajama_gopher")])
    for row, reason in zip(golden.iter_rows(named=True), reasons["rules_redpajama_gopher"], strict=True):
        keeps = (
            50 <= row["rps_doc_word_count"] <= 100_000
            and 3 <= row["rps_doc_mean_word_length"] <= 10
            and row["rps_doc_symbol_to_word_ratio"] <= 0.1
            and sum(row["rps_lines_start_with_bulletpoint"]) / row["ccnet_nlines"] <= 0.9
            and row["rps_doc_frac_chars_top_2gram"] <= 0.2
        )
        assert keeps == (reason is None)


def test_lucie_s_rules_on_golden_signals(shared: Path) -> None:
    golden = pl.read_parquet(shared / "rpv2" / "signals.parquet")
    reasons, told = judge(golden, [rule_set("lucie")])
    assert told.unmeasured["ccnet_perplexity"] == golden.height
    first = reasons["rules_lucie"].to_list()
    for row, reason in zip(golden.iter_rows(named=True), first, strict=True):
        if row["ccnet_language_score"] < 0.65:
            assert reason == "lucie_unsure_language"
        elif reason is None:
            assert (
                row["rps_doc_ut1_blacklist"] is None and row["rps_doc_ldnoobw_words"] == 0 and row["rps_doc_curly_bracket"] == 0
            )
            assert row["rps_doc_frac_chars_dupe_10grams"] <= 0.1 and row["rps_doc_frac_no_alph_words"] <= 0.3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5) | st.none(), max_size=20), st.floats(-5, 5), st.booleans())
def test_a_limit_is_inclusive_and_null_passes(values: list[float | None], limit: float, least: bool) -> None:
    rule = Rule("r", "v", at_least=limit) if least else Rule("r", "v", at_most=limit)
    reasons, _ = judge(pl.DataFrame({"v": values}, schema={"v": pl.Float64}), [RuleSet("s", "", "", (rule,))])
    wanted = [v is None or (v >= limit if least else v <= limit) for v in values]
    assert [reason is None for reason in reasons["rules_s"]] == wanted


def test_the_stage_measures_what_rules_read_and_counts_verdicts() -> None:
    params = AnnotateParams.model_validate({"signals": [], "rules": ["c4"]})
    table = pa.table({"id": ["a", "b"], "raw_content": ["One. Two. Three. Four. Five of them.\n", "short"]})
    result = Annotate(params).run("p", {"documents": table})
    assert result.tables["signals"].column_names == ["id", "c4_num_sentences", "c4_lines_lorem_ipsum", "c4_lines_curly_bracket"]
    assert result.metrics["rules"]["kept"] == 1 and result.metrics["rules"]["first"]["c4_few_sentences"] == 1
    with pytest.raises(ValueError, match="no rule set is called c5"):
        AnnotateParams.model_validate({"rules": ["c5"]})
