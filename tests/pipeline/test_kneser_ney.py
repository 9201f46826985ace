"""N-gram models: against the formulas written out on dictionaries, against KenLM, and against lmplz where that is installed."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import kenlm
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.kneser_ney import FALLBACK_DISCOUNTS, discounts, estimate
from pipeline.ngram import OrderStatistics, prune_thresholds

Gram = tuple[str, ...]
SPECIAL = ["<unk>", "<s>", "</s>"]


class Formula:
    """Chen and Goodman's modified Kneser-Ney, read off the page: slow, and nothing shared with what is tested."""

    def __init__(self, sentences: Sequence[Sequence[str]], order: int, prune: Sequence[int] = (0,)) -> None:
        self.order = order
        occurrences: Counter[Gram] = Counter()
        before: dict[Gram, set[str]] = defaultdict(set)
        for sentence in sentences:
            told = ["<s>", *sentence, "</s>"]
            for n in range(1, order + 1):
                for i in range(len(told) - n + 1):
                    occurrences[tuple(told[i : i + n])] += 1
                    if i:
                        before[tuple(told[i : i + n])].add(told[i - 1])
        del occurrences[("<s>",)]
        self.count = {
            gram: times if len(gram) == order or gram[0] == "<s>" else len(before[gram]) for gram, times in occurrences.items()
        }
        thresholds = {n: prune[min(n, len(prune)) - 1] for n in range(1, order + 1)}
        self.kept = {gram for gram, times in occurrences.items() if times > thresholds[len(gram)]}
        self.discounts = {n: self._discounts(n) for n in range(1, order + 1)}
        self.words = {gram[0] for gram in self.count if len(gram) == 1}
        self.after: dict[Gram, list[str]] = defaultdict(list)
        for gram in self.count:
            self.after[gram[:-1]].append(gram[-1])

    def _discounts(self, n: int) -> tuple[float, float, float]:
        times = Counter(count for gram, count in self.count.items() if len(gram) == n)
        if not (times[1] and times[2] and times[3]):
            return FALLBACK_DISCOUNTS
        y = times[1] / (times[1] + 2 * times[2])
        found = (1 - 2 * y * times[2] / times[1], 2 - 3 * y * times[3] / times[2], 3 - 4 * y * times[4] / times[3])
        return found if all(0 <= d <= k for k, d in enumerate(found, 1)) else FALLBACK_DISCOUNTS

    def discount(self, gram: Gram) -> float:
        return self.discounts[len(gram)][min(self.count[gram], 3) - 1]

    def backoff(self, context: Gram) -> float:
        total = sum(self.count[*context, w] for w in self.after[context])
        freed = sum(
            self.discount((*context, w)) if (*context, w) in self.kept else self.count[*context, w] for w in self.after[context]
        )
        return freed / total

    def probability(self, word: str, context: Gram) -> float:
        """p(word | context), however long the context."""
        context = context[-(self.order - 1) :]
        if context and context not in self.after:
            return self.probability(word, context[1:])
        words = len(self.words) + 1  # and <unk>
        lower = self.probability(word, context[1:]) if context else 1 / words
        total = sum(self.count[*context, w] for w in self.after[context])
        gram = (*context, word)
        own = (self.count[gram] - self.discount(gram)) / total if gram in self.kept else 0.0
        return own + self.backoff(context) * lower

    def score(self, sentence: Sequence[str]) -> float:
        told = ["<s>", *sentence, "</s>"]
        return sum(math.log10(self.probability(w, tuple(told[:i]))) for i, w in enumerate(told) if i)


def encode(sentences: Sequence[Sequence[str]]) -> tuple[list[np.ndarray], list[str]]:
    vocabulary = SPECIAL + sorted({word for sentence in sentences for word in sentence})
    ids = {word: i for i, word in enumerate(vocabulary)}
    return [np.array([ids[w] for w in s], np.uint32) for s in sentences], vocabulary


def read_arpa(path: Path) -> dict[str, tuple[float, float]]:
    """Every n-gram with log10 probability and log10 backoff."""
    found = {}
    for line in path.read_text().split("\n"):
        fields = line.split("\t")
        if len(fields) > 1:
            found[fields[1]] = (float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0)
    return found


