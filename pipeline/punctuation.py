"""The characters that CCNet's text normalisation replaces (for perplexity) or deletes (for paragraph hashes)."""

from __future__ import annotations

PUNCTUATION: dict[str, str] = {
    "，": ",",
    "。": ".",
    "、": ",",
    "„": '"',
    "”": '"',
    "“": '"',
    "«": '"',
    "»": '"',
    "１": '"',  # as CCNet has it; never reached, because digits become 0 first
    "」": '"',
    "「": '"',
    "《": '"',
    "》": '"',
    "´": "'",
    "∶": ":",
    "：": ":",
    "？": "?",
    "！": "!",
    "（": "(",
    "）": ")",
    "；": ";",
    "–": "-",
    "—": " - ",
    "．": ". ",
    "～": "~",
    "’": "'",
    "…": "...",
    "━": "-",
    "〈": "<",
    "〉": ">",
    "【": "[",
    "】": "]",
    "％": "%",
    "►": "-",
}
"""CCNet's 34 punctuation characters and the ASCII that each becomes (source: cc_net `text_normalizer.py`)."""

CONTROL_CHARACTERS: str = "".join(map(chr, (*range(32), *range(127, 160))))
"""The characters that CCNet deletes: C0 controls (tab and newline among them), DEL and C1 controls."""
