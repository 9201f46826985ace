"""Text per second of paragraph deduplication and mining, on one core, beside the plain loop that CCNet's definitions spell out.

    python benchmarks/mine.py [--model lid.176.ftz] [--repeat 5] FILE.wet.gz...

Both read the same documents from memory and leave the same rows (checked before anything is timed); no language model scores.
"plain loop" hashes line by line, keeps hashes in a dictionary and asks the same language detector.
Goal: mine without a language model at 5 MB/s of text per core.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa

from pipeline import tables
from pipeline.language import MODEL_KEY, LanguageDetector, LanguageParams, load_detector
from pipeline.mine import Mine, MineParams
from pipeline.paragraphs import Paragraphs, ParagraphsParams
from pipeline.punctuation import CONTROL_CHARACTERS, PUNCTUATION
from pipeline.sources.archive import ArchiveSource
from pipeline.sources.record import Document

GOAL = 5.0
_DIGIT = re.compile(r"\d")
_DELETED = re.compile(f"[{re.escape(''.join(PUNCTUATION) + CONTROL_CHARACTERS)}]")


def plain_hashes(text: str) -> list[bytes]:
    """Eight bytes per line."""
    hashes = []
    for line in text.split("\n"):
        line = line.strip()
        if line:
            line = _DELETED.sub("", _DIGIT.sub("0", line.lower()))
        hashes.append(hashlib.sha1(line.encode()).digest()[:8])
    return hashes


def plain_paragraphs(texts: list[str]) -> dict[bytes, int]:
    """0 for a hash of one document, 1 for one of several."""
    seen: dict[bytes, int] = {}
    for text in texts:
        hashes = plain_hashes(text)
        for value, there in zip(hashes, [h in seen for h in hashes], strict=True):
            seen[value] = int(there)
    return seen


def plain_mine(texts: list[str], seen: dict[bytes, int], detector: LanguageDetector, threshold: float) -> dict[str, list[Any]]:
    """Documents by language: text, numbers of the lines kept, score."""
    documents: dict[str, list[Any]] = {}
    for text in texts:
        lines = text.split("\n")
        before: set[bytes] = set()
        kept = []
        for number, value in enumerate(plain_hashes(text)):
            if not seen[value] and value not in before:
                kept.append(number)
            before.add(value)
        left = "\n".join(lines[number] for number in kept)
        if not left:
            continue
        (language,), (score,) = detector.detect([left])
        if language is not None and score >= threshold:
            documents.setdefault(language, []).append((left, kept, float(score)))
    return documents


def read(files: list[str]) -> pa.Table:
    source = ArchiveSource("wet")
    rows = [
        {"record_id": record.record_id, "raw_content": record.text, "original_length": record.original_length}
        for file in files
        for record in source.read(file)
        if isinstance(record, Document) and len(record.text) >= 300
    ]
    columns = {name: pa.nulls(len(rows), tables.RAW.field(name).type) for name in tables.RAW.names}
    columns |= {name: pa.array([row[name] for row in rows], tables.RAW.field(name).type) for name in rows[0]}
    return pa.table(columns, schema=tables.RAW)


def timed(work: Callable[[], Any], repeat: int) -> float:
    """Median seconds of this process on its core, so that what else the machine does counts less."""
    seconds = []
    for _ in range(repeat):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return median(seconds)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("files", nargs="+")
    arguments.add_argument("--model", type=Path, help="a fastText language-id model; only Resiliparse is measured without")
    arguments.add_argument("--repeat", type=int, default=5)
    given = arguments.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)

    raw = {"raw": read(given.files)}
    texts = raw["raw"]["raw_content"].to_pylist()
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts)} documents, {size:.1f} MB of text, one core, median of {given.repeat}")
    detectors = {"resiliparse": LanguageParams(kind="resiliparse")}
    if given.model:
        detectors["fasttext"] = LanguageParams(kind="fasttext", model=str(given.model))

    group = ParagraphsParams(group_shards=1)
    paragraphs = Paragraphs(group)
    left = paragraphs.finish("web/0000", paragraphs.summarise("web/0000", raw)).files["web/0000.parquet"]
    seen = plain_paragraphs(texts)
    ours, plain = (timed(f, given.repeat) for f in (lambda: paragraphs.summarise("x", raw), lambda: plain_paragraphs(texts)))
    print(f"\n{'MB/s of text':<34}{'stage':>8}{'plain loop':>12}{'ratio':>8}")
    print(f"{'paragraphs':<34}{size / ours:>8.1f}{size / plain:>12.1f}{plain / ours:>8.2f}")
    for kind, params in detectors.items():
        stage = Mine(MineParams(paragraphs=group, language=params))
        files = {MODEL_KEY: given.model} if kind == "fasttext" else {}
        stage.setup(files)
        detector = load_detector(params, files)
        given_tables = {**raw, "duplicate_paragraphs": left}

        found = stage.run("web/0000", given_tables).tables
        rows = {
            partition.rsplit("/", 1)[1].removesuffix("_all"): list(
                zip(*(table[c].to_pylist() for c in ("raw_content", "line_ids", "language_score")), strict=True)
            )
            for (_, partition), table in found.items()
        }
        assert rows == plain_mine(texts, seen, detector, params.threshold), f"the two differ with {kind}"

        mining = timed(lambda: stage.run("web/0000", given_tables), given.repeat)  # noqa: B023 - called at once
        loop = timed(lambda: plain_mine(texts, seen, detector, params.threshold), given.repeat)  # noqa: B023
        print(f"{f'mine ({kind})':<34}{size / mining:>8.1f}{size / loop:>12.1f}{loop / mining:>8.2f}")
        both, both_plain = ours + mining, plain + loop
        print(f"{f'paragraphs + mine ({kind})':<34}{size / both:>8.1f}{size / both_plain:>12.1f}{both_plain / both:>8.2f}")
        verdict = "reached" if size / mining >= GOAL else "missed"
        print(f"  goal of {GOAL:g} MB/s for mine {verdict}")


if __name__ == "__main__":
    main()
