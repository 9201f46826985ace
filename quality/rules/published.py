"""The published rule sets, as data."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from quality.rules.rule import Rule, RuleSet

_TOP = {2: 0.20, 3: 0.18, 4: 0.16}
_REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Gopher, table A1: the largest share of characters in the commonest n-gram, and in repeated ones."""


def _grams(top: str, repeated: str) -> tuple[Rule, ...]:
    return (
        *(Rule(f"top_{n}gram", top.format(n=n), at_most=limit) for n, limit in _TOP.items()),
        *(Rule(f"dup_{n}grams", repeated.format(n=n), at_most=limit) for n, limit in _REPEATED.items()),
    )


def _lengths(words: str, mean_word: str) -> tuple[Rule, ...]:
    """Gopher's limits on the number of words and on their mean length (A.1.1)."""
    return (
        Rule("short_document", words, at_least=50),
        Rule("long_document", words, at_most=100_000),
        Rule("short_words", mean_word, at_least=3),
        Rule("long_words", mean_word, at_most=10),
    )


_OF_SIGNALS = (
    *_lengths("rps_doc_word_count", "rps_doc_mean_word_length"),
    Rule("symbols", "rps_doc_symbol_to_word_ratio", at_most=0.1),
    Rule("bullet_lines", "ARRAY_SUM(rps_lines_start_with_bulletpoint) / NULLIF(ccnet_nlines, 0)", at_most=0.9),
)
"""What those who apply Gopher's rules to RedPajama-V2's signals agree on."""
_GOPHER = RuleSet(
    "gopher",
    "Gopher's quality and repetition rules, on signals with datatrove's definitions",
    "Rae et al. 2021, A.1.1 and table A1; datatrove GopherQualityFilter, GopherRepetitionFilter",
    (
        *_lengths("gopher_word_count", "gopher_mean_word_length"),
        Rule("hash_marks", "gopher_hash_to_word_ratio", at_most=0.1),
        Rule("ellipses", "gopher_ellipsis_to_word_ratio", at_most=0.1),
        Rule("bullet_lines", "gopher_frac_lines_start_with_bullet", at_most=0.9),
        Rule("ellipsis_lines", "gopher_frac_lines_end_with_ellipsis", at_most=0.3),
        Rule("words_without_letter", "gopher_frac_words_with_letter", at_least=0.8),
        Rule("stop_words", "gopher_stop_words", at_least=2),
        Rule("dup_paragraphs", "gopher_frac_dup_paragraphs", at_most=0.3),
        Rule("dup_paragraph_characters", "gopher_frac_chars_dup_paragraphs", at_most=0.2),
        Rule("dup_lines", "gopher_frac_dup_lines", at_most=0.3),
        Rule("dup_line_characters", "gopher_frac_chars_dup_lines", at_most=0.2),
        *_grams("gopher_frac_chars_top_{n}gram", "gopher_frac_chars_dup_{n}gram"),
    ),
)
_C4 = RuleSet(
    "c4",
    "C4's rules for pages, after its rules for lines; without its list of bad words",
    "Raffel et al. 2020, 2.2; datatrove C4QualityFilter",
    (
        Rule("lorem_ipsum", "c4_lines_lorem_ipsum", at_most=0),
        Rule("curly_bracket", "c4_lines_curly_bracket", at_most=0),
        Rule("few_sentences", "c4_num_sentences", at_least=5),
    ),
)
_FINEWEB = RuleSet(
    "fineweb",
    "FineWeb's own rules, which it applies after Gopher's and C4's",
    "Penedo et al. 2024, 3.6; datatrove FineWebQualityFilter",
    (
        Rule("empty", "fineweb_frac_short_lines"),
        Rule("punctuated_lines", "fineweb_frac_lines_end_with_punctuation", at_least=0.12),
        Rule("short_lines", "fineweb_frac_short_lines", at_most=0.67),
        Rule("dup_line_characters", "fineweb_frac_chars_dup_lines", at_most=0.01),
        Rule("newlines", "fineweb_newline_to_word_ratio", at_most=0.3),
    ),
)
_REDPAJAMA = RuleSet(
    "redpajama_gopher",
    "the example of Gopher-like rules that RedPajama-V2's data card gives for its signals",
    "RedPajama-V2, data card, gopher_rules_pass",
    (
        *_OF_SIGNALS,
        Rule("top_2gram", "rps_doc_frac_chars_top_2gram", at_most=0.2),
    ),
)
_LUCIE = RuleSet(
    "lucie",
    "what Lucie takes from RedPajama-V2, duplicates apart (`exact_of`, `is_duplicate`)",
    "OpenLLM-France Lucie-Training, webdata_processing",
    (
        Rule("low_perplexity", "ccnet_perplexity", at_least=10),
        Rule("high_perplexity", "ccnet_perplexity", at_most=1000),
        Rule("unsure_language", "ccnet_language_score", at_least=0.65),
        Rule("few_sentences", "rps_doc_num_sentences", at_least=3),
        Rule("curly_bracket", "rps_doc_curly_bracket", at_most=0),
        Rule("lorem_ipsum", "rps_doc_lorem_ipsum", at_most=0),
        Rule("bad_words", "rps_doc_ldnoobw_words", at_most=0),
        *_OF_SIGNALS,
        Rule("ellipsis_lines", "rps_doc_frac_lines_end_with_ellipsis", at_most=0.3),
        Rule("words_without_letter", "rps_doc_frac_no_alph_words", at_most=0.3),
        *_grams("rps_doc_frac_chars_top_{n}gram", "rps_doc_frac_chars_dupe_{n}grams"),
        Rule("blocked_site", "CASE WHEN rps_doc_ut1_blacklist IS NULL THEN 0 ELSE 1 END", at_most=0),
    ),
)
RULE_SETS: Mapping[str, RuleSet] = {s.name: s for s in (_GOPHER, _C4, _FINEWEB, _REDPAJAMA, _LUCIE)}
"""Every published rule set, by name."""


def rule_set(name: str) -> RuleSet:
    """The rule set of a name. ValueError, with near names, if there is none."""
    if name not in RULE_SETS:
        near = difflib.get_close_matches(name, RULE_SETS, 1)
        meant = f" (is {near[0]} meant?)" if near else ""
        raise ValueError(f"no rule set is called {name}{meant}; there is {', '.join(RULE_SETS)}")
    return RULE_SETS[name]


def rule_sets(names: Iterable[str]) -> tuple[RuleSet, ...]:
    """The rule sets of these names, in order, each once."""
    return tuple(rule_set(name) for name in dict.fromkeys(names))
