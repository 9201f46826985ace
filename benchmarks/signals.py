"""Speed of signals and signatures on one core, beside their peers in the same run: `python benchmarks/signals.py [--passes N]`.

Documents: the reference pages in five languages, and those of the web crawl files ($MENAGERIE_SHARED or ../shared). Peers:
RedPajama-V2's signals in plain Python, written from its definitions (tests/quality/redpajama_twin.py); datasketch and rensa
themselves, where they are installed (pip install 'menagerie[bench]'). All times are mean processor times; the peers see a part
of the documents, since they are slow. Compiling is told apart.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.minhash import MinHash, MinHashParams
from pipeline.text import TextBatch
from quality.annotate import annotate
from quality.importance import TARGETS, ImportanceTable
from quality.registry import VIEWS, Context, measure, select
from quality.resources import SignalResources
from tests.quality import redpajama_twin as twin

_LANGUAGES = ("en", "de", "fr", "es", "it")
_PEER_SECONDS = 6.0


def shared() -> Path:
    root = Path(os.environ.get("MENAGERIE_SHARED") or Path(__file__).parents[2] / "shared") / "data"
    if not (root / "rpv2").is_dir():
        sys.exit(f"no reference data at {root}: set MENAGERIE_SHARED")
    return root


def crawl_pages(root: Path) -> pa.Table:
    """The text of the web crawl's pages, as WET files have it."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    texts = []
    for path in sorted((root / "web").glob("*.warc.wet.gz")):
        with path.open("rb") as stream:
            records = ArchiveIterator(stream, record_types=WarcRecordType.conversion)
            texts += [record.reader.read().decode() for record in records]
    ids = [str(i) for i in range(len(texts))]
    return pa.table({"id": ids, "raw_content": pa.array(texts, pa.large_string()), "language": ["en"] * len(ids)})


def resources(root: Path, documents: pa.Table) -> SignalResources:
    """Word lists as RedPajama-V2's in kind and size, and importance tables with random weights."""
    rng = np.random.default_rng(0)
    words = sorted({w for text in documents["raw_content"].to_pylist()[:100] for w in text.split()})
    table = {
        (domain, language): ImportanceTable(rng.integers(1, 1000, 10_000), 1500.0)
        for language in _LANGUAGES
        for domain in ("ccnet", *(TARGETS if language == "en" else TARGETS[:1]))
    }
    lists = SignalResources.load(ldnoobw=root / "rpv2" / "ldnoobw", ut1=root / "rpv2" / "ut1.json")
    stop_words = {language: frozenset(rng.choice(words, 300).tolist()) for language in _LANGUAGES}
    return SignalResources(stop_words, lists.ldnoobw, lists.ut1, table)


def twin_lists(told: SignalResources) -> dict[str, twin.Lists]:
    weights = told.importance_weights
    return {
        language: twin.Lists(
            stop_words=told.stop_words[language],
            blocked=told.ldnoobw.get(language, ()),
            domains=told.ut1,
            weights={
                target: (weights.values[i, :, j], weights.mean_lengths[i, 1 + j], weights.mean_lengths[i, 0])
                for j, target in enumerate(TARGETS)
                if not np.isnan(weights.mean_lengths[i, 1 + j])
            },
        )
        for i, language in enumerate(weights.languages)
    }


def mean(work: Callable[[], object], passes: int) -> float:
    """Mean processor seconds of several passes, after one that does not count."""
    work()
    gc.collect()
    begun = time.process_time()
    for _ in range(passes):
        work()
    return (time.process_time() - begun) / passes


def peer(work: Callable[[str, str, str | None], object], rows: Sequence[tuple[str, str, str | None]]) -> float:
    """MB/s of a peer that takes one document at a time, over as many documents as it does in a few seconds."""
    size, begun = 0, time.process_time()
    for text, language, domain in rows:
        work(text, language, domain)
        size += len(text.encode())
        if time.process_time() - begun > _PEER_SECONDS:
            break
    return size / (time.process_time() - begun) / 1e6


