"""A batch costs a few times its text, be it one document: measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

_MEASURE = """
import itertools, resource, sys
import numpy as np, pyarrow as pa
from pipeline.minhash import MinHash
from quality.annotate import annotate
from quality.registry import Context, select
from quality.importance import ImportanceTable
from quality.resources import SignalResources

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def measure(text):
    content = pa.array([text.encode()], pa.large_binary()).cast(pa.large_string())
    table = pa.table({"id": ["0"], "raw_content": content, "language": ["en"]})
    return table, annotate(table, signals, MinHash(), context)

tables = {(domain, "en"): ImportanceTable(np.arange(1, 10_001), 9.0) for domain in ("ccnet", "wikipedia", "books")}
context = Context(resources=SignalResources({"en": frozenset({"w1"})}, {"en": ("w1 w2", "w3")}, {"x": 1}, tables))
signals = [s for s in select() if s.name.startswith(("ccnet", "rps"))]
size, kind = 32_000_000, sys.argv[1]
rng = np.random.default_rng(0)
if kind == "English":
    words = (f"word{w}" + ("." if w % 9 == 4 else "") for w in (rng.zipf(1.3, size // 6) % 100_000).tolist())
elif kind == "Korean":
    vocabulary = ["".join(map(chr, row)) for row in rng.integers(0xAC00, 0xD7A4, (50_000, 3)).tolist()]
    words = (vocabulary[w] for w in (rng.zipf(1.3, size // 10) % 50_000).tolist())
else:
    words = iter(".,;:!?()" * (size // 16))
measure(" ".join(itertools.islice(words, 1000)))
lines = iter(lambda: " ".join(itertools.islice(words, 12)), "")
text = "\\n".join(lines)
ballast = np.ones(max(peak() - int(open("/proc/self/statm").read().split()[1]) * 4096, 0) // 8)  # what the list had
before = peak()
table, told = measure(text)
size, output = table["raw_content"].nbytes, told.signals.nbytes + told.minhash.nbytes
print((peak() - before - output) / size, told.signals["rps_doc_num_sentences"][0].as_py())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["English", "Korean", "marks"])
def test_a_long_document_takes_at_most_six_times_its_text(kind: str) -> None:
    """The text is among the six; what is measured, a value per line, is not. Syllables of Korean are long in NFD; marks are a
    word to every other byte."""
    told = subprocess.run([sys.executable, "-c", _MEASURE, kind], text=True, capture_output=True, check=True).stdout.split()
    assert 0.5 < float(told[0]) < 6, told
