"""Vote matrices whose truth is known: what label models are developed and tested on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelers.vote_tables import coin_tables

FAMILIES = (
    "symmetric",
    "asymmetric",
    "imbalanced",
    "keywords",
    "topics",
    "copies",
    "multiclass",
    "difficulty",
    "adversarial",
    "sequence",
    "nuisance",
    "weak",
    "even",
    "thresholds",
)


@dataclass(frozen=True)
class SyntheticVotes:
    """votes: (n, m) int8, -1 abstains. gold: (n,) classes. lengths: of the sequences that the rows make up, if they do."""

    votes: np.ndarray
    gold: np.ndarray
    k: int
    lengths: np.ndarray | None = None

    def split(self, share: float = 0.8) -> tuple[SyntheticVotes, SyntheticVotes]:
        """The first rows, and the rest. Whole sequences stay together."""
        cut = int(len(self.gold) * share)
        if self.lengths is None:
            return SyntheticVotes(self.votes[:cut], self.gold[:cut], self.k), SyntheticVotes(
                self.votes[cut:], self.gold[cut:], self.k
            )
        ends = np.cumsum(self.lengths)
        whole = int(np.searchsorted(ends, cut))
        cut = int(ends[whole - 1]) if whole else 0
        return (
            SyntheticVotes(self.votes[:cut], self.gold[:cut], self.k, self.lengths[:whole]),
            SyntheticVotes(self.votes[cut:], self.gold[cut:], self.k, self.lengths[whole:]),
        )


def votes_of(tables: np.ndarray, gold: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Independent votes (n, m) given the classes, from tables P(vote | Y) (m, k + 1, k); index 0 abstains."""
    ladder = tables.cumsum(axis=1)
    drawn = rng.random((len(gold), len(tables)))
    votes = np.empty((len(gold), len(tables)), np.int8)
    for i in range(len(tables)):
        votes[:, i] = (drawn[:, i, None] >= ladder[i][:-1, gold].T).sum(axis=1) - 1
    return votes


