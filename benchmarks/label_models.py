"""Label models: `python benchmarks/label_models.py [speed] [memory] [liger] [accuracy]` (default: speed and memory).

speed: fit + predict beside the vectorised numpy bound of the closed form (one Gram product, all triplets, two products for the
log-odds), and prediction beside a loop over documents, as the published FlyingSquid predicts. Processor time on one
thread; each line is the median of several runs that take turns.
memory: 10M documents x 20 functions, partition by partition, with peak memory; `--ray` measures the partitions on Ray.
liger: votes extended over 1M documents with 128-d embeddings and 10 functions.
accuracy: on the made-up families, held-out seeds, beside majority vote, FlyingSquid and matrix completion.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics as stats
import sys
import time
from collections.abc import Callable

if "liger" not in sys.argv:  # threads that wait for others spin, and would count as work
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np

from labelers import AutoLabelModel, DawidSkene, FlyingSquid, Liger, MajorityVote, MatrixCompletion, VoteStatistics, generate
from labelers.synthetic import FAMILIES, coin_tables, votes_of


def made_up(n: int, m: int, seed: int, k: int = 2) -> np.ndarray:
    """Votes of independent functions, 40 % abstaining."""
    rng = np.random.default_rng([seed, 1])
    skill = np.random.default_rng(7).uniform(0.55, 0.9, m)  # the same functions in every partition
    return votes_of(coin_tables(skill, np.full(m, 0.6), k), rng.integers(0, k, n), rng)


def numpy_bound(votes: np.ndarray) -> np.ndarray:
    """P(Y = 1), (n,), by FlyingSquid's closed form, all in matrix products: what a plain numpy implementation costs."""
    n, m = votes.shape
    signed = np.where(votes < 0, 0, 2 * votes - 1).astype(np.float32)
    moments = np.abs((signed.T @ signed).astype(np.float64) / n)
    inverse = 1 / np.sqrt(moments)
    np.fill_diagonal(inverse, 0)
    roots = np.sqrt(moments)
    np.fill_diagonal(roots, 0)
    strength = np.einsum("ij,jk,ik->i", roots, inverse, roots, optimize=True) / ((m - 1) * (m - 2))
    positive, negative = (votes == 1).astype(np.float32), (votes == 0).astype(np.float32)
    share, cast = positive.mean(axis=0), (votes >= 0).mean(axis=0)
    right = 0.5 * (strength + cast)
    both = 0.5 * (right + share - 0.5 * cast)
    table = np.clip([[0.5 * cast - share + both, 0.5 * cast - both], [share - both, both]], 1e-8, None)
    odds = np.log(table[:, 1] / table[:, 0]).astype(np.float32)
    return 1 / (1 + np.exp(-(positive @ odds[1] + negative @ odds[0])))


def by_loop(votes: np.ndarray, tables: np.ndarray, balance: np.ndarray) -> np.ndarray:
    """P(Y | votes) document by document and clique by clique, from dictionaries of probabilities."""
    cliques = [{(v, y): tables[i, v + 1, y] for v in (-1, 0, 1) for y in (0, 1)} for i in range(len(tables))]
    out = []
    for row in votes:
        joint = []
        for y in range(2):
            p = balance[y]
            for clique, vote in zip(cliques, row, strict=True):
                p = p * clique[(int(vote), y)]
            joint.append(p)
        total = sum(joint)
        out.append([p / total for p in joint])
    return np.array(out)


def seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def speed(runs: int) -> None:
    for n, m in ((1_000_000, 10), (100_000, 50)):
        votes = made_up(n, m, 0)
        ways: dict[str, Callable[[], object]] = {
            "numpy bound": lambda v=votes: numpy_bound(v),
            "FlyingSquid": lambda v=votes: FlyingSquid().fit(v).predict_proba(v),
            "majority": lambda v=votes: MajorityVote(accuracy=0.7).fit(v).predict_proba(v),
            "Dawid-Skene": lambda v=votes: DawidSkene().fit(v).predict_proba(v),
            "AutoLabelModel": lambda v=votes: AutoLabelModel().fit(v).predict_proba(v),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, work in ways.items():
                taken[name].append(seconds(work))
        bound = stats.median(taken["numpy bound"])
        print(f"{n:,} x {m}, fit + predict:")
        for name, times in taken.items():
            middle = stats.median(times)
            print(f"  {name:16} {middle:7.3f} s   {middle / bound:5.2f} of the numpy bound")
    votes = made_up(100_000, 10, 0)
    model = FlyingSquid().fit(votes)
    few = votes[:5000]
    loop = seconds(lambda: by_loop(few, model.tables_, model.class_balance_)) * 20
    ours = stats.median(seconds(lambda: model.predict_proba(votes)) for _ in range(5))
    same = np.allclose(by_loop(few, model.tables_, model.class_balance_), model.predict_proba(few))
    print(f"prediction, 100,000 x 10: loop {loop:.2f} s, ours {ours:.4f} s: {loop / ours:,.0f} times faster; same: {same}")


def peak() -> float:
    """Gigabytes that this process has used at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def memory(on_ray: bool, partitions: int = 40, rows: int = 250_000, m: int = 20) -> None:
    def measured(seed: int) -> VoteStatistics:
        return VoteStatistics.measure(made_up(rows, m, seed))

    print(f"{partitions * rows:,} x {m} in {partitions} partitions{' on Ray' if on_ray else ''}:")
    begun = time.perf_counter()
    if on_ray:
        import ray

        ray.init(num_cpus=2, object_store_memory=200 << 20, include_dashboard=False, log_to_driver=False)
        task = ray.remote(lambda seed: (measured(seed), peak()))
        waiting, total, most, highest = [], None, 4, []
        for seed in range(partitions):
            waiting.append(task.remote(seed))
            if len(waiting) == most or seed == partitions - 1:
                parts = ray.get(waiting)
                merged = VoteStatistics.merge(part for part, _ in parts)
                highest.append(max(used for _, used in parts))
                total, waiting = merged if total is None else total + merged, []
        ray.shutdown()
        print(f"  peak memory of a worker after the first partitions {highest[0]:.2f} GB, after the last {highest[-1]:.2f} GB")
        assert total is not None
        model = FlyingSquid().fit(total)
    else:
        model, first = FlyingSquid(), 0.0
        for seed in range(partitions):
            model.partial_fit(measured(seed))
            if seed == 1:
                first = peak()
        print(f"  peak memory after 2 partitions {first:.2f} GB, after all {peak():.2f} GB")
    off = np.abs(model.accuracies_ - np.random.default_rng(7).uniform(0.55, 0.9, m)).max()
    print(f"  {time.perf_counter() - begun:.1f} s, making the votes included; accuracies are off by at most {off:.4f}")


def liger(n: int, d: int = 128, m: int = 10) -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((500, d)).astype(np.float32)
    clump = rng.integers(0, 500, n)
    embeddings = np.empty((n, d), np.float32)
    for first in range(0, n, 100_000):
        part = clump[first : first + 100_000]
        embeddings[first : first + len(part)] = centres[part] + 0.8 * rng.standard_normal((len(part), d), np.float32)
    gold = rng.integers(0, 2, 500)[clump]
    votes = votes_of(coin_tables(rng.uniform(0.6, 0.9, m), np.full(m, 0.1), 2), gold, rng)
    print(f"liger, {n:,} x {d} and {m} functions that vote on 10 %; the data takes {peak():.2f} GB")
    model = Liger(radius=0.5, parts=1)
    begun, process = time.perf_counter(), time.process_time()
    model.fit(votes, embeddings=embeddings)
    print(f"  fit {time.perf_counter() - begun:.1f} s ({time.process_time() - process:.1f} s of processor time)")
    begun, process = time.perf_counter(), time.process_time()
    extended = model.extend(votes, embeddings)
    wall = time.perf_counter() - begun
    print(f"  extension {wall:.1f} s ({time.process_time() - process:.1f} s of processor time), peak memory {peak():.2f} GB")
    taken = (votes < 0) & (extended >= 0)
    right = (extended == gold[:, None])[taken].mean()
    before, after = ((v >= 0).sum() / n for v in (votes, extended))
    print(f"  votes per document {before:.2f} -> {after:.2f}, those taken over right {right:.1%}")


def accuracy(seeds: int) -> None:
    models = (AutoLabelModel, MajorityVote, FlyingSquid, MatrixCompletion, DawidSkene)
    print(f"{'accuracy, ties split':14}" + "".join(f"{m.__name__:>17}" for m in models))
    rows = []
    for family in FAMILIES:
        told = []
        for seed in range(1000, 1000 + seeds):
            train, test = generate(family, seed, n=4000).split()
            for model in models:
                p = model(train.k).fit(train.votes).predict_proba(test.votes)
                top = p >= p.max(axis=1, keepdims=True) - 1e-9
                told.append((top / top.sum(axis=1, keepdims=True))[np.arange(len(test.gold)), test.gold].mean())
        rows.append(np.array(told).reshape(seeds, -1).mean(axis=0))
        print(f"{family:20}" + "".join(f"{100 * a:17.1f}" for a in rows[-1]), flush=True)
    print(f"{'mean':20}" + "".join(f"{100 * a:17.1f}" for a in np.mean(rows, axis=0)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["speed", "memory"], metavar="PART")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--documents", type=int, default=1_000_000, help="documents of the liger part")
    parser.add_argument("--seeds", type=int, default=10, help="data sets per family of the accuracy part")
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    for part in options.parts:
        if part == "speed":
            speed(options.runs)
        elif part == "memory":
            memory(options.ray)
        elif part == "liger":
            liger(options.documents)
        elif part == "accuracy":
            accuracy(options.seeds)
        else:
            parser.error(f"there is no part {part}: speed, memory, liger, accuracy")
