"""Ingest against a bare FastWARC + Resiliparse loop, on one core: `python benchmarks/ingest.py FILE.warc.gz... [--rounds N]`.

Both gunzip, parse records, decode, and extract main content from the same responses, turn about in the same run, all of it
pinned to one core. Ingest also checks digests, undoes encodings, limits time in a process of its own, and builds the table.
The time is that of all processes of a side: user and system time (the machine may be busy with other things), and wall time
beside it. Only pages that have text of any length count. The extracting process is started before its rounds, as a worker
that takes many shards has it; its start is printed apart.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from pipeline.ingest import Ingest, IngestParams


def bare(files: list[str], detect: bool) -> int:
    """Documents by a plain loop. detect: look for the encoding by content and not in <meta> (Resiliparse's default)."""
    documents = 0
    for file in files:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response):
            body = record.reader.read()
            charset = (None if detect else record.http_charset) or detect_encoding(body, from_html_meta=not detect) or "utf-8"
            documents += bool(extract_plain_text(bytes_to_str(body, charset), preserve_formatting=True, main_content=True))
    return documents


def ingest(stage: Ingest) -> int:
    """Documents by the stage, from all its partitions."""
    return sum(stage.run(partition, {}).tables["raw"].num_rows for partition in stage.partitions())


def children_cpu(stage: Ingest) -> float:
    """User and system time of the extracting process so far."""
    guard = stage._guard
    pid = guard.pid if guard is not None else None
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    files: list[str] = arguments.files
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    def stage(**extract: object) -> Ingest:
        return Ingest(
            IngestParams.model_validate(
                {"snapshot": "b", "source": {"kind": "warc", "paths": files}, "shards": 1, "min_length": 0, "extract": extract}
            )
        )

    guarded, unguarded = stage(), stage(time_limit=0)
    begun = time.perf_counter()
    guarded.setup({})
    assert guarded._guard is not None
    guarded._guard.warm_up()
    print(f"start of the extracting process: {time.perf_counter() - begun:.2f} s")

    sides: dict[str, tuple[Callable[[], int], Callable[[], float]]] = {
        "bare loop, charset of header or <meta>": (lambda: bare(files, False), lambda: 0.0),
        "bare loop, charset detected": (lambda: bare(files, True), lambda: 0.0),
        "ingest": (lambda: ingest(guarded), lambda: children_cpu(guarded)),
        "ingest, no time limit": (lambda: ingest(unguarded), lambda: 0.0),
    }
    best: dict[str, list[float]] = {name: [float("inf")] * 2 for name in sides}
    documents: dict[str, int] = {}
    megabytes = sum(len(r.reader.read()) for f in files for r in ArchiveIterator(f, parse_http=False)) / 1e6
    for _ in range(arguments.rounds):
        for name, (work, child) in sides.items():
            cpu, wall = time.process_time() + child(), time.perf_counter()
            documents[name] = work()
            spent = (time.process_time() + child() - cpu, time.perf_counter() - wall)
            best[name] = [min(a, b) for a, b in zip(best[name], spent, strict=True)]
    print(f"{megabytes:.1f} MB of records; best of {arguments.rounds} rounds")
    base = next(iter(best.values()))
    for name, (cpu, wall) in best.items():
        print(
            f"{name:40} {documents[name]:6} documents {cpu:6.2f} s CPU {megabytes / cpu:6.1f} MB/s  x{base[0] / cpu:.2f}"
            f"   {wall:6.2f} s wall  x{base[1] / wall:.2f}"
        )
    guarded._guard.close()


if __name__ == "__main__":
    main()
