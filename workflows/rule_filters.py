"""Rule sets in a mixture: `{rules: gopher}` among its filters stands for the rules of the set, each with its reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pipeline.select import Filter
from quality.annotate import AnnotateParams
from quality.registry import select, unavailable
from quality.rules import RULE_SETS, RuleSet, rule_set, rule_sets


def expand_rules(mixture: Mapping[str, Any]) -> dict[str, Any]:
    """A mix section with every `{rules: <set>, limits: {...}}` of its `select` replaced by filters; limits as `with_limits`
    takes them. The thresholds become part of the recipe, and so of the fingerprint. ValueError on an unknown set or rule."""
    told = mixture.get("select")
    if not isinstance(told, list | tuple) or not any(_is_set(item) for item in told):
        return dict(mixture)
    filters: list[Any] = []
    for item in told:
        if not _is_set(item):
            filters.append(item)
            continue
        if extra := sorted(set(item) - {"rules", "limits"}):
            raise ValueError(f"select: {{rules: {item['rules']}}} has no field {', '.join(map(str, extra))}; there is limits")
        chosen = rule_set(str(item["rules"])).with_limits(_limits(item.get("limits") or {}))
        filters += [{"name": chosen.reason(rule), "drop": rule.drop()} for rule in chosen.rules]
    return {**mixture, "select": filters}


def sets_used(filters: Sequence[Filter]) -> list[RuleSet]:
    """The rule sets that filters came from."""
    names = {each.name for each in filters}
    return [each for each in RULE_SETS.values() if names & {each.reason(rule) for rule in each.rules}]


def check_measured(filters: Sequence[Filter], measured: Collection[str]) -> None:
    """ValueError if a rule set reads signals that are not among those measured."""
    for each in sets_used(filters):
        if missing := [name for name in each.signals if name not in measured]:
            raise ValueError(
                f"mix.select uses the rules {each.name}, which read {missing[0]}, and nothing measures it: "
                f"add {each.name} to annotate.rules"
            )


def blind_rules(filters: Sequence[Filter], annotate: AnnotateParams) -> list[str]:
    """What rule sets cannot see, in filters or among those that are judged by, a line each: signals without their list."""
    told: list[str] = []
    for each in rule_sets((*annotate.rules, *(s.name for s in sets_used(filters)))):
        for line in unavailable(select(each.signals), annotate.held()).values():
            told.append(f"the rules {each.name} pass every document by what is not measured: {line}")
    return told


def _is_set(item: Any) -> bool:
    return isinstance(item, Mapping) and "rules" in item


def _limits(told: Any) -> dict[str, float | dict[str, float]]:
    wrong = not isinstance(told, Mapping)
    for limit in told.values() if not wrong else ():
        values = list(limit.values()) if isinstance(limit, Mapping) else [limit]
        wrong |= not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if wrong:
        raise ValueError(
            f"limits: {told}: give a number, or numbers by language, per rule, such as {{short_document: {{de: 40}}}}"
        )
    return {str(rule): dict(limit) if isinstance(limit, Mapping) else float(limit) for rule, limit in told.items()}
