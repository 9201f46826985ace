"""A batch costs a few times its text, be it one document: measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

_MEASURE = """
import resource
import numpy as np, pyarrow as pa
from pipeline.minhash import MinHash
from quality.annotate import annotate
from quality.registry import Context, select
from quality.importance import ImportanceTable
from quality.resources import SignalResources

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def measure(text):
    table = pa.table({"id": ["0"], "raw_content": pa.array([text], pa.large_string()), "language": ["en"]})
    return table, annotate(table, signals, MinHash(), context)

tables = {(domain, "en"): ImportanceTable(np.arange(1, 10_001), 9.0) for domain in ("ccnet", "wikipedia", "books")}
context = Context(resources=SignalResources({"en": frozenset({"w1"})}, {"en": ("w1 w2", "w3")}, {"x": 1}, tables))
signals = [s for s in select() if s.name.startswith(("ccnet", "rps"))]
words = np.random.default_rng(0).zipf(1.3, 2_700_000) % 100_000
words = [f"word{w}" + ("." if w % 9 == 4 else "") for w in words.tolist()]
measure(" ".join(words[:1000]))
text = "\\n".join(" ".join(words[i : i + 12]) for i in range(0, len(words), 12))[:16_000_000]
del words
ballast = np.ones(max(peak() - int(open("/proc/self/statm").read().split()[1]) * 4096, 0) // 8)  # what the list had
before = peak()
table, told = measure(text)
size, output = table["raw_content"].nbytes, told.signals.nbytes + told.minhash.nbytes
print((peak() - before - output) / size, told.signals["rps_doc_word_count"][0].as_py())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_long_document_takes_at_most_six_times_its_text() -> None:
    """The text is among the six; what is measured, a value per line, is not."""
    told = subprocess.run([sys.executable, "-c", _MEASURE], text=True, capture_output=True, check=True).stdout.split()
    assert 0.5 < float(told[0]) < 6 and float(told[1]) > 1_000_000, told