def compare(name: str, documents: pa.Table, root: Path, passes: int) -> None:
    """All rows of the table for one set of documents."""
    size = (pc.sum(pc.call_function("binary_length", [documents["raw_content"]])).as_py() or 0) / 1e6
    told, signals = (
        resources(root, documents),
        [s for s in select() if "_ml_" not in s.name and s.name.startswith(("rps", "ccnet"))],
    )
    context, lists = Context(resources=told), twin_lists(told)
    languages = documents["language"].to_pylist()
    domains = documents["source_domain"].to_pylist() if "source_domain" in documents.column_names else [None] * len(languages)
    rows = list(zip(documents["raw_content"].to_pylist(), languages, domains, strict=True))
    # Every k-th document, so that a peer that does not come to the end has seen all kinds.
    rows = [row for k in range(7) for row in rows[k::7]]
    permutations = twin.permutations()

    def signals_twin(text: str, language: str, domain: str | None) -> None:
        twin.signals(twin.Document(text, domain), lists[language])

    def both_twin(text: str, language: str, domain: str | None) -> None:
        document = twin.Document(text, domain)
        twin.signals(document, lists[language])
        twin.minhash(document.words, permutations)

    def sign(scheme: str) -> Callable[[], object]:
        minhash = MinHash(MinHashParams.model_validate({"scheme": scheme}))
        return lambda: [minhash.sign(text) for text in TextBatch.over(documents.select(["raw_content"]))]

    print(f"\n{name}: {documents.num_rows:,} documents, {size:.1f} MB of UTF-8, {len(signals)} signals")
    print(f"{'work':34}{'docs/s':>10}{'MB/s':>8}   {'peer':34}{'MB/s':>7}{'ratio':>8}")
    minhash = MinHash()
    rows_of_table = (
        ("signals", lambda: annotate(documents, signals, None, context), "RedPajama-V2 in plain Python", signals_twin),
        ("signals + MinHash", lambda: annotate(documents, signals, minhash, context), "the same", both_twin),
        ("MinHash, RedPajama-V2's values", sign("redpajama-v2"), "datasketch, scheme legacy", datasketch_peer()),
        ("MinHash, affine32", sign("affine32"), "rensa RMinHash", rensa_peer()),
    )
    for what, work, whom, other in rows_of_table:
        seconds = mean(work, passes)
        theirs = peer(other, rows) if other else float("nan")
        ours = size / seconds
        print(
            f"{what:34}{documents.num_rows / seconds:10,.0f}{ours:8.1f}   {whom:34}{theirs:7.2f}{ours / theirs:7.1f}x",
            flush=True,
        )
    where(documents, signals, context, size, passes)


def where(documents: pa.Table, signals: Sequence, context: Context, size: float, passes: int) -> None:
    """Milliseconds per MB of each view, and of the signals that read them."""
    told: dict[str, list[float]] = {}
    for _ in range(passes):
        spent: dict[str, float] = {}

        def timed(key: str, work: Callable[[], object], spent: dict[str, float] = spent) -> None:
            begun = time.process_time()
            work()
            spent[key] = spent.get(key, 0) + time.process_time() - begun

        for text in TextBatch.over(documents):
            for view in VIEWS[1:]:
                timed(view, lambda text=text, view=view: getattr(text, view))
            text.release = lambda *views, keep=(): None
            for each in signals:
                timed(_family(each.name), lambda e=each, t=text: measure(t, [e], context))
        for key, seconds in spent.items():
            told.setdefault(key, []).append(seconds)
    print("ms per MB: " + ", ".join(f"{key} {min(seconds) * 1e3 / size:.1f}" for key, seconds in told.items()))


def _family(name: str) -> str:
    for part, family in (("ccnet", "ccnet"), ("chars_", "repetitions"), ("importance", "importance"), ("lines_", "of lines")):
        if part in name:
            return f"signals {family}"
    return "other signals"


def datasketch_peer() -> Callable[[str, str, str | None], object] | None:
    try:
        from datasketch import MinHash as Sketch
    except ImportError:
        return None

    def work(text: str, language: str, domain: str | None) -> None:
        words = twin.normalize(text).split()
        sketch = Sketch(num_perm=128, seed=42, scheme="legacy")
        sketch.update_batch(list({" ".join(words[i : i + 13]).encode() for i in range(len(words) - 12)}))

    return work


def rensa_peer() -> Callable[[str, str, str | None], object] | None:
    try:
        from rensa import RMinHash
    except ImportError:
        return None

    def work(text: str, language: str, domain: str | None) -> None:
        words = twin.normalize(text).split()
        sketch = RMinHash(num_perm=128, seed=42)
        sketch.update([" ".join(words[i : i + 13]) for i in range(len(words) - 12)])
        sketch.digest()

    return work


def compile_time() -> None:
    begun = time.process_time()
    of_text = (f"pipeline.{name}_kernels" for name in ("text", "normal_word", "word", "minhash"))
    for kernels in (*of_text, "quality.kernels"):
        importlib.import_module(kernels)
    print(f"compiled kernels imported in {time.process_time() - begun:.1f} s (a fraction of it once they are cached)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    compile_time()
    folder = shared()
    compare("reference pages", pq.read_table(folder / "rpv2" / "documents.parquet"), folder, options.passes)
    compare("web crawl", crawl_pages(folder), folder, options.passes)
