"""Extraction quality and speed: `python benchmarks/extraction_quality.py FOLDER [--markdown]`.

FOLDER holds `*.warc.gz` and `truth.parquet`: per page `id`, and lists of text that an extractor must and must not keep
(`must_have`, `must_not_have`; null where nobody said). A snippet counts as kept if it is in the text, white space aside.
Recall: share of must-have snippets kept. Precision: of all snippets kept, the share that must be. F1 of the two. Speed: every
page of the folder, one process, time of the processor, decoding included, reading and gunzip not.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.extract import Extraction, Text, extract
from pipeline.sources.archive import ArchiveSource
from pipeline.sources.record import Page

METHODS = {
    "resiliparse, main content": Extraction("resiliparse", True),
    "resiliparse, plain text": Extraction("resiliparse", False),
    "trafilatura, main content": Extraction("trafilatura", True),
    "trafilatura, all text": Extraction("trafilatura", False),
}
WARM_UP = 20
"""Pages extracted before the clock runs: imports and compiled expressions."""


@dataclass
class Score:
    """Counts over all judged pages."""

    wanted: int = 0
    kept: int = 0
    unwanted: int = 0
    leaked: int = 0
    empty: int = 0

    @property
    def recall(self) -> float:
        return self.kept / self.wanted

    @property
    def absent(self) -> float:
        return 1 - self.leaked / self.unwanted

    @property
    def f1(self) -> float:
        precision = self.kept / (self.kept + self.leaked) if self.kept else 0.0
        return 2 * precision * self.recall / (precision + self.recall) if precision else 0.0


def squeeze(text: str) -> str:
    """The text with each run of white space as one space."""
    return " ".join(text.split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--markdown", action="store_true", help="Print the table as the documentation has it.")
    arguments = parser.parse_args()
    source = ArchiveSource("warc")
    pages = [p for f in sorted(arguments.folder.glob("*.warc.gz")) for p in source.read(str(f)) if isinstance(p, Page)]
    table = pq.read_table(arguments.folder / "truth.parquet", columns=["id", "must_have", "must_not_have"])
    truth = {row["id"]: row for row in table.to_pylist() if row["must_have"] is not None}
    megabytes = sum(len(p.content) for p in pages) / 1e6
    if arguments.markdown:
        print("| extraction | must-have found | must-not-have absent | F1 | pages without text | pages/s | MB/s |")
        print("|---|---|---|---|---|---|---|")
    else:
        print(f"{len(pages)} pages, {megabytes:.1f} MB; {len(truth)} of them judged")
    for name, how in METHODS.items():
        for page in pages[:WARM_UP]:
            extract(page.content, page.charset, "html", how)
        begun = time.process_time()
        answers = [extract(page.content, page.charset, "html", how) for page in pages]
        seconds = time.process_time() - begun
        score = Score()
        for page, answer in zip(pages, answers, strict=True):
            if (judged := truth.get(page.record_id)) is None:
                continue
            text = squeeze(answer.text) if isinstance(answer, Text) else ""
            score.empty += not text
            for snippet in judged["must_have"]:
                score.wanted += 1
                score.kept += squeeze(snippet) in text
            for snippet in judged["must_not_have"] or ():
                score.unwanted += 1
                score.leaked += squeeze(snippet) in text
        cells = [
            name,
            f"{100 * score.recall:.1f} %",
            f"{100 * score.absent:.1f} %",
            f"{score.f1:.3f}",
            str(score.empty),
            f"{len(pages) / seconds:.0f}",
            f"{megabytes / seconds:.1f}",
        ]
        print("| " + " | ".join(cells) + " |" if arguments.markdown else "  ".join(f"{c:>10}" for c in cells), flush=True)


if __name__ == "__main__":
    main()
