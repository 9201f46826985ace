"""Liger (Chen et al. 2022, arXiv 2203.13270): votes extended to near documents, accuracies that vary over embedding space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from labelers.dawid_skene import precision
from labelers.metrics import check_gold
from labelers.models import LabelModel, check_balance, labels, model_class
from labelers.neighbours import NearestVoters, Search, unit_rows
from labelers.posterior import posterior
from labelers.statistics import VoteStatistics, default_names
from labelers.votes import Votes, check_votes, to_dense

_BLOCK = 1 << 16
_JUDGED = 4000  # documents by which a radius is chosen
_BINS = 20
_SHARE = 0.5  # of what a function is above chance: what votes that it takes over must be


class Liger(LabelModel):
    """A labelling function that abstains on a document takes the vote of the nearest document on which it votes, if that one is
    near enough. What votes mean is learned from the votes as they were: extended ones depend on one another, and on where a
    document lies, which a model of them takes for the class. (The paper refits; where functions often abstain, that is worse.)

    base: the label model of the votes, by name; where `auto` cannot model them and counts them, nothing is extended without
    `radius` or `dev`. radius: least cosine similarity at which a vote is taken over, one number or one per function. Without
    it, each function's is chosen: on `dev` labels if `fit` gets them, else by how often the votes that it takes over agree with
    what the other functions say of those documents. parts: k-means cells, each with its own weights and class balance, shrunk
    to the global ones as if `strength` votes had shown those. search: `exact`, `approximate` or `auto` (see `NearestVoters`).
    support: most documents with votes that are kept per function; they are part of the fitted model, so that new documents
    are labelled the same way.

    After fit: `radius_` (m,), `support_` (s, d) float16 and `support_votes_` (s, m), `centres_` (parts, d).
    """

    name = "liger"
    parameters = ("k", "seed", "base", "radius", "parts", "strength", "search", "support")
    radius_: np.ndarray
    support_: np.ndarray
    support_votes_: np.ndarray
    centres_: np.ndarray
    part_weights_: np.ndarray
    part_log_prior_: np.ndarray

    def __init__(
        self,
        k: int = 2,
        seed: int = 0,
        base: str = "auto",
        radius: float | Sequence[float] | np.ndarray | None = None,
        parts: int = 4,
        strength: float = 50.0,
        search: Search = "auto",
        support: int = 100_000,
    ) -> None:
        super().__init__(k, seed)
        model_class(base)
        if parts < 1 or strength < 0 or support < 1:
            raise ValueError("parts and support are from 1, strength from 0")
        if search not in ("auto", "exact", "approximate"):
            raise ValueError(f"search is {search!r}: auto, exact or approximate")
        self.base, self.parts, self.strength, self.support = base, parts, strength, support
        self.search: Search = search
        self.radius = radius if radius is None or isinstance(radius, float | int) else np.asarray(radius, np.float64)
        self._index: NearestVoters | None = None

    def fit(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        votes: Votes,
        class_balance: Sequence[float] | np.ndarray | None = None,
        *,
        embeddings: Any = None,
        functions: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        dev: tuple[Votes, Any, np.ndarray] | None = None,
    ) -> Self:
        """Fit on votes (n, m) and embeddings (n, d), floats, of the same documents.

        dev: votes, embeddings and gold classes of a few labelled documents, for the radius. ValueError: embeddings of another
        length, of zeros, or not finite; statistics instead of votes.
        """
        if isinstance(votes, VoteStatistics):
            raise ValueError("liger extends votes by embeddings: fit it on the votes themselves, not on their statistics")
        if embeddings is None:
            raise ValueError("liger needs the documents' embeddings: fit(votes, embeddings=...)")
        check_balance(class_balance, self.k)
        dense = to_dense(check_votes(votes, self.k, functions))
        n, m = dense.shape
        if not n or not m:
            raise ValueError(f"liger cannot be fitted on {n} documents and {m} labelling functions")
        points = unit_rows(embeddings, n, "embeddings")
        names = tuple(functions) if functions is not None else default_names("f", m)
        told = tuple(classes) if classes is not None else default_names("", self.k)
        self.functions, self.classes, self.calibration_ = names, told, None
        self._keep_support(dense, points)
        plain = model_class(self.base)(self.k, self.seed).fit(dense, class_balance, functions=names, classes=told)
        for name in ("class_balance_", "accuracies_", "log_prior_", "weights_"):
            setattr(self, name, getattr(plain, name))
        self.notes_ = list(plain.notes_)
        if getattr(plain, "chosen_", "") == "majority" and self.radius is None and dev is None:
            self.radius_ = np.full(m, np.inf)
            self.notes_.append("votes were not extended: no model of the votes could judge how far")
        else:
            self.radius_ = self._radii(dense, points, plain, dev)
        unsupported = [f for f, v in zip(names, self.support_votes_.T, strict=True) if (v < 0).all()]
        if unsupported:
            self.notes_.append(f"{', '.join(unsupported)} cannot be extended: no document has their vote")
        self._fit_parts(dense, points)
        return self

    def partial_fit(self, *_: Any, **__: Any) -> Self:
        raise ValueError("liger needs all embeddings at once: it cannot be fitted on a stream")

    def _fit(self, *_: Any) -> None:
        raise AssertionError("Liger fits by fit")

    def extend(self, votes: Votes, embeddings: Any) -> np.ndarray:
        """Votes (n, m) int8 with those taken over from near documents of the training set."""
        checked = to_dense(self._checked(votes))
        return self._extended(checked, unit_rows(embeddings, len(checked), "embeddings", self.support_.shape[1]))

    def predict_proba(self, votes: Votes, embeddings: Any = None) -> np.ndarray:
        """P(Y | votes, embedding), (n, k). Embeddings are those of the documents, made as the training set's were."""
        if embeddings is None:
            raise ValueError("liger needs the documents' embeddings: predict_proba(votes, embeddings)")
        checked = to_dense(self._checked(votes))
        points = unit_rows(embeddings, len(checked), "embeddings", self.support_.shape[1])
        extended = self._extended(checked, points)
        part = self._parts(points)
        out = np.empty((len(checked), self.k))
        for p in range(len(self.centres_)):
            rows = part == p
            out[rows] = posterior(extended[rows], self.part_log_prior_[p], self.part_weights_[p])
        return self._calibrated(out)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, votes: Votes, embeddings: Any = None, tie_break: str = "abstain", ids: Sequence[str] | None = None
    ) -> np.ndarray:
        """As `LabelModel.predict`, with embeddings."""
        return labels(self.predict_proba(votes, embeddings), tie_break, ids, self.seed)

    def score(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        votes: Votes,
        gold: np.ndarray,
        embeddings: Any = None,
        metrics: Sequence[str] = ("accuracy",),
        tie_break: str = "random",
    ) -> dict[str, float]:
        """As `LabelModel.score`, with embeddings."""
        from labelers.metrics import measure

        probabilities = self.predict_proba(votes, embeddings)
        return measure(probabilities, labels(probabilities, tie_break, None, self.seed), gold, metrics)

    def _keep_support(self, votes: np.ndarray, points: np.ndarray) -> None:
        """Documents with a vote; of a function with more than `support` of them, a sample, without more than it of others."""
        rng = np.random.default_rng(self.seed)
        kept = np.full(votes.shape, -1, np.int8)
        for i, column in enumerate(votes.T):
            rows = np.flatnonzero(column >= 0)
            if len(rows) > self.support:
                rows = rng.choice(rows, self.support, replace=False)
            kept[rows, i] = column[rows]
        chosen = np.flatnonzero((kept >= 0).any(axis=1))
        self.support_, self.support_votes_ = points[chosen].astype(np.float16), kept[chosen]
        self._index = None

    def _voters(self, queries: int) -> NearestVoters:
        if self._index is None or (self.search == "auto" and not self._index.approximate):
            self._index = NearestVoters(
                unit_rows(self.support_, len(self.support_), "support"), self.support_votes_, self.search, self.seed, queries
            )
        return self._index

    def _extended(self, votes: np.ndarray, points: np.ndarray) -> np.ndarray:
        if not len(self.support_):
            return votes.copy()
        voters = self._voters(len(points))
        out = votes.copy()
        similarity, vote = voters.nearest(points, votes < 0)
        near = similarity > self.radius_
        out[near] = vote[near]
        return out

    def _radii(self, votes: np.ndarray, points: np.ndarray, plain: LabelModel, dev: Any) -> np.ndarray:
        """Least similarity (m,) per function, beyond any similarity (so, never) where nothing speaks for extending."""
        m = votes.shape[1]
        if self.radius is not None:
            radius = np.asarray(self.radius, np.float64)
            radius = np.full(m, radius) if radius.ndim == 0 else radius.copy()
            if radius.shape != (m,) or not np.isfinite(radius).all():
                raise ValueError(f"radius is a finite cosine similarity, or one per labelling function ({m})")
            return radius
        if not len(self.support_):
            return np.full(m, np.inf)
        if dev is not None:
            if not isinstance(dev, tuple | list) or len(dev) != 3:
                raise ValueError("dev is the votes, embeddings and gold classes of a few documents: give all three")
            dev_votes = to_dense(check_votes(dev[0], self.k, self.functions))
            belief = np.eye(self.k)[check_gold(dev[2], len(dev_votes), self.k)]
            judged, seen = dev_votes, unit_rows(dev[1], len(dev_votes), "dev embeddings", points.shape[1])
        else:
            cast = (votes >= 0).sum(axis=1)
            rows = np.flatnonzero(cast > 0)  # where others say something
            if len(rows) > _JUDGED:
                rows = np.random.default_rng(self.seed).choice(rows, _JUDGED, replace=False)
            judged, seen = votes[rows], points[rows]
            belief = plain.predict_proba(judged)
        radius = np.full(m, np.inf)
        mean = belief.mean(axis=0)
        nearest, votes_there = self._voters(len(points)).nearest(seen, judged < 0)
        right = _right(plain)
        for i in range(m):
            usable = np.flatnonzero(votes_there[:, i] >= 0)
            if not len(usable):
                continue
            vote, similarity = votes_there[usable, i], nearest[usable, i]
            said = belief[usable, vote]
            chance = float(mean[vote].mean())
            reliable = float(right[i]) if np.isfinite(right[i]) else 0.7
            radius[i] = _least_similarity(similarity, said, chance, max(reliable, chance))
        return radius

    def _fit_parts(self, votes: np.ndarray, points: np.ndarray) -> None:
        """Weights per part: what a vote means there, P(Y | λ_i = c) over P(Y), in the place of what it means everywhere, both
        as the global model sees the extended votes; shrunk to the latter by `strength` votes, and the balance likewise."""
        parts = min(self.parts, len(points)) if np.isfinite(self.radius_).any() else 1
        if parts == 1:
            self.centres_ = np.zeros((1, points.shape[1]), np.float32)
            self.part_weights_, self.part_log_prior_ = self.weights_[None], self.log_prior_[None]
            return
        import faiss

        means = faiss.Kmeans(points.shape[1], parts, niter=25, nredo=3, seed=self.seed, min_points_per_centroid=1)
        means.train(points)
        assert means.centroids is not None
        self.centres_ = means.centroids
        part, extended = self._parts(points), self._extended(votes, points)
        joint = np.zeros((parts, votes.shape[1], self.k, self.k))  # of vote and class
        documents = np.zeros((parts, self.k))
        for p in range(parts):
            rows = extended[part == p]
            belief = posterior(rows, self.log_prior_, self.weights_)
            documents[p] = belief.sum(axis=0)
            for c in range(self.k):
                joint[p, :, c] = (rows == c).T.astype(np.float64) @ belief
        strength = max(self.strength, 1e-9)
        balance = documents.sum(axis=0) / documents.sum()
        everywhere = (joint.sum(axis=0) + balance) / (joint.sum(axis=(0, 3)) + 1)[..., None]
        here = (joint + strength * everywhere) / (joint.sum(axis=3) + strength)[..., None]
        local = (documents + strength * balance) / (documents.sum(axis=1, keepdims=True) + strength)
        lift = np.log(local / balance)
        self.part_weights_ = np.repeat(self.weights_[None], parts, axis=0)
        self.part_weights_[:, :, 1:] += np.log(here / everywhere) - lift[:, None, None]
        self.part_log_prior_ = self.log_prior_ + lift

    def _parts(self, points: np.ndarray) -> np.ndarray:
        if len(self.centres_) == 1:
            return np.zeros(len(points), np.int64)
        length = (self.centres_**2).sum(axis=1)
        return np.concatenate(
            [(2 * points[a : a + _BLOCK] @ self.centres_.T - length).argmax(axis=1) for a in range(0, len(points), _BLOCK)]
        )


