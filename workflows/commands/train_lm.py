"""`menagerie models train-lm`."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)


class _Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float], count: int | None = None) -> None:
        self._kind, self._count = kind, count

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self._kind(part) for part in str(value).replace(",", " ").split())
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0,0,1", param, ctx)
        if self._count is not None and len(numbers) != self._count:
            self.fail(f"{value!r} holds {len(numbers)} numbers, not {self._count}", param, ctx)
        return numbers


@click.command("train-lm")
@click.argument("inputs", nargs=-1, required=True, type=_PATH)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the models; other languages in it stay.",
)
@click.option("--language", required=True, metavar="CODE", help="Language of the text, such as en.")
@click.option("--vocabulary-size", "--vocab-size", default=65536, show_default=True, help="SentencePiece pieces.")
@click.option("--order", default=5, show_default=True, help="Words of an n-gram.")
@click.option(
    "--prune",
    type=_Numbers(int),
    default=(),
    metavar="N,N,...",
    help="Per order, leave out n-grams that occur this often or less, such as 0,0,1; the last holds for higher orders.",
)
@click.option(
    "--percentiles", type=_Numbers(float, 2), default=(30.0, 60.0), metavar="P,P", help="End of head and middle [30,60]."
)
@click.option("--held-out", default=0.1, show_default=True, help="Share of documents for the cutoffs, not trained on.")
@click.option("--tokenizer-characters", default=10_000_000, show_default=True, help="Text for the SentencePiece model.")
@click.option(
    "--documents",
    type=click.Choice(["line", "blank-line", "file"]),
    default="line",
    show_default=True,
    help="What is a document in a plain text file.",
)
@click.option("--seed", default=0, show_default=True, help="Decides what is held out.")
@click.option("--json", "as_json", is_flag=True, help="Print the model card as JSON.")
def train_lm(
    inputs: tuple[Path, ...],
    output: Path,
    language: str,
    vocabulary_size: int,
    order: int,
    prune: tuple[int, ...],
    percentiles: tuple[float, float],
    held_out: float,
    tokenizer_characters: int,
    documents: str,
    seed: int,
    as_json: bool,
) -> None:
    """Train a SentencePiece model and a Kneser-Ney n-gram model on text, for perplexity as CCNet measures it.

    INPUTS are text, JSONL or Parquet files, folders of them, or a corpus. Writes LANGUAGE.sp.model, LANGUAGE.arpa,
    LANGUAGE.card.json and cutoffs.json, which a recipe's `mine.perplexity.models` names by their folder.
    """
    from pydantic import ValidationError

    from pipeline.cutoffs import read_percentiles, write_percentiles
    from pipeline.storage import Storage
    from pipeline.train_language_model import LanguageModelParams, train_language_model, write_card
    from pipeline.training_text import TrainingText

    try:
        params = LanguageModelParams(
            vocabulary_size=vocabulary_size,
            order=order,
            prune=prune,
            percentiles=percentiles,
            held_out=held_out,
            tokenizer_characters=tokenizer_characters,
            seed=seed,
        )
    except ValidationError as error:
        first = error.errors()[0]
        given = ",".join(f"{n:g}" for n in first["input"]) if isinstance(first["input"], tuple) else first["input"]
        told = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"--{str(first['loc'][0]).replace('_', '-')} {given}: {told}") from error
    if re.fullmatch(r"[A-Za-z0-9_-]+", language) is None:
        raise ValueError(f"--language {language}: write a language code, such as en: letters, digits, - and _")
    texts = TrainingText(inputs, language, documents)  # type: ignore[arg-type] # click checked it
    texts.files()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".training.", dir=output) as scratch:
        try:
            trained = train_language_model(texts, language, Path(scratch), params)
        except ValueError as error:
            unread = ", ".join(f"{reason} {count:,}" for reason, count in sorted(texts.rejected.items()))
            raise ValueError(f"{error} (not read: {unread})" if unread else str(error)) from error
        for path in (trained.tokenizer, trained.model):  # both at the end: one without the other's is of no use
            path.replace(output / path.name)
    card = trained.card | {"unread": dict(sorted(texts.rejected.items()))}
    storage = Storage(str(output))
    storage.write(f"{language}.card.json", write_card(card))
    cutoffs = output / "cutoffs.json"
    known = read_percentiles(cutoffs) if cutoffs.exists() else {}
    storage.write("cutoffs.json", write_percentiles({**known, language: trained.percentiles}))
    if as_json:
        click.echo(json.dumps(card, indent=1, ensure_ascii=False))
    else:
        _show(card, output)


def _show(card: dict[str, Any], output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    text, tokenizer, model, held_out = card["text"], card["tokenizer"], card["model"], card["held_out"]
    table = Table(box=None, show_header=False)
    table.add_row("documents", f"{text['documents']:,} ({held_out['documents']:,} held out), {text['characters']:,} characters")
    if lost := card["unread"]:
        table.add_row("not read", ", ".join(f"{reason} {count:,}" for reason, count in lost.items()))
    if text["empty_documents"]:
        table.add_row("empty", f"{text['empty_documents']:,}")
    table.add_row("pieces", f"{tokenizer['pieces']:,} from {tokenizer['characters']:,} characters")
    table.add_row("tokens", f"{model['tokens']:,}, ends of documents included")
    for order, count in model["ngrams"].items():
        told = ", ".join(f"{d:.3f}" for d in model["discounts"][order])
        fallback = " (fallback)" if int(order) in model["fallback_discounts"] else ""
        table.add_row(f"{order}-grams", f"{count:,}, discounts {told}{fallback}")
    table.add_row("perplexity", f"{held_out['median_perplexity']:,.1f} median of {held_out['scored']:,} held-out documents")
    for (percentile, cutoff), name in zip(held_out["cutoffs"].items(), ("head", "middle"), strict=True):
        table.add_row(name, f"below {cutoff:,.1f} (percentile {percentile})")
    table.add_row("files", f"{tokenizer['file']} {tokenizer['bytes']:,} bytes, {model['file']} {model['bytes']:,} bytes")
    console = Console()
    console.print(table)
    console.print(f"folder: {output}", highlight=False, soft_wrap=True)
