"""A label model that looks at the votes first: it chooses how to weigh them, and says why."""

from __future__ import annotations

import numpy as np

from labelers.dawid_skene import DawidSkene
from labelers.dependencies import dependence, find_dependencies, vote_shares
from labelers.majority import MajorityVote, rarity_weights
from labelers.models import LabelModel, listed
from labelers.patterns import Patterns
from labelers.statistics import VoteStatistics

_EXPLAINED = 0.95
_UNANIMITY = 0.8
_ONE_SIDED = 0.8
_STRICTER = 0.6
_TYPICAL = 0.7  # accuracy of a labelling function, where nothing tells


class AutoLabelModel(LabelModel):
    """Chooses between Dawid-Skene, with copies sharing one vote, and majority votes, without seeing a label.

    Dawid-Skene wins wherever functions err independently given the class, or nearly. Where they do not, its classes can come
    to mean something else, a topic say. Two signs tell, and it takes both: the fitted tables leave the functions' correlations
    unexplained (`explained` of them below 0.95), and the fitted classes contradict documents on which all functions that vote
    agree (`unanimity` kept on fewer than 80 %; where nearly all functions vote for one class only, as keywords do, on so much
    more as more is unexplained). Then votes are counted instead, those of rarer functions for more. Fewer than three functions
    that vote are counted, too: nothing can be learned about them. The limits were chosen on the made-up families of
    `synthetic`; that rarer functions should count for more was first seen on TREC's questions.

    `reason_` says in a sentence what was chosen and why; `chosen_` names it; `diagnostics_` holds what was looked at: `overlap`
    (share of documents with two votes or more), `sparsity` (1 - votes cast over votes possible), `one_sided` (share of the
    functions that vote for one class only), `dependent_pairs`, `effective_functions`, and the two signs.
    """

    name = "auto"
    uses_rows = True
    reason_: str
    chosen_: str
    diagnostics_: dict[str, float]

    def _fit(self, statistics: VoteStatistics, rows: Patterns | None, balance: np.ndarray | None) -> None:
        voting = statistics.counts.sum(axis=1) > 0
        self.diagnostics_ = _describe(statistics)
        if voting.sum() < 3:
            self._count(
                statistics,
                rows,
                balance,
                np.ones(len(voting)),
                f"{int(voting.sum())} of {len(voting)} functions vote, and it takes three to learn how good each of them is",
            )
            return
        strength = dependence(statistics)
        shares = vote_shares(strength)
        found = find_dependencies(statistics)
        self.diagnostics_ |= {"dependent_pairs": float(len(found)), "effective_functions": float(shares[voting].sum())}
        model = DawidSkene(self.k, self.seed, shares=shares)
        model._fit_checked(statistics, rows, balance)
        explained = explained_correlation(statistics, model, strength > 0)
        unanimity = _unanimity(statistics, rows, model)
        self.diagnostics_ |= {"explained": explained, "unanimity": unanimity}
        needed = _UNANIMITY
        if self.diagnostics_["one_sided"] >= _ONE_SIDED:
            needed += _STRICTER * (_EXPLAINED - explained)
        if explained < _EXPLAINED and unanimity < needed:
            self._count(
                statistics,
                rows,
                balance,
                rarity_weights(statistics),
                f"the functions are not independent given the class: fitted tables explain {max(explained, 0):.0%} of how they "
                f"go together and keep {unanimity:.0%} of unanimous votes; rarer functions count for more",
            )
        else:
            many = "" if not found else f", once {listed([f'{d.first} and {d.second}' for d in found], 3)} share their votes"
            self._take(
                model,
                "Dawid-Skene: "
                + (
                    f"fitted tables explain {min(explained, 1):.0%} of how the functions go together{many}"
                    if explained >= _EXPLAINED
                    else f"fitted tables keep {unanimity:.0%} of unanimous votes{many}"
                ),
            )
        self.notes_ += [str(d) for d in found]

    def _count(
        self,
        statistics: VoteStatistics,
        rows: Patterns | None,
        balance: np.ndarray | None,
        weights: np.ndarray,
        why: str,
    ) -> None:
        model = MajorityVote(self.k, self.seed, weights, accuracy=max(_TYPICAL, 1.4 / self.k))
        model._fit_checked(statistics, rows, balance)
        self._take(model, f"majority vote: {why}")

    def _take(self, model: LabelModel, reason: str) -> None:
        self.chosen_, self.reason_ = model.name, reason
        for name in ("class_balance_", "accuracies_", "log_prior_", "weights_"):
            setattr(self, name, getattr(model, name))
        self.tables_ = model.tables_ if isinstance(model, DawidSkene) else None
        self.notes_ = [reason, *model.notes_]

    def _conditional_probs(self) -> np.ndarray:
        if self.tables_ is None:
            raise ValueError(f"a majority vote was chosen, which has no conditional probabilities: {self.reason_}")
        return self.tables_