def load(path: Path) -> kenlm.Model:
    config = kenlm.Config()
    config.arpa_complain, config.show_progress = kenlm.ARPALoadComplain.NONE, False
    return kenlm.Model(str(path), config)


def some_text(seed: int, sentences: int, words: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[f"x{w}" for w in rng.zipf(1.4, rng.integers(0, 25)).clip(1, words)] for _ in range(sentences)]


def test_a_bigram_model_by_hand(tmp_path: Path) -> None:
    """Counts of counts are degenerate here, so that D1, D2, D3+ are 1/2, 1, 3/2."""
    sentences, vocabulary = encode([["a", "b"], ["a", "a"], ["b"]])
    estimate(sentences, vocabulary, 2, tmp_path / "m.arpa")
    # Bigrams: <s>a 2, <s>b 1, ab 1, b</s> 2, aa 1, a</s> 1.
    # Unigrams count their left neighbours: a follows <s>, a (2); b follows <s>, a (2); </s> follows a, b (2). Together 6.
    # All three are discounted by 1, so that half the mass is uniform over a, b, </s> and <unk>.
    uniform = 3 / 6 / 4
    a = b = end = (2 - 1) / 6 + uniform
    # After <s>: 3 in all; a loses 1, b loses 1/2.
    after_start = 1.5 / 3
    # After a: b, a, </s>, each once.
    after_a = 1.5 / 3
    # After b: </s> twice.
    after_b = 1 / 2
    expected = {
        "<unk>": (uniform, 1), "<s>": (1, after_start), "</s>": (end, 1), "a": (a, after_a), "b": (b, after_b),
        "<s> a": (1 / 3 + after_start * a, 1), "<s> b": (0.5 / 3 + after_start * b, 1),
        "a a": (0.5 / 3 + after_a * a, 1), "a b": (0.5 / 3 + after_a * b, 1), "a </s>": (0.5 / 3 + after_a * end, 1),
        "b </s>": (1 / 2 + after_b * end, 1),
    }  # fmt: skip
    found = read_arpa(tmp_path / "m.arpa")
    assert found.keys() == expected.keys()
    for gram, (probability, backoff) in expected.items():
        assert found[gram] == pytest.approx((math.log10(probability), math.log10(backoff)), abs=1e-6), gram
    text = (tmp_path / "m.arpa").read_text()
    assert text.startswith("\\data\\\nngram 1=5\nngram 2=6\n\n\\1-grams:\n") and text.endswith("\n\\end\\\n")


@pytest.mark.parametrize(("order", "prune"), [(2, (0,)), (3, (0,)), (5, (0,)), (5, (0, 0, 1)), (4, (0, 1, 2))])
def test_kenlm_reads_what_the_formula_says(tmp_path: Path, order: int, prune: tuple[int, ...]) -> None:
    text = some_text(order, 150, 12)
    formula = Formula(text, order, prune)
    sentences, vocabulary = encode(text)
    made = estimate(sentences, vocabulary, order, tmp_path / "m.arpa", prune=prune)
    assert made.discounts == {n: pytest.approx(d) for n, d in formula.discounts.items()}
    assert any(n not in made.fallback for n in made.discounts), "the closed form is tested too"
    assert made.tokens == sum(len(s) + 1 for s in text)
    model = load(tmp_path / "m.arpa")
    assert model.order == order
    for sentence in [*text[:40], *some_text(99, 40, 14), ["never", "x1", "seen"], []]:
        assert model.score(" ".join(sentence)) == pytest.approx(formula.score(sentence), abs=1e-4, rel=1e-5)
    found = read_arpa(tmp_path / "m.arpa")
    grams = {" ".join(gram) for gram in formula.kept} | {"<s>", "<unk>"}
    assert found.keys() == grams, "pruning takes what is rare, and nothing else"
    for gram in sorted(formula.kept):
        assert found[" ".join(gram)][0] == pytest.approx(math.log10(formula.probability(gram[-1], gram[:-1])), abs=1e-5)


