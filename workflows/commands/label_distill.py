"""`menagerie label distill` and `classify`: a classifier of the text learned from labels, on plain files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pyarrow as pa

CARD = "card.json"


@click.command()
@click.argument("documents", metavar="IN", type=click.Path(path_type=Path))
@click.option("--labels", required=True, type=click.Path(path_type=Path), help="Labels of the documents, as `menagerie label` "
              "writes them: `id`, a probability p_<class> per class, `votes`.")  # fmt: skip
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the classifier."
)
@click.option("--kind", type=click.Choice(["fasttext", "encoder"]), default="fasttext", show_default=True)
@click.option(
    "--dev", type=click.Path(path_type=Path), metavar="FILE", help="`id` and `label` of documents whose class is known."
)
@click.option("--documents", "most", default=50_000, show_default=True, type=click.IntRange(2), help="Documents to learn from.")
@click.option("--characters", default=3_000, show_default=True, type=click.IntRange(1), help="Characters read of each.")
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", help="A parameter of the classifier, such as epochs=10."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def distill(
    documents: Path, labels: Path, output: Path, kind: str, dev: Path | None, most: int, characters: int,
    options: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Train a classifier of the text of IN on soft labels, compare it with them, and write it with its card."""
    from pydantic import ValidationError

    from labelers.dev import DevSet
    from labelers.distill import encode_card
    from labelers.stages import DistillParams, PredictParams
    from labelers.stages_distill import summarise, tell, train
    from pipeline.storage import Storage
    from workflows.commands.label_votes import _option
    from workflows.section import explain

    weak, classes = read_labels(labels)
    asked = {"kind": kind, "documents": most, "characters": characters, "options": dict(_option(o) for o in options)}
    try:
        told = DistillParams.model_validate(asked)
    except ValidationError as error:
        raise ValueError(explain(error, DistillParams)) from error
    params = PredictParams.model_validate({"task": "label", "classes": classes, "distill": told})
    texts = read_documents(documents)
    if texts["id"].to_pylist() != weak["id"].to_pylist():
        raise ValueError(f"{labels} is not of the documents of {documents}: their ids, in order, must be the same")
    known = DevSet.read(dev, classes) if dev else None
    model, card = train(summarise(weak, texts, params, known), params)
    name, content = model.file()
    card |= {"characters": characters, "file": name}
    storage = Storage(str(output.absolute()))
    storage.write(name, content)
    storage.write(CARD, encode_card(card))
    click.echo(json.dumps(card) if as_json else f"{tell(card)}\n{output / name}")


@click.command()
@click.argument("documents", metavar="IN", type=click.Path(path_type=Path))
@click.option("-m", "--model", "folder", required=True, type=click.Path(path_type=Path), help="Folder that `distill` wrote.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A .parquet or .jsonl file."
)
def classify(documents: Path, folder: Path, output: Path) -> None:
    """Write `id`, `label` and a probability per class of the documents of IN, by a distilled classifier."""
    import pyarrow as pa

    from labelers.distill import load_distilled
    from labelers.stages import count_labels
    from labelers.text_sample import texts_of
    from workflows.plain_files import Sink, as_documents, check_outputs, read_batches

    check_outputs([documents], output)
    card = _card(folder)
    classes = tuple(card["classes"])
    model = load_distilled(folder / card["file"], classes)
    counts = dict.fromkeys((*classes, "none"), 0)
    with Sink(output) as sink:
        for batch in read_batches(documents):
            batch = as_documents(batch, documents)
            found = model.predict_proba(texts_of(batch["raw_content"], card["characters"]).to_pylist())
            labels = pa.array([classes[i] for i in found.argmax(axis=1).tolist()], pa.string())
            columns: dict[str, Any] = {"id": batch["id"], "label": labels}
            columns |= {f"p_{c}": pa.array(found[:, i].copy()) for i, c in enumerate(classes)}
            table = pa.table(columns)
            sink.write(table)
            for name, count in count_labels(table, classes).items():
                counts[name] += count
    click.echo(f"{output}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items() if name != "none"))


def read_documents(path: Path) -> pa.Table:
    """`id` and `raw_content` of a plain file."""
    import pyarrow as pa

    from workflows.plain_files import as_documents, read_batches

    return pa.concat_tables([as_documents(b, path).select(["id", "raw_content"]) for b in read_batches(path)])


def read_labels(path: Path) -> tuple[pa.Table, tuple[str, ...]]:
    """Labels with probabilities, and their classes. ValueError if the file has none."""
    import numpy as np
    import polars as pl

    from pipeline.frames import read_plain

    frame = read_plain(path)
    classes = tuple(c.removeprefix("p_") for c, kind in frame.schema.items() if c.startswith("p_") and kind.is_numeric())
    if len(classes) < 2 or "votes" not in frame.columns:
        raise ValueError(
            f"{path}: no probabilities p_<class> and votes of a label model; there are: {', '.join(frame.columns)}"
        )
    shares = frame.select(f"p_{c}" for c in classes).to_numpy()
    if not np.isfinite(shares).all() or (shares < 0).any() or not np.allclose(shares.sum(axis=1), 1, atol=1e-6):
        raise ValueError(f"{path}: the probabilities of a document must be numbers from 0 that sum to 1")
    kept = frame.select("id", *(pl.col(f"p_{c}").cast(pl.Float64) for c in classes), pl.col("votes").cast(pl.Int16))
    return kept.to_arrow(), classes


def _card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return card if {"classes", "file", "characters"} <= set(card) else {}["file"]
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: there is no {CARD}: name a folder that `menagerie label distill` wrote") from error
    except (ValueError, KeyError) as error:
        raise ValueError(f"{folder / CARD} is no card of a distilled classifier: {error}") from error
