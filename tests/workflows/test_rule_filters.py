"""Rule sets in recipes: filters with the published limits, told before anything runs if nothing measures what they read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from quality.rules import rule_set
from workflows.recipe import Recipe, load_recipe
from workflows.rule_filters import blind_rules

BASE = {
    "name": "r",
    "corpus": "corpus",
    "ingest": {"snapshot": "2024-01", "source": {"kind": "jsonl", "paths": ["a.jsonl"]}},
    "mine": {"language": {"kind": "resiliparse"}},
    "annotate": {"signals": "all"},
    "deduplicate": {},
    "mix": {"components": [{"name": "all"}]},
}


PALM, WIKIPEDIA = "rps_doc_ml_palm_score", "rps_doc_ml_wikipedia_score"


def recipe(folder: Path, **changes: object) -> Recipe:
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump(BASE | changes))
    return load_recipe(path)


def mix(*select: object) -> dict[str, object]:
    return {"select": list(select), "components": [{"name": "all"}]}


def test_a_set_becomes_its_rules_in_their_place(tmp_path: Path) -> None:
    told = recipe(
        tmp_path,
        annotate={"signals": [], "rules": ["gopher"]},
        mix=mix({"name": "mine", "drop": "nlines < 2"}, {"rules": "gopher", "limits": {"short_document": {"de": 40}}}),
    )
    assert told.mix is not None
    names = [each.name for each in told.mix.select]
    assert names == ["mine", *(rule_set("gopher").reason(rule) for rule in rule_set("gopher").rules)]
    assert told.mix.select[1].drop == "gopher_word_count < CASE WHEN language = 'de' THEN 40 ELSE 50 END"
    assert "gopher" not in str(told.mix.model_dump()["components"])  # what is fingerprinted are the limits themselves


def test_sets_of_published_signals_need_no_more_than_all_signals(tmp_path: Path) -> None:
    assert recipe(tmp_path, mix=mix({"rules": "lucie"}, {"rules": "redpajama_gopher"})).mix is not None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mix": mix({"rules": "gopher"})}, r"mix.select uses the rules gopher, .* add gopher to annotate.rules"),
        (
            {"annotate": {"signals": ["ccnet_length"]}, "mix": mix({"rules": "lucie"})},
            "uses the rules lucie, which read ccnet_",
        ),
        ({"mix": mix({"rules": "gofer"})}, r"no rule set is called gofer \(is gopher meant"),
        ({"mix": mix({"rules": "lucie"}, {"rules": "lucie"})}, "two filters are called lucie_low_perplexity"),
        ({"annotate": {"rules": ["c5"]}}, "no rule set is called c5"),
        (
            {"annotate": {"signals": ["rps_doc_ldnoobw_words"]}},
            "annotate: ldnoobw is not set: .*menagerie models fetch ldnoobw",
        ),
        (
            {"annotate": {"signals": [PALM], "classifiers": {WIKIPEDIA: "model.bin"}}},
            f"annotate: {PALM} needs a quality classifier .*train-classifier",
        ),
        (
            {"annotate": {"classifiers": {"palm": "model.bin"}}},
            f"annotate: classifiers: no signal palm reads a model; there is {PALM}, {WIKIPEDIA}",
        ),
        (
            {"annotate": {"signals": ["ccnet_length"]}, "deduplicate": {"keep": "best", "signal": "rps_doc_word_count"}},
            "deduplicate.signal is rps_doc_word_count, and nothing measures it: add it to annotate.signals",
        ),
        (
            {"deduplicate": {"keep": "best", "signal": "rps_doc_ldnoobw_words"}},
            "deduplicate.signal: rps_doc_ldnoobw_words needs the LDNOOBW word lists",
        ),
        ({"mix": mix({"name": "not_sampled", "drop": "nlines < 2"})}, "this name is for documents that no component takes"),
    ],
)
def test_what_cannot_work_is_told_before_it_runs(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        recipe(tmp_path, **changes)


def test_tables_of_other_targets_or_without_a_source_are_told_before_it_runs(tmp_path: Path) -> None:
    asked = {"signals": ["rps_doc_books_importance"], "importance": str(tmp_path / "tables")}
    assert recipe(tmp_path, annotate=asked).annotate is not None  # made on the machine that runs it, perhaps
    (tmp_path / "tables").mkdir()
    for name in ("ccnet.en", "wikipedia.en", "books.de"):
        (tmp_path / "tables" / f"{name}.64.counts.npy").touch()
        with pytest.raises(ValueError, match="annotate: rps_doc_books_importance needs importance tables"):
            recipe(tmp_path, annotate=asked)
    (tmp_path / "tables" / "books.en.64.counts.npy").touch()
    assert recipe(tmp_path, annotate=asked).annotate is not None


def test_rules_that_see_nothing_are_told(tmp_path: Path) -> None:
    told = recipe(tmp_path, mix=mix({"rules": "lucie"}), annotate={"rules": ["gopher"], "ut1": "ut1.json"})
    assert told.mix is not None and told.annotate is not None
    (line,) = blind_rules(told.mix.select, told.annotate)
    assert line.startswith(
        "the rules lucie pass every document by what is not measured: rps_doc_ldnoobw_words needs the LDNOOBW"
    )


def test_the_released_recipe_selects_by_its_cards_rules() -> None:
    told = load_recipe(Path(__file__).parents[2] / "recipes" / "redpajama-v2.yaml")
    assert told.mix is not None and "redpajama_gopher_top_2gram" in [each.name for each in told.mix.select]
    assert told.annotate is not None and told.annotate.ldnoobw
