"""Label models: the interface that all of them share, their names, their files, and how probabilities become labels."""

from __future__ import annotations

import importlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import xxhash

from labelers.calibration import Calibrated
from labelers.patterns import Patterns
from labelers.posterior import posterior
from labelers.statistics import VoteStatistics, default_names
from labelers.votes import Votes, check_k, check_votes, dense_blocks

MODELS = {
    "auto": "labelers.auto:AutoLabelModel",
    "majority": "labelers.majority:MajorityVote",
    "dawid-skene": "labelers.dawid_skene:DawidSkene",
    "flyingsquid": "labelers.flyingsquid:FlyingSquid",
    "matrix-completion": "labelers.matrix_completion:MatrixCompletion",
}
"""Label models of votes alone: name to `module:class`, imported when one is used."""

_WITH_EMBEDDINGS = {"liger": "labelers.liger:Liger"}

TieBreak = Literal["abstain", "random", "true-random"]

_SAME = 1e-9
"""Probabilities closer than this are tied: sums in another order must not break a tie."""


class LabelModel(Calibrated, ABC):
    """Turns votes (n, m) into class probabilities (n, k).

    After `fit`: `functions` and `classes` (names), `class_balance_` (k,), `accuracies_` (m,) = P(vote = Y | it votes),
    `log_prior_` (k,) and `weights_` (m, k + 1, k): what a vote adds to each class's log-probability, at [i, vote + 1, class]
    (index 0: the function abstains). `notes_` are sentences about what the fit met: what it could not do, and did instead.
    `calibrate` mends the probabilities on a few documents of known class.
    """

    name: ClassVar[str]
    uses_rows: ClassVar[bool] = False
    """Whether `fit` learns from the distinct rows of the votes, and from statistics only where there are none."""
    parameters: ClassVar[tuple[str, ...]] = ("k", "seed")
    """What `__init__` takes, and an attribute of the same name keeps."""

    functions: tuple[str, ...]
    classes: tuple[str, ...]
    class_balance_: np.ndarray
    accuracies_: np.ndarray
    log_prior_: np.ndarray
    weights_: np.ndarray
    notes_: list[str]

    def __init__(self, k: int = 2, seed: int = 0) -> None:
        self.k, self.seed = check_k(k), check_seed(seed)
        self._seen: tuple[VoteStatistics, Patterns | None] | None = None

    def fit(
        self,
        votes: Votes | VoteStatistics,
        class_balance: Sequence[float] | np.ndarray | None = None,
        *,
        functions: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        sample: Votes | None = None,
    ) -> Self:
        """Fit from votes (n, m), dense or sparse, or from their statistics.

        class_balance: P(Y), (k,), if it is known; otherwise the model estimates it or takes it as uniform, as it documents.
        functions, classes: names, for messages and tables; statistics bring their own.
        sample: with statistics, the votes on a uniform sample of the documents (`VoteSample`), for models that learn more from
        rows than from statistics.
        ValueError: wrong votes or balance; no document or no function.
        """
        balance = check_balance(class_balance, self.k)
        if isinstance(votes, VoteStatistics):
            if len(votes.classes) != self.k:
                raise ValueError(f"the statistics are of {len(votes.classes)} classes, and the model is for k = {self.k}")
            statistics, rows = votes, None
            if self.uses_rows and sample is not None and sample.shape[0]:
                rows = Patterns.of(check_votes(sample, self.k, statistics.functions), self.k)
        else:
            statistics, rows = self._measure(votes, functions, classes)
        self._fit_checked(statistics, rows, balance)
        return self

    def partial_fit(
        self,
        votes: Votes | VoteStatistics,
        class_balance: Sequence[float] | np.ndarray | None = None,
        *,
        functions: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> Self:
        """Add votes to those seen by earlier calls, and fit on all of them: exactly what one `fit` on all gives.

        What is kept are statistics and, for models that learn from rows, the distinct rows and their counts.
        """
        balance = check_balance(class_balance, self.k)
        if isinstance(votes, VoteStatistics):
            if self.uses_rows:
                raise ValueError(f"{self.name} learns from rows: give partial_fit votes, or fit the merged statistics")
            statistics, rows = votes, None
        else:
            statistics, rows = self._measure(votes, functions, classes)
            if rows is not None and rows.rows is votes:
                rows = Patterns(rows.rows.copy(), rows.counts, self.k)  # the caller may fill the array with the next votes
        if self._seen is not None:
            statistics = self._seen[0] + statistics
            rows = None if rows is None or self._seen[1] is None else self._seen[1] + rows
        self._seen = (statistics, rows)
        self._fit_checked(statistics, rows, balance)
        return self

    def _measure(
        self, votes: Votes, functions: Sequence[str] | None, classes: Sequence[str] | None
    ) -> tuple[VoteStatistics, Patterns | None]:
        if classes is not None and len(classes) != self.k:
            raise ValueError(f"{len(classes)} classes are named, and the model is for k = {self.k}")
        checked = check_votes(votes, self.k, functions)
        classes = classes or default_names("", self.k)
        if not self.uses_rows:
            return VoteStatistics.measure(checked, functions, classes), None
        rows = Patterns.of(checked, self.k)
        if len(rows.rows) > checked.shape[0] // 4 or not checked.shape[1]:
            return VoteStatistics.measure(checked, functions, classes), rows
        return VoteStatistics.of_patterns(rows, functions or default_names("f", checked.shape[1]), classes), rows

    def _fit_checked(self, statistics: VoteStatistics, rows: Patterns | None, balance: np.ndarray | None) -> None:
        if not statistics.documents:
            raise ValueError(f"{self.name} cannot be fitted on no documents")
        if not statistics.functions:
            raise ValueError(f"{self.name} cannot be fitted on no labelling functions")
        self.functions, self.classes, self.notes_ = statistics.functions, statistics.classes, []
        self.calibration_ = None
        silent = [f for f, row in zip(statistics.functions, statistics.counts, strict=True) if not row.any()]
        if silent:
            self.notes_.append(f"{listed(silent)} never vote{'s' if len(silent) == 1 else ''}")
        self._fit(statistics, rows, balance)

    @abstractmethod
    def _fit(self, statistics: VoteStatistics, rows: Patterns | None, balance: np.ndarray | None) -> None:
        """Set `class_balance_`, `accuracies_`, `log_prior_` and `weights_`."""

    def predict_proba(self, votes: Votes) -> np.ndarray:
        """P(Y | votes), (n, k), rows sum to 1; calibrated, if the model is. A document without votes gets the prior."""
        checked = self._checked(votes)
        out = np.empty((checked.shape[0], self.k))
        for first, block in dense_blocks(checked):
            out[first : first + len(block)] = posterior(block, self.log_prior_, self.weights_)
        return self._calibrated(out)

    def predict(
        self,
        votes: Votes,
        tie_break: TieBreak = "abstain",
        ids: Sequence[str] | None = None,
    ) -> np.ndarray:
        """The likeliest class, (n,) int64, -1 for none.

        tie_break: tied documents get none (`abstain`), a class by a hash of their id or else of their row (`random`: the
        same in every run), or one by the model's seed (`true-random`).
        """
        return labels(self.predict_proba(votes), tie_break, ids, self.seed)

    def score(
        self,
        votes: Votes,
        gold: np.ndarray,
        metrics: Sequence[str] = ("accuracy",),
        tie_break: TieBreak = "random",
    ) -> dict[str, float]:
        """How the labels compare with gold classes (n,): `accuracy`, `f1` (of class 1), `macro_f1`, `coverage`, `log_loss`,
        `brier`. Documents without a label count as wrong. ValueError on other metrics or gold."""
        from labelers.metrics import measure

        probabilities = self.predict_proba(votes)
        return measure(probabilities, labels(probabilities, tie_break, None, self.seed), gold, metrics)

    def conditional_probs(self) -> np.ndarray:
        """P(vote | Y), (m, k + 1, k): [i, 0] abstains, [i, c + 1] votes for class c (Snorkel's order). Columns sum to 1."""
        self._need_fit()
        return self._conditional_probs()

    def _conditional_probs(self) -> np.ndarray:
        raise ValueError(f"{self.name} has no conditional probabilities: it keeps no table of what functions vote")

    def _checked(self, votes: Votes) -> Votes:
        self._need_fit()
        return check_votes(votes, self.k, self.functions)

    def _need_fit(self) -> None:
        if not hasattr(self, "functions"):
            raise ValueError(f"{self.name} is not fitted yet: call fit first")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to a file: JSON, or safetensors where it holds large arrays. Never a pickle."""
        Path(path).write_bytes(save_model(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The model that `save` wrote. ValueError if the file holds another model, or none."""
        model = load_model(Path(path).read_bytes(), str(path))
        if not isinstance(model, cls):
            raise ValueError(f"{path} holds a {model.name} model, not {cls.name}")
        return model

    def to_state(self) -> dict[str, Any]:
        """What `from_state` needs: JSON values, and numpy arrays."""
        self._need_fit()
        state = {name: getattr(self, name) for name in self.parameters}
        told = {n: v for n, v in vars(self).items() if n.endswith("_") and not n.startswith("_")}
        return state | {"functions": self.functions, "classes": self.classes} | told

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        model = cls(**{name: state[name] for name in cls.parameters})
        for name, value in state.items():
            if name not in cls.parameters:
                setattr(model, name, value)
        model.functions, model.classes = tuple(state["functions"]), tuple(state["classes"])
        return model


def check_seed(seed: Any) -> int:
    """A seed as an int. ValueError unless it is a whole number from 0."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed is {seed!r}: a whole number from 0")
    return int(seed)


def check_balance(class_balance: Sequence[float] | np.ndarray | None, k: int) -> np.ndarray | None:
    """P(Y) as (k,) float64. ValueError unless it has k positive entries that sum to one."""
    if class_balance is None:
        return None
    try:
        balance = np.asarray(class_balance, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"class_balance is {class_balance!r}: give {k} numbers, one share per class") from error
    if balance.shape != (k,):
        raise ValueError(f"class_balance has shape {balance.shape}, expected ({k},): one share per class")
    if not np.isfinite(balance).all() or (balance <= 0).any() or abs(balance.sum() - 1) > 1e-6:
        raise ValueError(f"class_balance is {balance.tolist()}: shares of the classes, above 0, that sum to 1")
    return balance / balance.sum()


def model_class(name: str) -> type[LabelModel]:
    """A label model's class. ValueError, with the names there are, on an unknown one."""
    if name not in MODELS:
        raise ValueError(f"there is no label model {name}; there are: {', '.join(MODELS)}")
    return _load(MODELS[name])


def _load(where: str) -> type[LabelModel]:
    module, attribute = where.split(":")
    return getattr(importlib.import_module(module), attribute)


_ARRAY = "array:"
_JSON = b'{\n "model"'


def save_model(model: LabelModel) -> bytes:
    """A fitted model as JSON; with arrays of more than a million numbers, as safetensors with the rest in its metadata."""
    state = {"model": model.name, **model.to_state()}
    large = {name: np.ascontiguousarray(v) for name, v in state.items() if isinstance(v, np.ndarray) and v.size > 1_000_000}
    told = {name: _told(value) for name, value in state.items() if name not in large}
    text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    if not large:
        return text.encode()
    from safetensors.numpy import save

    return save(large, {"menagerie": text})


def load_model(content: bytes, where: str = "the label model") -> LabelModel:
    """A fitted model from `save_model`. ValueError if the content is none; where: names its origin in the message."""
    try:
        if content.startswith(_JSON):
            state = json.loads(content)
        else:
            from safetensors.numpy import load

            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            state = json.loads(header["__metadata__"]["menagerie"]) | load(content)
        state = {name: _untold(value) for name, value in state.items()}
        name = state.pop("model")
        kind = _load(_WITH_EMBEDDINGS[name]) if name in _WITH_EMBEDDINGS else model_class(name)
        model = kind.from_state(state)
        _check_state(model)
        return model
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{where} is no file of a label model: {type(error).__name__}: {error}") from error


def _check_state(model: LabelModel) -> None:
    """KeyError or TypeError where a file left out what prediction needs, or has it of another shape."""
    m, k = len(model.functions), model.k
    if len(model.classes) != k:
        raise TypeError(f"{len(model.classes)} classes for k = {k}")
    for name, shape in (("class_balance_", (k,)), ("accuracies_", (m,)), ("log_prior_", (k,)), ("weights_", (m, k + 1, k))):
        if not hasattr(model, name):
            raise KeyError(name)
        if np.shape(getattr(model, name)) != shape:
            raise TypeError(f"{name} has shape {np.shape(getattr(model, name))}, expected {shape}")


def _told(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        # Floats as JSON numbers come back bit for bit; NaN and infinities do too, in Python's JSON.
        return {_ARRAY: value.dtype.str, "shape": value.shape, "values": value.ravel().tolist()}
    return {n: _told(v) for n, v in value.items()} if isinstance(value, dict) else value


def _untold(value: Any) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            return np.array(value["values"], np.dtype(value[_ARRAY])).reshape(value["shape"])
        return {n: _untold(v) for n, v in value.items()}
    return value


def labels(probabilities: np.ndarray, tie_break: str, ids: Sequence[str] | None = None, seed: int = 0) -> np.ndarray:
    """The likeliest class per row of (n, k) probabilities, (n,), -1 for none. See `LabelModel.predict`."""
    if tie_break not in ("abstain", "random", "true-random"):
        raise ValueError(f"tie_break is {tie_break!r}: abstain, random or true-random")
    if ids is not None and len(ids) != len(probabilities):
        raise ValueError(f"there are {len(ids)} ids for {len(probabilities)} documents")
    choice = probabilities.argmax(axis=1)
    top = probabilities[np.arange(len(probabilities)), choice]
    best = probabilities >= top[:, None] - _SAME
    tied = np.flatnonzero(best.sum(axis=1) > 1)
    if tie_break == "abstain":
        choice[tied] = -1
        return choice
    rng = np.random.default_rng(seed)
    for row in tied.tolist():
        among = np.flatnonzero(best[row])
        if tie_break == "true-random":
            choice[row] = rng.choice(among)
        else:
            key = str(row) if ids is None else str(ids[row])
            choice[row] = among[xxhash.xxh3_64_intdigest(key.encode()) % len(among)]
    return choice


def choose(probabilities: np.ndarray, cast: np.ndarray, ids: Sequence[str], tie_break: str) -> np.ndarray:
    """As `labels`, but a document without any vote gets no label. cast: votes that were cast, (n,)."""
    return np.where(cast > 0, labels(probabilities, tie_break, ids), -1)


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names for a sentence: the first few, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