def _right(plain: LabelModel) -> np.ndarray:
    """How often each function is right, (m,), as the tables have it that the model's beliefs come from."""
    try:
        return precision(plain.conditional_probs(), plain.class_balance_)
    except ValueError:  # votes were counted
        return plain.accuracies_


def _least_similarity(similarity: np.ndarray, said: np.ndarray, chance: float, reliable: float) -> float:
    """The least similarity down to which votes that are taken over are right at least half as much above chance as the function
    itself is. said: P(the vote is right). Rates are by bins of equal size, made to fall with the distance."""
    order = np.argsort(-similarity)
    bins = max(1, min(_BINS, len(order) // 25))
    pieces = np.array_split(order, bins)
    prior = 5.0  # documents: a small bin is no better than chance until it shows
    rates = np.array([(said[p].sum() + prior * chance) / (len(p) + prior) for p in pieces])
    falling = _falling(rates, np.array([len(p) for p in pieces], float))
    enough = falling >= chance + _SHARE * (reliable - chance)
    if reliable <= chance or not enough[0]:
        return np.inf
    last = pieces[int(np.flatnonzero(enough)[-1])]
    return float(np.nextafter(similarity[last].min(), -np.inf))


def _falling(rates: np.ndarray, weights: np.ndarray) -> np.ndarray:
    from sklearn.isotonic import IsotonicRegression

    return IsotonicRegression(increasing=False).fit_transform(np.arange(len(rates)), rates, sample_weight=weights)
