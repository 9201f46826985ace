"""Speed and memory of clustering signatures on one core: `python benchmarks/minhash.py [--documents N]`.

Prints documents/s and peak memory of clustering N made-up signatures, a third of them near-duplicates of others. How fast
signatures are made of text, `benchmarks/signals.py` says.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.deduplicate import Cluster, DeduplicateParams
from pipeline.tables import MINHASH, PERMUTATIONS, SIMILARITIES, identify

_RNG_SEED = 0


def timed(what: str, work: Callable[[], object], megabytes: float, documents: int) -> None:
    """Print the speed of the work by the processor time that it takes, so that a busy machine does not change it much."""
    begun = time.process_time()
    work()
    seconds = time.process_time() - begun
    print(f"{what:28} {seconds:7.2f} s {megabytes / seconds:8.2f} MB/s {documents / seconds:10,.0f} documents/s")


def clusters(documents: int) -> None:
    """Clustering at the four levels of made-up signatures, in partitions of 10,000 documents."""
    rng, params = np.random.default_rng(_RNG_SEED), DeduplicateParams()
    cluster, size, partitions = Cluster(params), 10_000, []
    originals = rng.integers(0, 1 << 32, (documents, PERMUTATIONS), dtype=np.uint32)
    copies = np.flatnonzero(rng.random(documents) < 1 / 3)
    originals[copies] = originals[rng.integers(0, documents, len(copies))]
    changed = rng.random((len(copies), PERMUTATIONS)) < rng.choice([0, 0.05, 0.2], (len(copies), 1))
    originals[copies] = np.where(changed, rng.integers(0, 1 << 32, changed.shape, dtype=np.uint32), originals[copies])
    for first in range(0, documents, size):
        values = originals[first : first + size]
        ids, id_ints = identify(f"p/{first // size:04d}/x", len(values))
        signature = pa.FixedSizeListArray.from_arrays(values.ravel(), type=MINHASH.field("signature").type)
        minhash = pa.table({"id": ids, "signature": signature}, schema=MINHASH)
        partitions.append({"documents": pa.table({"id": ids, "id_int": id_ints, "raw_content": ids}), "minhash": minhash})
    print(f"{documents:,} made-up signatures, {len(partitions)} partitions, levels {', '.join(SIMILARITIES)}, one core")
    megabytes = documents * PERMUTATIONS * 4 / 1e6
    summaries: list[pa.Table] = []
    timed(
        "summarise",
        lambda: summaries.extend(cluster.summarise(f"p/{i:04d}/x", t) for i, t in enumerate(partitions)),
        megabytes,
        documents,
    )
    everything = pa.concat_tables(summaries)
    buckets = [everything.filter(pc.equal(everything["bucket"], b)) for b in range(params.buckets)]
    reduced: list[pa.Table] = []
    timed("reduce", lambda: reduced.extend(cluster.reduce(b) for b in buckets), megabytes, documents)
    told: list[dict] = []
    stars = pa.concat_tables(reduced)
    timed("finish", lambda: told.append(dict(cluster.finish("all", stars).metrics)), megabytes, documents)
    print(f"shuffled {everything.nbytes / documents:.0f} bytes and {everything.num_rows / documents:.0f} rows per document,")
    print(f"{stars.num_rows:,} edges; { ({k: v['clusters'] for k, v in told[0].items() if isinstance(v, dict)}) } clusters")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB, made-up data included")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=100_000)
    clusters(parser.parse_args().documents)