def generate(family: str, seed: int, n: int | None = None) -> SyntheticVotes:
    """Votes of one of `FAMILIES`: sizes, accuracies and coverages are drawn by the seed. ValueError on another family."""
    rng = np.random.default_rng([FAMILIES.index(family) if family in FAMILIES else -1, seed]) if family in FAMILIES else None
    if rng is None:
        raise ValueError(f"there is no family {family}; there are: {', '.join(FAMILIES)}")
    n = n or int(rng.choice([1500, 4000, 10000]))
    k, m = 2, int(rng.integers(5, 16))
    balance = np.array([0.5, 0.5])
    accuracy, coverage = rng.uniform(0.52, 0.9, m), rng.uniform(0.1, 0.9, m)
    if family == "topics":
        return _topics(rng, n)
    if family == "keywords":
        return _keywords(rng, n)
    if family == "sequence":
        return _sequence(rng, n, m)
    if family == "nuisance":
        return _nuisance(rng, n, m)
    if family == "thresholds":
        return _thresholds(rng, n)
    if family == "imbalanced":
        rare = rng.uniform(0.05, 0.25)
        balance = np.array([1 - rare, rare])
    if family == "multiclass":
        k, m = int(rng.integers(3, 9)), int(rng.integers(5, 25))
        balance = rng.dirichlet(np.full(k, 5.0))
        accuracy, coverage = rng.uniform(0.25, 0.85, m), rng.uniform(0.1, 0.7, m)
    if family == "weak":
        accuracy, coverage = rng.uniform(0.52, 0.7, m), rng.uniform(0.2, 1.0, m)
    if family == "even":
        k, m = int(rng.integers(4, 11)), int(rng.integers(8, 20))
        balance = rng.dirichlet(np.full(k, 8.0))
        accuracy, coverage = rng.uniform(0.25, 0.7, m), rng.uniform(0.2, 0.8, m)
    gold = rng.choice(k, n, p=balance)
    tables = coin_tables(accuracy, coverage, k)
    if family in ("asymmetric", "imbalanced", "multiclass"):
        for i in range(m):
            spread = rng.uniform(5, 60)
            for y in range(k):
                tables[i, 1:, y] = rng.dirichlet(np.maximum(spread * tables[i, 1:, y] / coverage[i], 1e-2)) * coverage[i]
                silent = np.clip(1 - coverage[i] * rng.uniform(0.6, 1.1), 0, 0.97)
                tables[i, :, y] = np.concatenate([[silent], tables[i, 1:, y] / tables[i, 1:, y].sum() * (1 - silent)])
    if family == "adversarial":
        worst = rng.choice(m, max(1, m // 5), replace=False)
        tables[worst] = coin_tables(rng.uniform(0.15, 0.45, len(worst)), coverage[worst], k)
    votes = votes_of(tables, gold, rng)
    if family == "difficulty":  # some documents are hard for every function: not independent given the class
        hard = rng.random(n) < rng.uniform(0.1, 0.4)
        votes[hard] = votes_of(coin_tables(np.full(m, rng.uniform(0.45, 0.6)), coverage, k), gold, rng)[hard]
    if family == "copies":
        votes = _copied(votes, rng)
    return SyntheticVotes(votes, gold, k)


def _copied(votes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some functions are near-copies of one of the others."""
    n, m = votes.shape
    groups = []
    for source in rng.choice(m, int(rng.integers(1, 3)), replace=False):
        for _ in range(int(rng.integers(2, 5))):
            own = votes[rng.permutation(n), source]
            groups.append(np.where(rng.random(n) < rng.uniform(0.0, 0.1), own, votes[:, source]))
    return np.column_stack([votes, *groups])


def _keywords(rng: np.random.Generator, n: int) -> SyntheticVotes:
    """Many functions that vote for one class each, seldom, and independently given the class."""
    k = int(rng.integers(2, 9))
    m = int(rng.integers(3 * k, 12 * k))
    balance = rng.dirichlet(np.full(k, 4.0))
    gold = rng.choice(k, n, p=balance)
    tables = np.zeros((m, k + 1, k))
    for i in range(m):
        c = int(rng.integers(k))
        precision, coverage = rng.beta(4, 2), min(0.3, 10 ** rng.uniform(-3, -0.7))
        others = rng.dirichlet(np.full(k - 1, 1.0)) * (1 - precision)
        joint = np.insert(others, c, precision) * coverage
        tables[i, c + 1] = np.minimum(joint / balance, 0.95)
        tables[i, 0] = 1 - tables[i, c + 1]
    return SyntheticVotes(votes_of(tables, gold, rng), gold, k)


def _topics(rng: np.random.Generator, n: int) -> SyntheticVotes:
    """Documents are bags of words of their class's topics; functions look for a few words and vote for the class that an
    expert, sometimes wrongly, takes them to mean. Functions of one topic go together: dependent given the class."""
    k, per, vocabulary = int(rng.integers(2, 9)), int(rng.integers(1, 5)), 400
    balance = rng.dirichlet(np.full(k, 4.0))
    gold = rng.choice(k, n, p=balance)
    common = 1 / np.arange(5, vocabulary + 5)
    boost = rng.uniform(0.3, 0.7)
    topics = np.empty((k, per, vocabulary))
    for c in range(k):
        for t in range(per):
            own = common * rng.gamma(0.15, 1.0, vocabulary)
            topics[c, t] = (1 - boost) * common / common.sum() + boost * own / own.sum()
    shares = rng.dirichlet(np.full(per, 2.0), k)
    topic = np.array([rng.choice(per, p=shares[c]) for c in gold])
    length = rng.poisson(rng.uniform(5, 15), n)
    ladder = topics.cumsum(axis=2)
    seen = np.zeros((n, vocabulary), bool)
    for row in range(n):
        words = np.searchsorted(ladder[gold[row], topic[row]], rng.random(length[row]) * ladder[gold[row], topic[row], -1])
        seen[row, words] = True
    mass = np.einsum("ct,ctv->cv", shares, topics) * balance[:, None]
    meaning = mass / mass.sum(axis=0)
    m = int(rng.integers(4 * k, 12 * k))
    chance = meaning.max(axis=0) ** 2 * mass.sum(axis=0) ** 0.5
    votes = np.full((n, m), -1, np.int8)
    for i in range(m):
        word = int(rng.choice(vocabulary, p=chance / chance.sum()))
        c = int(meaning[:, word].argmax()) if rng.random() < 0.93 else int(rng.integers(k))
        alike = np.flatnonzero((meaning.argmax(axis=0) == c) & (meaning.max(axis=0) > 0.4))
        words = [word, *rng.choice(alike, min(len(alike), int(rng.integers(0, 3))), replace=False)] if len(alike) else [word]
        votes[seen[:, words].any(axis=1), i] = c
    return SyntheticVotes(votes, gold, k)


def _sequence(rng: np.random.Generator, n: int, m: int) -> SyntheticVotes:
    """Spans of documents, or frames: a chain over the classes, and functions that vote on each of them."""
    k = int(rng.integers(2, 4))
    stay = rng.uniform(0.75, 0.97)
    step = np.full((k, k), (1 - stay) / (k - 1))
    np.fill_diagonal(step, stay)
    lengths = rng.integers(5, 40, n)
    lengths = lengths[: int(np.searchsorted(lengths.cumsum(), n)) + 1]
    gold = np.empty(int(lengths.sum()), np.int64)
    at = 0
    for length in lengths:
        gold[at] = rng.integers(k)
        for t in range(at + 1, at + length):
            gold[t] = rng.choice(k, p=step[gold[t - 1]])
        at += length
    tables = coin_tables(rng.uniform(0.55, 0.8, m), rng.uniform(0.1, 0.6, m), k)
    return SyntheticVotes(votes_of(tables, gold, rng), gold, k, lengths)


def _nuisance(rng: np.random.Generator, n: int, m: int) -> SyntheticVotes:
    """Thresholds on measurements that share more than the class: what is long is also rich, whatever its class. Votes are
    correlated given the class, by one or two factors that each moves some of the functions."""
    balance = rng.uniform(0.25, 0.75)
    gold = (rng.random(n) < balance).astype(np.int64)
    factors = rng.standard_normal((n, int(rng.integers(1, 3))))
    loads = rng.normal(0, rng.uniform(0.3, 1.0), (factors.shape[1], m)) * (rng.random((factors.shape[1], m)) < 0.5)
    seen = (2 * gold - 1)[:, None] * rng.uniform(0.2, 1.0, m) + factors @ loads + rng.standard_normal((n, m))
    votes = np.full((n, m), -1, np.int8)
    for i in range(m):
        high, low = rng.uniform(0.05, 0.6), rng.uniform(0.05, 0.4)
        one_sided = rng.random() < 0.4
        votes[seen[:, i] >= np.quantile(seen[:, i], 1 - high), i] = 1
        if not one_sided:
            votes[seen[:, i] < np.quantile(seen[:, i], low), i] = 0
        elif rng.random() < 0.5:
            votes[:, i] = np.where(seen[:, i] < np.quantile(seen[:, i], low), 0, -1)
    return SyntheticVotes(votes, gold, 2)


def _thresholds(rng: np.random.Generator, n: int) -> SyntheticVotes:
    """A few measurements, each under several thresholds: functions come in clusters that err together."""
    gold = (rng.random(n) < rng.uniform(0.35, 0.65)).astype(np.int64)
    votes = []
    for _ in range(int(rng.integers(3, 6))):
        measured = (2 * gold - 1) * rng.uniform(0.2, 0.9) + rng.standard_normal(n)
        for _ in range(int(rng.integers(2, 5))):
            seen = measured + rng.standard_normal(n) * rng.uniform(0.2, 1.0)
            middle, width = rng.normal(0, 0.5), rng.uniform(0, 0.6)
            votes.append(np.where(seen > middle + width, 1, np.where(seen < middle - width, 0, -1)))
    return SyntheticVotes(np.column_stack(votes).astype(np.int8), gold, 2)
