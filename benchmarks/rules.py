"""The rule sets of Gopher, C4 and FineWeb on every document: how fast, beside datatrove's filters and plain Python.

    python benchmarks/rules.py [--peer-python /venv/bin/python] [--seconds 6]

Documents: the reference pages in five languages, and those of the web crawl files ($MENAGERIE_SHARED or ../shared). One core,
processor time, all in one run: the signals of the three sets and their verdicts from raw text; datatrove's
GopherQualityFilter, GopherRepetitionFilter, C4QualityFilter and FineWebQualityFilter, each on every document, under this Python
or the one of --peer-python (`pip install datatrove spacy nltk tldextract`); and the definitions in plain Python that the tests
use. The slow ones see a part of the documents. The first call compiles or loads the kernels: that time is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")
SETS = ("gopher", "c4", "fineweb")
PEER_DOCUMENTS = 40


def rate(run: Callable[[], Any], texts: Sequence[str], seconds: float) -> dict[str, float]:
    """MB/s over several passes, and of the best; one pass before that does not count."""
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    run()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 2:
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return {
        "documents": len(texts),
        "megabytes": megabytes,
        "mean": megabytes * len(times) / sum(times),
        "best": megabytes / min(times),
    }


def ours(texts: Sequence[str], seconds: float) -> dict[str, float]:
    import pyarrow as pa

    from quality.annotate import annotate
    from quality.registry import select
    from quality.rules import judge_table, rule_sets

    ids = [str(row) for row in range(len(texts))]
    table, sets = pa.table({"id": ids, "raw_content": pa.array(texts, pa.large_string())}), rule_sets(SETS)
    signals = select([], also=[name for each in sets for name in each.signals])
    start = time.process_time()
    annotate(table.slice(0, 1), signals)
    ready = time.process_time() - start
    return {"ready": ready, **rate(lambda: judge_table(annotate(table, signals).signals, table, sets), texts, seconds)}


def twin(texts: Sequence[str]) -> dict[str, float]:
    """The plain-Python definitions."""
    from quality.signals.terminal_punctuation import TERMINAL_PUNCTUATION
    from tests.quality import rules_oracle

    def run() -> None:
        for text in texts:
            words = rules_oracle.words_of(text)
            rules_oracle.gopher(text, words, TERMINAL_PUNCTUATION)
            rules_oracle.c4(text)
            rules_oracle.fineweb(text, words, TERMINAL_PUNCTUATION)

    return rate(run, texts, 2)


def peer(texts: Sequence[str], seconds: float) -> dict[str, float]:
    """datatrove's four filters on every document, each with the text as it came."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from datatrove.utils.text import split_into_parts

    filters = [GopherQualityFilter(), GopherRepetitionFilter(), C4QualityFilter(), FineWebQualityFilter()]

    def run() -> None:
        split_into_parts.cache_clear()
        for text in texts:
            for each in filters:
                each.filter(Document(text=text, id="0"))

    return rate(run, texts, seconds)


def reference_pages(root: Path) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_table(root / "rpv2" / "documents.parquet")["raw_content"].to_pylist()


def crawl_pages(root: Path) -> list[str]:
    """The text of the web crawl's pages, as WET files have it."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    texts = []
    for path in sorted((root / "web").glob("*.warc.wet.gz")):
        with path.open("rb") as stream:
            records = ArchiveIterator(stream, record_types=WarcRecordType.conversion)
            texts += [text for record in records if (text := record.reader.read().decode()).strip()]
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--as-peer", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.as_peer:
        print(json.dumps(peer(json.load(sys.stdin), given.seconds)))
        return
    root = Path(os.environ.get("MENAGERIE_SHARED") or ROOT.parent / "shared") / "data"
    if not (root / "rpv2").is_dir():
        sys.exit(f"no reference data at {root}: set MENAGERIE_SHARED")
    for name, texts in (("reference pages", reference_pages(root)), ("web crawl", crawl_pages(root))):
        told = ours(texts, given.seconds)
        print(f"{name}: ready after {told['ready']:.1f} s of processor time")
        some = texts[:: max(1, len(texts) // PEER_DOCUMENTS)]
        rows = {"menagerie": told, "plain Python": twin(some)}
        command = [given.peer_python, __file__, "--as-peer", "--seconds", str(given.seconds)]
        done = subprocess.run(command, input=json.dumps(some), capture_output=True, text=True)
        if done.returncode == 0:
            rows["datatrove"] = json.loads(done.stdout.splitlines()[-1])
        else:
            print(f"datatrove does not run under {given.peer_python}: {(done.stderr.splitlines() or ['?'])[-1]}")
        for who, row in rows.items():
            size = f"{row['documents']:5.0f} documents {row['megabytes']:6.2f} MB"
            factors = f"{told['mean'] / row['mean']:7.1f}x {told['best'] / row['best']:7.1f}x"
            print(f"  {who:14} {size} {row['mean']:8.2f} MB/s mean {row['best']:8.2f} best {factors}")


if __name__ == "__main__":
    main()