WORDS = st.lists(st.lists(st.sampled_from("abcdef"), max_size=8), min_size=1, max_size=30)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    WORDS,
    st.lists(st.sampled_from(["a", "b", "c", "z"]), max_size=5),
    st.integers(2, 5),
    st.sampled_from([(), (0, 0, 1), (0, 1)]),
)
def test_probabilities_after_any_context_add_up_to_one(
    tmp_path: Path, text: list[list[str]], context: list[str], order: int, prune: tuple[int, ...]
) -> None:
    sentences, vocabulary = encode(text)
    estimate(sentences, vocabulary, order, tmp_path / "m.arpa", prune=prune[:order])  # one threshold per order at most
    model = load(tmp_path / "m.arpa")
    for begin in (True, False):
        state, after = kenlm.State(), kenlm.State()
        (model.BeginSentenceWrite if begin else model.NullContextWrite)(state)
        for word in context:
            model.BaseScore(state, word, after)
            state, after = after, kenlm.State()
        seen = {word for sentence in text for word in sentence}
        total = sum(10 ** model.BaseScore(state, word, after) for word in [*seen, "</s>", "<unk>"])
        assert total == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("prune", [(), (0, 0, 1)])
def test_chunks_and_partitions_leave_no_trace(tmp_path: Path, prune: tuple[int, ...]) -> None:
    sentences, vocabulary = encode(some_text(3, 300, 40))
    whole = estimate(sentences, vocabulary, 5, tmp_path / "whole.arpa", prune=prune)
    parted = estimate(iter(sentences), vocabulary, 5, tmp_path / "parted.arpa", prune=prune, chunk_tokens=500, partitions=8)
    assert whole == parted
    assert sorted((tmp_path / "whole.arpa").open()) == sorted((tmp_path / "parted.arpa").open())
    estimate(sentences, vocabulary, 5, tmp_path / "again.arpa", prune=prune, chunk_tokens=500, partitions=8)
    assert (tmp_path / "again.arpa").read_bytes() == (tmp_path / "parted.arpa").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.arpa", "parted.arpa", "whole.arpa"], "no scratch is left"


def test_discounts_are_those_of_chen_and_goodman() -> None:
    found = discounts(OrderStatistics(np.array([40, 10, 5, 3])))
    y = 40 / 60
    assert found == pytest.approx((1 - 2 * y * 10 / 40, 2 - 3 * y * 5 / 10, 3 - 4 * y * 3 / 5))
    assert discounts(OrderStatistics(np.array([40, 0, 5, 3]))) is None, "no n-gram was seen twice"
    assert discounts(OrderStatistics(np.array([1, 1, 100, 1]))) is None, "D2 would be negative"
    assert discounts(OrderStatistics(np.array([40, 10, 5, 0]))) == pytest.approx((1 - 2 * y / 4, 2 - 3 * y / 2, 3))


def test_bad_parameters_are_named(tmp_path: Path) -> None:
    sentences, vocabulary = encode([["a"]])
    with pytest.raises(ValueError, match="order 7: KenLM reads models of order 2 to 6"):
        estimate(sentences, vocabulary, 7, tmp_path / "m.arpa")
    with pytest.raises(ValueError, match="no text"):
        estimate([], vocabulary, 3, tmp_path / "m.arpa")
    for prune in ((1,), (0, 2, 1), (0, 0, 0, 0)):
        with pytest.raises(ValueError, match="never fall"):
            prune_thresholds(prune, 3)
    assert prune_thresholds((0, 1), 4) == (0, 1, 1, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("lmplz") is None, reason="lmplz of KenLM is not on the PATH")
@pytest.mark.parametrize("prune", [(0,), (0, 0, 1), (0, 1, 1, 2)])
def test_lmplz_gives_the_same_model(tmp_path: Path, prune: tuple[int, ...]) -> None:
    text = some_text(5, 2000, 60)
    sentences, vocabulary = encode(text)
    estimate(sentences, vocabulary, 5, tmp_path / "ours.arpa", prune=prune)
    (tmp_path / "text").write_text("".join(" ".join(s) + "\n" for s in text))
    command = ["lmplz", "-o", "5", "-S", "500M", "-T", str(tmp_path), "--discount_fallback", "--prune", *map(str, prune)]
    command += ["--text", str(tmp_path / "text"), "--arpa", str(tmp_path / "theirs.arpa")]
    subprocess.run(command, check=True, capture_output=True)
    ours, theirs = read_arpa(tmp_path / "ours.arpa"), read_arpa(tmp_path / "theirs.arpa")
    assert ours.keys() == theirs.keys()
    for gram, values in theirs.items():
        assert ours[gram] == pytest.approx(values, abs=2e-5), gram
