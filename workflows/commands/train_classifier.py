"""`menagerie models train-classifier`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workflows.commands.training_documents import corpus_option, language_option, selections, told

if TYPE_CHECKING:
    from quality.classifiers import Trained


@click.command("train-classifier")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The model, such as wiki.bin."
)
@click.option("--positive", "positives", multiple=True, required=True, metavar="FILE|SQL", help="Documents to be like.")
@click.option("--negative", "negatives", multiple=True, required=True, metavar="FILE|SQL", help="Documents to differ from.")
@corpus_option
@language_option
@click.option("--name", default="positive", show_default=True, help="Label of the positive documents.")
@click.option("--samples", default=75_000, show_default=True, type=click.IntRange(10), help="Documents of each class, at most.")
@click.option("--held-out", default=0.1, show_default=True, help="Share that is not trained on, but tested.")
@click.option("--seed", default=0, show_default=True, help="Decides sample, split and order.")
@click.option("--lr", default=0.1, show_default=True, help="Learning rate.")
@click.option("--dim", default=100, show_default=True, help="Size of word vectors.")
@click.option("--epoch", default=5, show_default=True, help="Passes over the training set.")
@click.option("--word-ngrams", default=1, show_default=True, help="Longest n-gram of words.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def train_classifier(
    output: Path,
    positives: tuple[str, ...],
    negatives: tuple[str, ...],
    corpus: str | None,
    language: str | None,
    as_json: bool,
    **settings: str | float,
) -> None:
    """Train a fastText classifier that tells two kinds of documents apart, and test it on documents that it has not seen.

    FILE is a Parquet, JSONL or text file (one document a line); SQL a condition over the columns of --corpus, documents and
    signals together, such as "url LIKE '%.edu/%' AND rps_doc_word_count > 200". The defaults of fastText are what
    RedPajama-V2 trains with. A model card lies beside the model: OUTPUT.md.
    """
    from itertools import chain

    from pydantic import ValidationError

    from quality.classifiers import ClassifierParams, model_card, told_as_json, train
    from quality.training_documents import sample

    try:
        params = ClassifierParams.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from error
    kinds = [selections(positives, corpus, language, "--positive"), selections(negatives, corpus, language, "--negative")]
    found = [
        sample(chain.from_iterable(each.batches() for each in kind), params.samples, params.seed) for kind in kinds
    ]  # fmt: skip
    for kind, documents in zip(kinds, found, strict=True):
        if not documents:
            raise ValueError(f"{told(kind)}: no document with text; widen the condition")
    trained = train(found[0], found[1], output, params)
    card = model_card(trained, *(told(kind) for kind in kinds))
    output.with_name(f"{output.name}.md").write_text(card, encoding="utf-8")
    if as_json:
        click.echo(json.dumps(told_as_json(trained)))
    else:
        _show(trained)


def _show(trained: Trained) -> None:
    from rich.console import Console
    from rich.table import Table

    e, console = trained.evaluation, Console(highlight=False)
    console.print(f"{trained.path}, {trained.path.name}.md beside it", soft_wrap=True)
    console.print(f"trained on {trained.training_positives:,} positive and {trained.training_negatives:,} negative documents")
    console.print(f"held out: {e.positives:,} positive, {e.negatives:,} negative")
    console.print(f"  precision {e.precision:.3f}, recall {e.recall:.3f}, F1 {e.f1:.3f} at a score of 0.5; AUC {e.auc:.4f}")
    console.print(f"  Brier score {e.brier:.4f}, calibration error {e.calibration_error:.4f}")
    table = Table("score", box=None, header_style="bold")
    for heading in ("documents", "mean score", "share positive"):
        table.add_column(heading, justify="right")
    for number, each in enumerate(e.calibration):
        if each.documents:
            bounds = f"{number / 10:.1f}-{(number + 1) / 10:.1f}"
            table.add_row(bounds, f"{each.documents:,}", f"{each.mean_score:.3f}", f"{each.positive:.3f}")
    console.print(table)
