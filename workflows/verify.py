"""What a corpus says of itself, checked: digests, alignment, conservation, and nothing that no receipt knows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from pipeline.corpus import Corpus
from pipeline.receipt import Output

ALIGNED = ("documents", "signals", "minhash", "duplicates", "votes", "labels", "mixture")
"""Tables (or families of tables, `votes/<task>`) with one row per document."""


def verify(corpus: Corpus) -> Iterator[str]:
    """Yields one line per fault; none if the corpus is sound. ValueError if there are no receipts at all."""
    paths = corpus.storage.files("receipts", ".json")
    if not paths:
        raise ValueError(f"{corpus.url} has no receipts: is it a corpus?")
    known: dict[str, Output] = {}
    for path in paths:
        try:
            receipt = corpus.read_receipt(path)
        except ValueError as error:  # the files that it named show up below, as files that no receipt knows
            yield str(error)
            continue
        known |= receipt.outputs
        if not receipt.conserved:
            yield f"{path}: {receipt.rows_in} rows in, {receipt.rows_out} out, drops {dict(receipt.drops)}"
    with ThreadPoolExecutor(4) as pool:
        for told in pool.map(lambda item: _check_file(corpus, *item), sorted(known.items())):
            if told:
                yield told
    yield from _check_alignment(corpus, set(known))
    for path in corpus.storage.files(""):
        if path not in known and not path.startswith(("receipts/", "runs/")):
            yield f"{path}: no receipt knows this file; a build left it, or it is not the corpus's"


def _check_file(corpus: Corpus, path: str, output: Output) -> str | None:
    if not corpus.storage.exists(path):
        return f"{path}: missing; run the build again"
    digest = corpus.storage.digest(path)
    if digest != output.digest:
        return f"{path}: digest {digest}, its receipt says {output.digest}; delete it and run the build again"
    return None


def _check_alignment(corpus: Corpus, known: set[str]) -> Iterator[str]:
    documents = [p[len("documents/") : -len(".parquet")] for p in sorted(known) if p.startswith("documents/")]
    names = {p.split("/")[0] if p.split("/")[0] in ("signals", "minhash", "duplicates") else "/".join(p.split("/")[:2])
             for p in known if p.split("/")[0] in ALIGNED[1:]}  # fmt: skip
    for partition in documents:
        for name in sorted(names):
            if corpus.path(name, partition) not in known:
                yield f"{corpus.path(name, partition)}: missing, although documents/{partition}.parquet is there"
                continue
            try:
                corpus.check_alignment(partition, "documents", name)
            except ValueError as error:
                yield str(error)
