"""`menagerie tokenize`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import polars as pl

    from pipeline.shards import Manifest, Shard
    from pipeline.tokenizer import DocumentTokenizer

Texts = dict[tuple[str, str], tuple[list[str], list[str]]]  # ids and texts by component and split


@click.command()
@click.argument("inputs", metavar="IN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the shards.")
@click.option("--tokenizer", type=click.Path(path_type=Path), metavar="JSON", help="A tokenizer.json to encode with.")
@click.option("--vocab-size", type=click.IntRange(257), help="Train a byte-level BPE of that many tokens on the texts instead.")
@click.option(
    "--sample-characters",
    default=200_000_000,
    show_default=True,
    type=click.IntRange(1),
    help="Characters to train on at most.",
)
@click.option("--eos", help="The end-of-text token, if the tokenizer has it under an uncommon name.")
@click.option("--column", help="Column of the text; by default raw_content, text or content.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def tokenize(
    inputs: tuple[Path, ...], output: Path, tokenizer: Path | None, vocab_size: int | None, sample_characters: int,
    eos: str | None, column: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Token shards from Parquet or JSONL files: one shard per file, with the sidecars that other trainers read.

    Files that `menagerie mix` marked give one folder per component and split, of what is selected; others give all their
    documents. Open manifest.json with pipeline.shards.TokenShards, or name it to `menagerie train`.
    """
    import tempfile

    from pipeline.tokenizer import DocumentTokenizer, train_bpe

    if (tokenizer is None) == (vocab_size is None):
        raise click.UsageError("give either --tokenizer or --vocab-size")
    if tokenizer is not None:
        content = DocumentTokenizer(tokenizer, eos).path.read_bytes()
    else:
        content = train_bpe(_sample(inputs, column, sample_characters), vocab_size or 0, *([eos] if eos is not None else []))
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tokens.", dir=output) as scratch:  # until all of it is there
        beside = Path(scratch) / "tokenizer.json"
        _write(beside, content)
        written, dropped = _encode(inputs, column, DocumentTokenizer(beside, eos), Path(scratch))
        manifests = _publish(written, Path(scratch), output)
    _show(manifests, dropped, output, as_json)


def _read(path: Path, column: str | None) -> tuple[Texts, dict[str, int]]:
    """A file's documents, and how many it has that are not taken, by reason."""
    import polars as pl

    from pipeline.frames import TEXT_COLUMNS, read_plain

    frame = read_plain(path)
    text = column or next((name for name in TEXT_COLUMNS if name in frame.columns), None)
    if text is None or text not in frame.columns or frame.schema[text] != pl.String:
        wanted = f"no text column {column}" if column else f"none of the text columns {', '.join(TEXT_COLUMNS)}"
        raise ValueError(f"{path} has {wanted}; name one with --column: {', '.join(frame.columns)}")
    marked = {"component", "split"} <= set(frame.columns)
    if not marked:
        frame = frame.with_columns(component=pl.lit("all"), split=pl.lit("train"))
    selected = frame.filter(pl.col("component").is_not_null() & pl.col("split").is_not_null())
    kept = selected.filter(pl.col(text).is_not_null())
    dropped = {"not_selected": frame.height - selected.height, "no_text": selected.height - kept.height}
    return {key: (part["id"].to_list(), part[text].to_list()) for key, part in _parts(kept)}, dropped


def _parts(frame: pl.DataFrame) -> Iterator[tuple[tuple[str, str], pl.DataFrame]]:
    parts = frame.partition_by("component", "split", as_dict=True, maintain_order=True)
    yield from sorted(((str(key[0]), str(key[1])), part) for key, part in parts.items())


def _sample(inputs: tuple[Path, ...], column: str | None, limit: int) -> list[str]:
    """Texts of training documents with the smallest id hashes, up to a number of characters."""
    from pipeline.tables import id_int

    sample: list[tuple[int, str, str]] = []
    for path in inputs:
        documents, _ = _read(path, column)
        for (_, split), (ids, texts) in documents.items():
            if split == "train":
                sample += ((id_int(i), i, t) for i, t in zip(ids, texts, strict=True))
        sample.sort()
        kept, seen = 0, 0
        while kept < len(sample) and seen < limit:
            seen += len(sample[kept][2])
            kept += 1
        del sample[kept:]
    if not sample:
        raise ValueError(f"{', '.join(map(str, inputs))}: no document to train a tokenizer on")
    return [text for _, _, text in sample]


