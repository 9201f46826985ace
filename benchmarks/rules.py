"""The rule sets of Gopher, C4 and FineWeb on every document: how fast, beside datatrove's filters and plain Python.

    python benchmarks/rules.py [documents.parquet] [--peer-python /venv/bin/python] [--seconds 8]

One core each, processor time, in one run: all signals of the three sets and their verdicts, from raw text; datatrove's
GopherQualityFilter, GopherRepetitionFilter, C4QualityFilter and FineWebQualityFilter, each on every document, under this Python
or the one of --peer-python (`pip install datatrove spacy nltk tldextract`); and the definitions in plain Python that the tests
use. The first call compiles or loads the kernels: that time is told apart.
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
sys.path[:1] = [str(ROOT)]
SETS = ("gopher", "c4", "fineweb")


def rate(run: Callable[[], Any], megabytes: float, seconds: float) -> dict[str, float]:
    """MB/s over several passes, and of the best; one pass before that does not count."""
    run()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 2:
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return {"mean": megabytes * len(times) / sum(times), "best": megabytes / min(times)}


def ours(path: Path, seconds: float) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from quality.annotate import annotate
    from quality.registry import select
    from quality.rules import judge_table, rule_sets

    table, sets = pq.read_table(path), rule_sets(SETS)
    signals = select([], also=[name for each in sets for name in each.signals])
    megabytes = sum(len(text.encode()) for text in table["raw_content"].to_pylist()) / 1e6
    start = time.process_time()
    annotate(table.slice(0, 1), signals)
    ready = time.process_time() - start

    def run() -> None:
        judge_table(annotate(table, signals).signals, table, sets)

    told = rate(run, megabytes, seconds)
    return {"documents": table.num_rows, "megabytes": megabytes, "ready": ready, **told}


def twin(path: Path, documents: int) -> dict[str, float]:
    """The plain-Python definitions, on the first documents."""
    import pyarrow.parquet as pq

    from quality.signals.terminal_punctuation import TERMINAL_PUNCTUATION
    from tests.quality import rules_oracle

    texts = pq.read_table(path)["raw_content"].slice(0, documents).to_pylist()

    def run() -> None:
        for text in texts:
            words = rules_oracle.words_of(text)
            rules_oracle.gopher(text, words, TERMINAL_PUNCTUATION)
            rules_oracle.c4(text)
            rules_oracle.fineweb(text, words, TERMINAL_PUNCTUATION)

    return rate(run, sum(len(text.encode()) for text in texts) / 1e6, 2)


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

    return rate(run, sum(len(text.encode()) for text in texts) / 1e6, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("MENAGERIE_SHARED") or ROOT / "shared")
    parser.add_argument("path", nargs="?", type=Path, default=shared / "data" / "rpv2" / "documents.parquet")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--peer-documents", type=int, default=40, help="documents for the slow ones, spread over the file")
    parser.add_argument("--as-peer", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.path.is_file():
        sys.exit(f"{given.path}: name a Parquet file with a column raw_content")
    if given.as_peer:
        print(json.dumps(peer(json.load(sys.stdin), given.seconds)))
        return
    told = ours(given.path, given.seconds)
    print(f"{told['documents']} documents, {told['megabytes']:.2f} MB; ready after {told['ready']:.1f} s of processor time")
    rows = {"menagerie": told, "plain Python, first documents": twin(given.path, given.peer_documents)}
    import pyarrow.parquet as pq

    texts = pq.read_table(given.path)["raw_content"].to_pylist()
    texts = texts[:: max(1, len(texts) // given.peer_documents)]
    command = [given.peer_python, __file__, str(given.path), "--as-peer", "--seconds", str(given.seconds)]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True)
    if done.returncode == 0:
        rows[f"datatrove, {len(texts)} documents"] = json.loads(done.stdout.splitlines()[-1])
    else:
        print(f"datatrove does not run under {given.peer_python}: {(done.stderr.splitlines() or ['?'])[-1]}")
    for name, row in rows.items():
        factors = f"{told['mean'] / row['mean']:8.1f}x {told['best'] / row['best']:8.1f}x"
        print(f"{name:32} {row['mean']:8.2f} MB/s mean {row['best']:8.2f} best   {factors}")


if __name__ == "__main__":
    main()