def explained_correlation(statistics: VoteStatistics, model: LabelModel, dependent: np.ndarray) -> float:
    """The share of the squared correlations between votes of different functions that P(vote | Y) explains, beyond what chance
    leaves in n documents. Pairs known to depend, (m, m) bool, are left out. 1 where there is nothing to explain."""
    m, k, n = len(statistics.functions), len(statistics.classes), statistics.documents
    tables = model.conditional_probs()[:, 1:].reshape(m * k, k)
    fitted = (tables * model.class_balance_) @ tables.T
    seen = statistics.pairs / n
    means = np.diag(seen)
    product = np.outer(means, means)
    usable = np.kron(~(np.eye(m, dtype=bool) | dependent), np.ones((k, k), bool)) & (product * n > 1)
    if not usable.any():
        return 1.0
    scale = np.outer(means * (1 - means), means * (1 - means))[usable] + 1e-24
    left = ((seen - fitted)[usable] ** 2 / scale - 1 / n).sum()
    there = ((seen - product)[usable] ** 2 / scale - 1 / n).sum()
    if left <= 3 * np.sqrt(2 * usable.sum()) / n:  # no more than chance: a chi-squared of as many terms
        return 1.0
    return float(1 - left / there) if there > 0 else 0.0


def _unanimity(statistics: VoteStatistics, rows: Patterns | None, model: LabelModel) -> float:
    """Of documents on which two functions or more vote, and all for one class: the share to which the model gives it. From
    statistics: of pairs of equal votes. 1 where there are none."""
    if rows is not None:
        m, k, encoded = rows.rows.shape[1], rows.k, rows.encoded
        each = np.zeros((m, k + 1, k))
        each[:, 1:] = np.eye(k)
        tally, told = encoded.tables(each), encoded.tables(model.weights_)
        kept = total = 0.0
        for number, block in enumerate(encoded.blocks):
            votes = encoded.scores(number, tally, np.zeros(k))
            most = votes.argmax(axis=0)
            counts = rows.counts[block] * ((votes.max(axis=0) > 1) & ((votes > 0).sum(axis=0) == 1))
            total += float(counts.sum())
            kept += float(counts @ (encoded.scores(number, told, model.log_prior_).argmax(axis=0) == most))
        return kept / total if total else 1.0
    m, k = len(statistics.functions), len(statistics.classes)
    equal = np.einsum("iaja->aij", statistics.pairs.reshape(m, k, m, k)) * ~np.eye(m, dtype=bool)
    kept = total = 0.0
    for c in range(k):
        scores = model.log_prior_ + model.weights_[:, None, c + 1] + model.weights_[None, :, c + 1]
        kept += float((equal[c] * (scores.argmax(axis=2) == c)).sum())
        total += float(equal[c].sum())
    return kept / total if total else 1.0


def _describe(statistics: VoteStatistics) -> dict[str, float]:
    counts = statistics.counts
    voting = counts.sum(axis=1) > 0
    n, m = statistics.documents, len(counts)
    return {
        "overlap": statistics.overlapping / n,
        "sparsity": 1 - float(counts.sum()) / (n * m),
        "one_sided": float(((counts > 0).sum(axis=1) == 1)[voting].mean()) if voting.any() else 0.0,
    }