def _encode(
    inputs: tuple[Path, ...], column: str | None, tokenizer: DocumentTokenizer, output: Path
) -> tuple[dict[Path, Manifest], dict[str, int]]:
    """Writes the shards, then the manifests."""
    from collections import Counter

    import numpy as np
    import xxhash

    from pipeline.shards import TOKENS, Manifest, Shard, encode_shard
    from pipeline.tokenize import shard_folder

    shards: dict[tuple[str, str], list[Shard]] = {}
    dropped: Counter[str] = Counter()
    for number, path in enumerate(inputs):
        documents, lost = _read(path, column)
        dropped.update(lost)
        for (component, split), (ids, texts) in documents.items():
            shard_folder("main", component, split)  # both are names of folders
            tokens, lengths = tokenizer.encode(texts)
            files = encode_shard(tokens, np.cumsum(lengths), ids)
            stem = f"{number:05d}"
            for suffix, content in files.items():
                _write(output / component / split / (stem + suffix), content)
            digest = xxhash.xxh3_128(files[TOKENS]).hexdigest()
            shards.setdefault((component, split), []).append(Shard(stem + TOKENS, len(tokens), len(lengths), digest))
    if not shards:
        raise ValueError(f"{', '.join(map(str, inputs))}: no document is selected, so there is nothing to write")
    manifests = {}
    for (component, split), members in sorted(shards.items()):
        manifest = Manifest(
            component, split, tokenizer.dtype.name, tokenizer.vocabulary, tokenizer.eos, "../../tokenizer.json",
            tokenizer.sha256, tuple(members),
        )  # fmt: skip
        path = output / component / split / "manifest.json"
        _write(path, manifest.to_json())
        manifests[path] = manifest
    return manifests, {reason: count for reason, count in sorted(dropped.items()) if count}


def _publish(written: dict[Path, Manifest], scratch: Path, output: Path) -> dict[Path, Manifest]:
    """Move whole shards to where they belong, manifests last: no manifest ever stands beside shards that are not its own."""
    from pipeline.shards import link_for_datatrove

    for old in output.glob("*/*/manifest.json"):
        old.unlink()
    for file in sorted((f for f in scratch.rglob("*") if f.is_file()), key=lambda f: (f in written, f)):
        to = output / file.relative_to(scratch)
        to.parent.mkdir(parents=True, exist_ok=True)
        file.replace(to)
    manifests = {output / path.relative_to(scratch): manifest for path, manifest in written.items()}
    for path in manifests:
        link_for_datatrove(path)
    _sweep(output, manifests)
    return manifests


def _sweep(output: Path, manifests: dict[Path, Manifest]) -> None:
    """Delete the shards of an earlier run that this one did not write: readers that take every *.bin would take them."""
    from pipeline.shards import SUFFIXES, TOKENS

    ours = {path.parent / file for path, manifest in manifests.items() for file in manifest.files()}
    ours |= {file.with_name(file.name.removesuffix(TOKENS) + ".ds") for file in ours if file.name.endswith(TOKENS)} | set(
        manifests
    )
    shard = re.compile(r"\d{5}(" + "|".join(map(re.escape, (*SUFFIXES, ".ds"))) + ")")
    for file in output.glob("*/*/*"):
        if file not in ours and (shard.fullmatch(file.name) or file.name == "manifest.json"):
            file.unlink()


def _write(path: Path, content: bytes) -> None:
    from pipeline.storage import Storage

    Storage(str(path.parent)).write(path.name, content)


def _show(manifests: dict[Path, Manifest], dropped: dict[str, int], output: Path, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "component": m.component, "split": m.split, "documents": m.documents, "tokens": m.tokens,
            "shards": len(m.shards), "dtype": m.dtype, "manifest": str(path),
        }
        for path, m in manifests.items()
    ]  # fmt: skip
    if as_json:
        import json

        told = {"tokenizer": str(output / "tokenizer.json"), "manifests": rows, "dropped": dropped}
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in rows[0]:
        table.add_column(name, justify="right" if isinstance(rows[0][name], int) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    console = Console()
    console.print(table)
    for reason, count in dropped.items():
        console.print(f"left out: {count:,} {reason}")
