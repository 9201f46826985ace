"""A label model that looks at the votes first: it chooses how to weigh them, and says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from labelers.dawid_skene import DawidSkene
from labelers.dependencies import dependence, find_dependencies, vote_shares
from labelers.goodness import explained_correlation, misfit, unanimity
from labelers.majority import MajorityVote, rarity_weights
from labelers.models import LabelModel, listed
from labelers.patterns import Patterns
from labelers.statistics import VoteStatistics

_EXPLAINED = 0.95
_MISFIT = 1.5
_UNANIMITY = 0.8
_STRICTER, _STRICTEST = 0.6, 0.95
_ONE_SIDED = 0.8
_FEW = 10  # votes of which all are for one class, and yet tell nothing
_EVEN = 50.0  # votes: the prior of an accuracy that all classes share
_BALANCE = 25.0  # documents: functions that hardly tell classes apart tell little of how often each occurs
_ANCHOR = 100.0
_TYPICAL = 0.7  # accuracy of a labelling function, where nothing tells


_ONE_NUMBER = "Dawid-Skene with even errors: one accuracy per function explains how they vote"


@dataclass(frozen=True)
class _Seen:
    """What a fit goes by. strength: of each pair's dependence, (m, m)."""

    owner: LabelModel
    statistics: VoteStatistics
    rows: Patterns | None
    balance: np.ndarray | None
    strength: np.ndarray

    def fit(self, **options: Any) -> DawidSkene:
        """Dawid-Skene, in which copies share one vote."""
        model = DawidSkene(self.owner.k, self.owner.seed, shares=vote_shares(self.strength), **options)
        model._fit_checked(self.statistics, self.rows, self.balance)
        return model

    def gain(self, model: DawidSkene, other: DawidSkene) -> float:
        """How much greater the first one's log-likelihood is. Of pairs, each function stands in as many as there are others."""
        scale = len(self.statistics.functions) / 2 if self.rows is None else 1
        return (model.log_likelihood_ - other.log_likelihood_) * self.documents * scale

    @property
    def documents(self) -> float:
        """That the fits learn from: with statistics of a corpus, those of its sample."""
        return self.statistics.documents if self.rows is None else float(self.rows.counts.sum())

    def overdispersion(self, misfit: float) -> float:
        """Misfit per term, of the statistics, as it would be of the documents learned from: what dependence adds grows with
        their number."""
        return 1 + (misfit - 1) * self.documents / self.statistics.documents


