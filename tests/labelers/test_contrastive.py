from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from labelers.contrastive import ContrastiveEmbedder, spread, supcon, tabi  # noqa: E402
from labelers.encoder import EncoderConfig, Hashed  # noqa: E402
from tests.labelers.test_embeddings import separation, stored, texts_of_topics  # noqa: E402


def similarity(a: torch.Tensor, b: torch.Tensor, temperature: float) -> float:
    return float(a @ b / (a.norm() * b.norm())) / temperature


def supcon_by_loops(points: torch.Tensor, labels: list[int], temperature: float) -> float:
    losses = []
    for i in range(len(points)):
        positives = [j for j in range(len(points)) if j != i and labels[j] == labels[i]]
        negatives = [
            math.exp(similarity(points[i], points[j], temperature)) for j in range(len(points)) if labels[j] != labels[i]
        ]
        terms = []
        for p in positives:
            e = math.exp(similarity(points[i], points[p], temperature))
            terms.append(math.log(e / (e + sum(negatives))))
        if positives:
            losses.append(-sum(terms) / len(positives))
    return sum(losses) / len(losses) if losses else 0.0


def spread_by_loops(
    views: tuple[torch.Tensor, torch.Tensor], labels: list[int], temperature: float, a: float, b: float
) -> float:
    total, n = 0.0, len(labels)
    for one, two in (views, views[::-1]):
        for i in range(n):
            e = [math.exp(similarity(one[i], two[j], temperature)) for j in range(n)]
            same = [j for j in range(n) if labels[j] == labels[i]]
            against = sum(e[j] for j in range(n) if labels[j] != labels[i])
            supervised = -sum(math.log(e[p] / (e[p] + against)) for p in same) / len(same)
            total += (a * supervised - b * math.log(e[i] / sum(e[p] for p in same))) / (a + b)
    return total / (2 * n)


@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 0], [0] * 6, [0, 1, 2, 3, 4, 5]])
def test_losses_are_those_of_their_definitions(labels: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    told = torch.tensor(labels)
    for temperature in (0.1, 0.5):
        assert float(supcon(one, told, temperature)) == pytest.approx(supcon_by_loops(one, labels, temperature))
        for a, b in ((1.0, 1.0), (1.0, 0.0), (0.3, 2.0)):
            by_hand = spread_by_loops((one, two), labels, temperature, a, b)
            assert float(spread(one, two, told, temperature, a, b)) == pytest.approx(by_hand)


def test_tabi_weighs_types_and_entities() -> None:
    generator = torch.Generator().manual_seed(1)
    queries, entities = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (5, 3))
    of, ids, types = [0, 1, 2, 0, 1], [0, 1, 2], [0, 0, 1, 0, 0]
    by_hand = 0.05 * (
        0.3 * supcon_by_loops(queries, types, 0.05) + 0.7 * supcon_by_loops(torch.cat((queries, entities)), of + ids, 0.05)
    )
    assert float(tabi(queries, entities, torch.tensor(of), torch.tensor(ids), torch.tensor(types), 0.3, 0.05)) == pytest.approx(
        by_hand
    )


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 2, 3]])
def test_gradients_are_finite_and_right(labels: list[int]) -> None:
    generator = torch.Generator().manual_seed(2)
    one, two = (torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    told = torch.tensor(labels)
    assert torch.autograd.gradcheck(lambda a: supcon(a, told, 0.5), (one,))
    assert torch.autograd.gradcheck(lambda a, b: spread(a, b, told, 0.5), (one, two))


def test_low_temperatures_do_not_overflow() -> None:
    points = torch.randn(8, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
    loss = supcon(points, torch.tensor([0, 1] * 4), 1e-3)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(points.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["spread", "supcon"])
def test_weak_labels_teach_an_embedder(loss: str, tmp_path: Path) -> None:
    texts, topics = texts_of_topics(300)
    rng = np.random.default_rng(0)
    said = np.where(rng.random(300) < 0.2, 1 - topics, topics)  # a fifth of the labels is wrong
    probabilities = np.where(np.arange(2) == said[:, None], 0.8, 0.2)
    probabilities[:20] = 0.5  # no label at all
    config = EncoderConfig(features=4096, width=16, dimension=8)
    embedder = ContrastiveEmbedder.fit(texts, probabilities, loss, config, epochs=8, batch=64)  # type: ignore[arg-type]
    assert separation(embedder) > {"spread": 0.5, "supcon": 0.2}[loss]
    loaded = stored(embedder, tmp_path)
    new = [*texts_of_topics(5, 3)[0], "", "?"]
    assert np.allclose(loaded.embed(new), embedder.embed(new)) and not embedder.embed(new)[5:].any()


@pytest.mark.parametrize(
    ("probabilities", "told"),
    [
        (np.full((3, 2), 0.5), "0 of 3 documents have a class of probability 0.6"),
        (np.ones((2, 2)), "need probabilities"),
        (np.ones(3), "need probabilities"),
    ],
)
def test_labels_that_teach_nothing_are_refused(probabilities: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ContrastiveEmbedder.fit(["a", "b", "c"], probabilities)


def test_views_drop_words_but_never_all() -> None:
    texts = ["one two three four", "word", ""]
    hashed = Hashed(texts, 512)
    rng, rows = np.random.default_rng(0), np.array([1, 0, 2])
    assert hashed.empty.tolist() == [False, False, True]
    for _ in range(20):
        bags = hashed.bags(rows, 0.2, rng)
        lengths = np.diff([*bags.offsets.tolist(), len(bags.words)])
        assert lengths[0] == 1 and 1 <= lengths[1] <= 7 and lengths[2] == 0
        sums = [float(bags.weights[a : a + n].sum()) for a, n in zip(bags.offsets.tolist(), lengths.tolist(), strict=True)]
        assert sums[:2] == pytest.approx([1, 1])


def test_an_unknown_loss_is_told() -> None:
    with pytest.raises(ValueError, match="no contrastive loss 'triplet'; there are: supcon, spread"):
        ContrastiveEmbedder.fit(["a b", "c d"], np.eye(2), "triplet")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not be below 0, nor both 0"):
        spread(torch.ones(2, 2), torch.ones(2, 2), torch.tensor([0, 1]), supervised=0, spreading=0)
