"""The signals of Gopher, C4 and FineWeb in plain Python, from their definitions: what the kernels must equal."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import regex

from pipeline.punctuation import PUNCTUATION

RAW_WORD = regex.compile(r"\w+|[^\w\s]+")
SENTENCE = re.compile(r"\b[^.!?]+[.!?]*")
CONTROLS = "".join(map(chr, (*range(9), 11, 12, *range(13, 32), *range(127, 160))))
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")

Values = dict[str, float | None]


def words_of(text: str) -> list[str]:
    return RAW_WORD.findall(text)


def repeats(items: Sequence[str]) -> tuple[int, int]:
    """How many items are copies of an earlier one, and their characters."""
    seen: set[str] = set()
    copies = [item for item in items if item in seen or seen.add(item)]
    return len(copies), sum(map(len, copies))


def share(part: float, whole: float) -> float | None:
    return round(part / whole, 8) if whole else None


def gopher(text: str, words: Sequence[str], terminals: str, stop_words: Sequence[str] | None = STOP_WORDS) -> Values:
    punctuation = {*string.punctuation, *PUNCTUATION, *CONTROLS, *terminals}
    proper = [w for w in words if set(w) - punctuation]
    lines = text.splitlines()
    values: Values = {
        "gopher_word_count": float(len(proper)),
        "gopher_mean_word_length": share(sum(map(len, proper)), len(proper)),
        "gopher_hash_to_word_ratio": share(text.count("#"), len(words)),
        "gopher_ellipsis_to_word_ratio": share(text.count("...") + text.count("…"), len(words)),
        "gopher_frac_lines_start_with_bullet": share(sum(x.lstrip().startswith(("•", "-")) for x in lines), len(lines)),
        "gopher_frac_lines_end_with_ellipsis": share(sum(x.rstrip().endswith(("...", "…")) for x in lines), len(lines)),
        "gopher_frac_words_with_letter": share(sum(any(map(str.isalpha, w)) for w in words), len(words)),
        "gopher_stop_words": float(len(set(words) & set(stop_words))) if stop_words else None,
    }
    for kind, items in (("paragraphs", re.split(r"\n{2,}", text.strip())), ("lines", re.split(r"\n+", text))):
        number, characters = repeats(items)
        values[f"gopher_frac_dup_{kind}"] = share(number, len(items))
        values[f"gopher_frac_chars_dup_{kind}"] = share(characters, len(text))
    for n in (2, 3, 4):
        grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
        top, count = grams.most_common(1)[0] if grams else ("", 0)
        values[f"gopher_frac_chars_top_{n}gram"] = share(len(top) * count, len(text))
    for n in range(5, 11):
        seen, i, characters = set(), 0, 0
        while i + n <= len(words):
            gram = "".join(words[i : i + n])
            if gram in seen:
                characters += len(gram)
                i += n
            else:
                seen.add(gram)
                i += 1
        values[f"gopher_frac_chars_dup_{n}gram"] = share(characters, len(text))
    return values


def c4(text: str) -> Values:
    names = "long_word no_terminal_punctuation few_words lorem_ipsum javascript curly_bracket policy"
    found = dict.fromkeys(names.split(), 0)
    sentences = kept = 0
    lines = text.splitlines()
    for line in lines:
        line = line.strip()
        words = line.split()
        line = re.sub(r"\[\d*]|\[edit]|\[citation needed]", "", line)
        lower = line.lower()
        if any(len(w) > 1000 for w in words):
            found["long_word"] += 1
        elif not line.endswith((".", "?", "!", '"', "'")) or line.endswith("..."):
            found["no_terminal_punctuation"] += 1
        elif len(words) < 3:
            found["few_words"] += 1
        elif "lorem ipsum" in lower:
            found["lorem_ipsum"] += 1
        elif "javascript" in lower:
            found["javascript"] += 1
        elif "{" in line:
            found["curly_bracket"] += 1
        elif any(p in lower for p in POLICIES):
            found["policy"] += 1
        else:
            kept += 1
            sentences += len(SENTENCE.findall(line))
    values: Values = {f"c4_lines_{reason}": float(count) for reason, count in found.items()}
    return {"c4_num_sentences": float(sentences), "c4_frac_lines_kept": share(kept, len(lines)), **values}


def fineweb(text: str, words: Sequence[str], terminals: str) -> Values:
    lines = [line for line in text.split("\n") if line.strip()]
    return {
        "fineweb_frac_lines_end_with_punctuation": share(sum(x.endswith(tuple(terminals)) for x in lines), len(lines)),
        "fineweb_frac_short_lines": share(sum(len(x) <= 30 for x in lines), len(lines)),
        "fineweb_frac_chars_dup_lines": share(repeats(lines)[1], len(text.replace("\n", ""))) if lines else None,
        "fineweb_newline_to_word_ratio": share(text.count("\n"), len(words)),
    }
