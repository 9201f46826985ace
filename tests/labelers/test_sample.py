from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from labelers.auto import AutoLabelModel
from labelers.sample import VoteSample
from labelers.statistics import VoteStatistics
from labelers.synthetic import generate

IDS = [f"d/{i}" for i in range(3000)]
VOTES = generate("asymmetric", 3, n=3000).votes


def test_a_sample_is_the_same_however_documents_are_split() -> None:
    whole = VoteSample.measure(VOTES, IDS, size=500)
    assert whole.votes.shape == (500, VOTES.shape[1])
    parts = [VoteSample.measure(VOTES[a : a + 700], IDS[a : a + 700], 500) for a in range(0, 3000, 700)]
    merged = VoteSample.merge([VoteSample.merge(parts[3:]), *parts[:3]])
    assert (merged.votes == whole.votes).all() and (merged.keys == whole.keys).all()
    through = VoteSample.from_table(pa.concat_tables([p.to_table() for p in parts]), 500)
    assert (through.votes == whole.votes).all()


def test_a_sample_is_uniform() -> None:
    sample = VoteSample.measure(VOTES, IDS, size=1000)
    assert np.abs((sample.votes >= 0).mean(axis=0) - (VOTES >= 0).mean(axis=0)).max() < 4 * (0.25 / 1000) ** 0.5


def test_no_samples_are_told() -> None:
    with pytest.raises(ValueError, match="no samples to merge: the stream of votes is empty"):
        VoteSample.merge([])


def test_a_model_fitted_from_statistics_and_a_sample_labels_like_one_that_saw_all_votes() -> None:
    data = generate("asymmetric", 3, n=3000)
    sample = VoteSample.measure(VOTES, IDS, size=2000)
    statistics = VoteStatistics.measure(VOTES)
    one = AutoLabelModel().fit(statistics, sample=sample.votes)
    other = AutoLabelModel().fit(VOTES)
    agree = (one.predict_proba(VOTES).argmax(axis=1) == other.predict_proba(VOTES).argmax(axis=1)).mean()
    assert agree > 0.97 and one.score(VOTES, data.gold)["accuracy"] > 0.8