class AutoLabelModel(LabelModel):
    """Chooses how much to learn about each function, from one accuracy to a full table, or to count votes, without a label.

    The simplest model that the votes do not contradict is the best one. In this order, copies sharing one vote throughout:

    1. Fewer than three functions that vote are counted: nothing can be learned about them.
    2. Dawid-Skene with even errors, one accuracy per function, unless full tables are better by more than their number of free
       entries (Akaike's criterion): first on `misfit` from the statistics, for which full tables need not be fitted, then, if
       that says so, and `misfit` per term is below 1.5, on the log-likelihood. Not for functions of which one always votes
       for the same class: it does not err evenly.
    3. Dawid-Skene with full tables, if they explain the votes (`explained` of the functions' correlations at least 0.95, and
       `misfit` per term below 1.5). Of functions that nearly all vote for one class only, as keywords do, the misfit is not
       asked, but that the fitted classes keep `unanimity` (below).
    4. Otherwise functions are not independent given the class, and classes can come to mean something else, a topic say. Where
       the fitted classes contradict documents on which all functions that vote agree (`unanimity` kept on fewer than 80 %;
       where nearly all functions vote for one class only, on so much more as more is unexplained, at most 95 %), votes are
       counted, those of rarer functions for more. Where they do not, tables of functions that vote for several classes are
       held near functions that are right 70 % of the time, the more firmly the worse the misfit: what they would learn is no
       longer accuracy.

    The limits were chosen on the made-up families of `synthetic`; that rarer functions should count for more was first seen on
    TREC's questions.

    `reason_` says in a sentence what was chosen and why; `chosen_` names it; `diagnostics_` holds what was looked at, as far as
    it had to be: `overlap` (share of documents with two votes or more), `sparsity` (1 - votes cast over votes possible),
    `one_sided` (share of the functions that vote for one class only), `dependent_pairs`, `effective_functions`, and `misfit`
    (chi-squared per term), `explained` and `unanimity` of the last model that was tried.
    """

    name = "auto"
    uses_rows = True
    reason_: str
    chosen_: str
    diagnostics_: dict[str, float]

    def _fit(self, statistics: VoteStatistics, rows: Patterns | None, balance: np.ndarray | None) -> None:
        voting = statistics.counts.sum(axis=1) > 0
        self.diagnostics_ = _describe(statistics)
        seen = _Seen(self, statistics, rows, balance, dependence(statistics))
        if voting.sum() < 3:
            why = f"{int(voting.sum())} of {len(voting)} functions vote, and it takes three to learn how good each of them is"
            self._count(seen, np.ones(len(voting)), why)
            return
        found = find_dependencies(statistics, strength=seen.strength)
        effective = float(vote_shares(seen.strength)[voting].sum())
        self.diagnostics_ |= {"dependent_pairs": float(len(found)), "effective_functions": effective}
        many = "" if not found else f", once {listed([f'{d.first} and {d.second}' for d in found], 3)} share their votes"
        more = int(voting.sum()) * (self.k**2 - 2)  # free entries: k² per function, in the place of coverage and accuracy
        even, enough = None, False
        if not _any_one_sided(statistics):
            even = seen.fit(errors="even", strength=_EVEN, balance_strength=_BALANCE)
            square, terms = misfit(statistics, even, seen.strength > 0)
            self.diagnostics_["misfit"] = square / terms
            enough = square - terms <= more
        if even is not None and enough:
            self._take(even, _ONE_NUMBER + many)
        else:
            self._free(seen, even, more, many)
        self.notes_ += [str(d) for d in found]

    def _free(self, seen: _Seen, even: DawidSkene | None, more: int, many: str) -> None:
        """Full tables as they are, held near typical functions, or none: by how well they explain the votes."""
        model, dependent = seen.fit(), seen.strength > 0
        if even is not None and seen.overdispersion(self.diagnostics_["misfit"]) < _MISFIT and seen.gain(model, even) <= more:
            self._take(even, _ONE_NUMBER + many)
            return
        explained = explained_correlation(seen.statistics, model, dependent)
        square, terms = misfit(seen.statistics, model, dependent)
        self.diagnostics_ |= {"misfit": square / terms, "explained": explained}
        told = f"fitted tables explain {min(max(explained, 0), 1):.0%} of how the functions go together"
        one_sided = self.diagnostics_["one_sided"] >= _ONE_SIDED
        over = seen.overdispersion(square / terms)
        if explained >= _EXPLAINED and over < _MISFIT and not one_sided:
            self._take(model, f"Dawid-Skene: {told}{many}")
            return
        kept = self.diagnostics_["unanimity"] = unanimity(seen.statistics, seen.rows, model)
        needed = min(_UNANIMITY + _STRICTER * max(_EXPLAINED - explained, 0), _STRICTEST) if one_sided else _UNANIMITY
        if explained >= _EXPLAINED and one_sided and kept >= needed:
            self._take(model, f"Dawid-Skene: {told}{many}")
        elif kept < needed:
            what = (
                "the fitted classes are others"
                if explained >= _EXPLAINED
                else "the functions are not independent given the class"
            )
            why = f"{what}: {told} and keep {kept:.0%} of unanimous votes"
            self._count(seen, rarity_weights(seen.statistics), f"{why}; rarer functions count for more")
        elif one_sided or over <= 1:
            self._take(model, f"Dawid-Skene: fitted tables keep {kept:.0%} of unanimous votes{many}")
        else:
            held = seen.fit(strength=model.strength * (1 + _ANCHOR * (over - 1)))
            held.accuracies_ = held.agreement_  # the tables are the prior's, and would tell that all functions are alike
            self._take(held, f"Dawid-Skene, held near functions that are right {held.accuracy:.0%} of the time: {told}{many}")

    def _count(self, seen: _Seen, weights: np.ndarray, why: str) -> None:
        model = MajorityVote(self.k, self.seed, weights, accuracy=max(_TYPICAL, 1.4 / self.k))
        model._fit_checked(seen.statistics, seen.rows, seen.balance)
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


def _describe(statistics: VoteStatistics) -> dict[str, float]:
    counts = statistics.counts
    voting = counts.sum(axis=1) > 0
    n, m = statistics.documents, len(counts)
    return {
        "overlap": statistics.overlapping / n,
        "sparsity": 1 - float(counts.sum()) / (n * m),
        "one_sided": float(((counts > 0).sum(axis=1) == 1)[voting].mean()) if voting.any() else 0.0,
    }


def _any_one_sided(statistics: VoteStatistics) -> bool:
    """Whether a function that votes more than a few times always votes for the same class: it does not err evenly."""
    counts = statistics.counts
    cast = counts.sum(axis=1)
    return bool(((cast > _FEW) & (counts.max(axis=1) == cast)).any())
