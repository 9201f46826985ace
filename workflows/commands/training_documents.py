"""Options that say which documents a model is trained on: conditions over a corpus or a file, or files of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from quality.training_documents import Selection

corpus_option = click.option(
    "--corpus", metavar="CORPUS", help="A corpus, or a Parquet or JSONL file, whose columns conditions see."
)
language_option = click.option("--language", metavar="CODE", help="Only documents in this language, such as en.")


def selections(told: Sequence[str], corpus: str | None, language: str | None, option: str) -> list[Selection]:
    """What each value of an option selects: all documents of a file, or those of the corpus that meet a condition.

    ValueError if it is a condition and there is no corpus.
    """
    from quality.training_documents import Selection, is_file

    found = []
    for each in told:
        if is_file(each):
            found.append(Selection(each, None, language))
        elif corpus is None:
            raise ValueError(f"{option} {each}: this is no .parquet, .jsonl or .txt file; for a condition name a --corpus too")
        else:
            found.append(Selection(corpus, each, language))
    return found


def told(chosen: Sequence[Selection]) -> str:
    """All of them, for a person."""
    return "; ".join(each.told for each in chosen)
