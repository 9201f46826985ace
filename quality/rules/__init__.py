"""Published rule sets: named filters over signals, each rule with its limit, and the reason why a document is dropped."""

from quality.rules.published import RULE_SETS, rule_set, rule_sets
from quality.rules.rule import Rule, RuleSet
from quality.rules.verdicts import Verdicts, judge, judge_table

__all__ = ["RULE_SETS", "Rule", "RuleSet", "Verdicts", "judge", "judge_table", "rule_set", "rule_sets"]
