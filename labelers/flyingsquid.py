"""FlyingSquid (Fu et al. 2020, arXiv 2002.11955): accuracies in closed form, from triplets of functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np

from labelers.balance import balance_from_accuracies
from labelers.chain import Chain, lagged_pairs
from labelers.dawid_skene import precision
from labelers.dependencies import dependence, vote_shares
from labelers.models import LabelModel, listed
from labelers.patterns import Patterns
from labelers.posterior import log_scores
from labelers.statistics import VoteStatistics
from labelers.triplets import Method, agreement_moments, recover_signs, triplet_strengths
from labelers.vote_tables import class_covariances, one_sided_table, two_sided_tables
from labelers.votes import Votes, check_votes, dense_blocks

_SIDES = 0.001


class FlyingSquid(LabelModel):
    """Closed-form label model for k classes, functions that abstain, one-sided functions, dependencies and sequences.

    The posterior is P(Y)·Π P(λ_i | Y): the class prior counts once. Given `lengths`, rows are spans or frames in order, and a
    chain over adjacent classes joins them.

    method: how triplets are combined, see `triplets.triplet_strengths`. balance: the class balance that is not given is
    `uniform`, or the `estimate` of `balance_from_accuracies`. signs: find functions that are worse than chance; otherwise all
    are taken to be better. clip: |E[λY]| is at most the coverage, and tables that cannot be are mended. one_sided: functions
    that vote for one class get their own tables, from covariances; for them "abstains whatever the class" is false. strength:
    accuracies are shrunk to `accuracy` as if that many votes had shown it, so that sparse functions stay sane. dependencies:
    pairs of names or numbers that are not independent given the class, or `auto` to find them; they are left out of triplets,
    and share their votes.

    With method="mean" (or "median"), balance="uniform", signs=False, clip=False, one_sided=False, strength=0, dependencies=()
    the accuracies are those of the published code (`joint_accuracies_`), and with an even balance its posterior is, too.

    After fit: `joint_accuracies_` (m,) = P(λ_i = Y), `accuracies_` that over the coverage, `standard_errors_` (m,) of the
    accuracies before they are shrunk (infinite where no triplet tells), `tables_`, `transition_` (k, k) with sequences.
    """

    name = "flyingsquid"
    parameters = (
        "k", "seed", "method", "balance", "signs", "clip", "one_sided", "strength", "accuracy", "dependencies",
    )  # fmt: skip
    joint_accuracies_: np.ndarray
    standard_errors_: np.ndarray
    tables_: np.ndarray
    transition_: np.ndarray | None

    def __init__(
        self,
        k: int = 2,
        seed: int = 0,
        method: Method = "weighted",
        balance: Literal["uniform", "estimate"] = "estimate",
        signs: bool = True,
        clip: bool = True,
        one_sided: bool = True,
        strength: float = 10.0,
        accuracy: float = 0.7,
        dependencies: Sequence[Sequence[str | int]] | Literal["auto"] = "auto",
    ) -> None:
        super().__init__(k, seed)
        if method not in ("mean", "median", "weighted"):
            raise ValueError(f"method is {method!r}: mean, median or weighted")
        if balance not in ("uniform", "estimate"):
            raise ValueError(f"balance is {balance!r}: uniform or estimate")
        if strength < 0 or not 0 < accuracy < 1:
            raise ValueError("strength is from 0, and accuracy between 0 and 1")
        self.method: Method = method
        self.balance, self.signs, self.clip, self.one_sided = balance, signs, clip, one_sided
        self.strength, self.accuracy = strength, accuracy
        self.dependencies = dependencies if dependencies == "auto" else _pairs(dependencies)
        self._lagged: np.ndarray | None = None

    def fit(
        self,
        votes: Votes | VoteStatistics,
        class_balance: Sequence[float] | np.ndarray | None = None,
        *,
        functions: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        sample: Votes | None = None,
        lengths: Sequence[int] | np.ndarray | None = None,
    ) -> Self:
        """As `LabelModel.fit`. lengths: of the sequences that the rows of votes (n, m) make up, in order; adjacent rows then
        inform one another."""
        self.transition_ = None
        super().fit(votes, class_balance, functions=functions, classes=classes, sample=sample)
        if lengths is not None:
            if isinstance(votes, VoteStatistics):
                raise ValueError("sequences are fitted from votes: statistics do not hold which rows are adjacent")
            self._fit_chain(lagged_pairs(check_votes(votes, self.k), self.k, lengths))
        return self

    def partial_fit(
        self,
        votes: Votes | VoteStatistics,
        class_balance: Sequence[float] | np.ndarray | None = None,
        *,
        functions: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        lengths: Sequence[int] | np.ndarray | None = None,
    ) -> Self:
        """As `LabelModel.partial_fit`; whole sequences at a time."""
        self.transition_ = None
        super().partial_fit(votes, class_balance, functions=functions, classes=classes)
        if lengths is not None:
            if isinstance(votes, VoteStatistics):
                raise ValueError("sequences are fitted from votes: statistics do not hold which rows are adjacent")
            adjacent = lagged_pairs(check_votes(votes, self.k), self.k, lengths)
            self._lagged = adjacent if self._lagged is None else self._lagged + adjacent
        if self._lagged is not None:
            self._fit_chain(self._lagged)
        return self

    def _fit(self, statistics: VoteStatistics, rows: Patterns | None, balance: np.ndarray | None) -> None:
        m, k, n = len(statistics.functions), self.k, statistics.documents
        shares = statistics.counts / n
        coverage = shares.sum(axis=1)
        depends = self._dependencies(statistics)
        moments, errors = agreement_moments(statistics)
        usable = ~np.eye(m, dtype=bool) & ~(depends > 0)
        if self.clip:  # a pair that never meets is no evidence; the published code takes it for one of no agreement
            usable &= statistics.pair_overlaps() > 0
        strength, error, rests = triplet_strengths(moments, errors, self.method, usable)
        if self.signs:
            strength = strength * recover_signs(np.where(usable, moments, 0), errors)
        if self.clip:
            strength = np.clip(strength, -coverage / (k - 1 if k > 2 else 1), coverage)
        self.joint_accuracies_ = ((k - 1) * strength + coverage) / k
        with np.errstate(divide="ignore", invalid="ignore"):
            accuracy = np.where(coverage > 0, self.joint_accuracies_ / coverage, np.nan)
            self.standard_errors_ = np.where(coverage > 0, (k - 1) / k * error / coverage, np.inf)
        accuracy = self._shrink(accuracy, self.standard_errors_, rests)
        lonely = [f for f, r, c in zip(statistics.functions, rests, coverage, strict=True) if not r and c > 0]
        if lonely:
            self.notes_.append(f"no triplet holds {listed(lonely)}: taken to be right {self.accuracy:.0%} of the time")
        if balance is None:
            uniform = np.full(k, 1 / k)
            two = ~self._sided(statistics) if self.one_sided else np.ones(m, bool)
            told = np.where(two, accuracy, np.nan)
            balance = uniform if self.balance == "uniform" else balance_from_accuracies(statistics, told)
        self.class_balance_ = balance
        self.tables_ = two_sided_tables(shares, np.nan_to_num(accuracy, nan=1 / k) * coverage, balance, self.clip)
        if self.one_sided:
            self._one_sided_tables(statistics, usable, shares)
        self.accuracies_ = np.where(coverage > 0, precision(self.tables_, balance), np.nan)
        self.weights_ = np.log(self.tables_) * vote_shares(depends)[:, None, None]
        self.log_prior_ = np.log(balance)

    def _dependencies(self, statistics: VoteStatistics) -> np.ndarray:
        """Strength of each pair's dependence, (m, m), 0 for independent ones. Pairs that were named count even if weak."""
        m = len(statistics.functions)
        if self.dependencies == "auto":
            return dependence(statistics)
        strength = np.zeros((m, m))
        if self.dependencies:
            measured = dependence(statistics, least=0.0, significance=0.0)
            for pair in self.dependencies:
                i, j = (self._number(f, statistics.functions) for f in pair)
                strength[i, j] = strength[j, i] = max(measured[i, j], 1e-9)
        return strength

    def _number(self, function: str | int, names: tuple[str, ...]) -> int:
        if isinstance(function, str) and function in names:
            return names.index(function)
        if isinstance(function, int) and 0 <= function < len(names):
            return function
        raise ValueError(f"dependencies name {function!r}, which is no labelling function; there are: {', '.join(names)}")

    def _shrink(self, accuracy: np.ndarray, error: np.ndarray, rests: np.ndarray) -> np.ndarray:
        """Towards `accuracy` by precision: the prior is that of `strength` votes."""
        if not self.strength:
            return accuracy
        prior = self.accuracy * (1 - self.accuracy) / self.strength
        with np.errstate(divide="ignore", invalid="ignore"):
            trust = np.where(rests > 0, prior / (prior + error**2), 0)
        return np.where(np.isnan(accuracy), np.nan, trust * np.nan_to_num(accuracy) + (1 - trust) * self.accuracy)

    def _sided(self, statistics: VoteStatistics) -> np.ndarray:
        """Functions that vote for one class only, or nearly, (m,) bool."""
        counts = statistics.counts
        cast = counts.sum(axis=1)
        return (cast > 0) & (counts.max(axis=1) >= (1 - _SIDES) * cast)

    def _one_sided_tables(self, statistics: VoteStatistics, usable: np.ndarray, shares: np.ndarray) -> None:
        """Replace the tables of one-sided functions: their votes' covariances with the others' tell how much more often they
        fire on their class, at any class balance."""
        sided, balance = self._sided(statistics), self.class_balance_
        for c in range(self.k):
            chosen = np.flatnonzero(sided & (statistics.counts.argmax(axis=1) == c))
            if not len(chosen):
                continue
            covariance, errors = class_covariances(statistics, c)
            strength, error, rests = triplet_strengths(covariance, errors, self.method, usable)
            if self.signs:
                strength = strength * recover_signs(np.where(usable, covariance, 0), errors)
            spread = np.sqrt(balance[c] * (1 - balance[c]))
            for i in chosen:
                share = shares[i, c]
                lift = self.accuracy / (1 - self.accuracy) * (self.k - 1)
                usual = lift * balance[c] / (lift * balance[c] + 1 - balance[c])  # precision of a typical function
                right = strength[i] * spread / share + balance[c]  # P(Y = c | λ = c), its gap told otherwise
                if self.strength:
                    prior = usual * (1 - usual) / self.strength
                    trust = prior / (prior + (error[i] * spread / share) ** 2) if rests[i] and np.isfinite(error[i]) else 0.0
                    right = trust * right + (1 - trust) * usual
                right = float(np.clip(right, 0.0, 1.0))
                gap = (right - balance[c]) * share / (balance[c] * (1 - balance[c]))
                self.tables_[i] = one_sided_table(share, gap, c, balance)
        self.tables_ = np.maximum(self.tables_, 1e-12)

    def _fit_chain(self, lagged: np.ndarray) -> None:
        chain = Chain.fit(lagged, self.tables_, self.class_balance_)
        self.transition_ = chain.transition
        self.class_balance_ = chain.start
        self.log_prior_ = np.log(chain.start)

    def predict_proba(self, votes: Votes, lengths: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """P(Y | votes), (n, k). lengths: of the sequences that the rows make up; rows are then told by their whole sequence.
        ValueError for lengths where the fit had none."""
        if lengths is None:
            return super().predict_proba(votes)
        checked = self._checked(votes)
        if self.transition_ is None:
            raise ValueError("the model was fitted without lengths: it knows nothing of sequences")
        zero = np.zeros(self.k)
        scores = np.concatenate(
            [log_scores(b, zero, self.weights_).T for _, b in dense_blocks(checked)] or [np.empty((0, self.k))]
        )
        return self._calibrated(Chain(self.class_balance_, self.transition_).marginals(scores, lengths))

    def _conditional_probs(self) -> np.ndarray:
        return self.tables_


def _pairs(dependencies: Sequence[Sequence[str | int]]) -> tuple[tuple[str | int, ...], ...]:
    for pair in [dependencies] if isinstance(dependencies, str) else dependencies:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(f"dependencies hold {pair!r}: give pairs of two different labelling functions, or 'auto'")
    return tuple(tuple(pair) for pair in dependencies)
