"""Memory and speed of language-model training against the size of the text; says what 1 GB would take.

The text is real: the Python, header and documentation files of the installed packages, each a document, in a fixed shuffled
order. Every size trains in a process of its own, so that its peak of resident memory is its own. Run:

    python benchmarks/train_lm.py [--sizes 50,100] [--prune 0,0,1] [--text FOLDER]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_SUFFIXES = {".py", ".pyi", ".h", ".hpp", ".md", ".rst", ".txt"}


def read(folder: Path, limit: int) -> Iterator[str]:
    """Files of a folder as text, up to `limit` bytes in all. Raises if there is less."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix in _SUFFIXES and p.is_file() and p.stat().st_size < 1 << 20)
    random.Random(0).shuffle(paths)
    left = limit
    for path in paths:
        text = path.read_text("utf-8", "replace")
        yield text
        left -= len(text.encode())
        if left <= 0:
            return
    raise SystemExit(f"{folder} holds only {(limit - left) / 1e6:.0f} MB of text: give a larger --text or smaller --sizes")


def train(folder: Path, megabytes: float, prune: tuple[int, ...], tokenizer_characters: int) -> dict[str, float]:
    """Train once, in this process."""
    import psutil

    from pipeline.perplexity import LanguageModel
    from pipeline.train_language_model import LanguageModelParams, train_language_model

    params = LanguageModelParams(
        vocabulary_size=16000, order=5, prune=prune, tokenizer_characters=tokenizer_characters, held_out_documents=200
    )
    before, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as target:
        made = train_language_model(lambda: read(folder, int(megabytes * 1e6)), "en", Path(target), params)
        spent, used = time.perf_counter() - before, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        held = psutil.Process().memory_info().rss
        model = LanguageModel(made.tokenizer, made.model).grams
        loaded = psutil.Process().memory_info().rss - held
        del model
    return {
        "seconds": spent,
        "cpu_seconds": used,
        "tokens": made.card["model"]["tokens"],
        "ngrams": sum(made.card["model"]["ngrams"].values()),
        "arpa_bytes": made.card["model"]["bytes"],
        "peak_bytes": peak,
        "kenlm_bytes": loaded,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="50,100", help="megabytes of text")
    parser.add_argument("--prune", default="0,0,1")
    parser.add_argument("--text", type=Path, default=Path(sysconfig.get_paths()["purelib"]))
    parser.add_argument("--tokenizer-characters", type=int, default=2_000_000, help="the same for every size: a constant cost")
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    prune = tuple(int(n) for n in arguments.prune.split(","))
    if arguments.one:
        print(json.dumps(train(arguments.text, arguments.one, prune, arguments.tokenizer_characters)))
        return
    print(f"pruning {arguments.prune}")
    print("   MB  Mtokens  Mngrams  ARPA MB       s   CPU s   MB/s  peak MB  KenLM MB")
    sizes = [float(size) for size in arguments.sizes.split(",")]
    rows = []
    for size in sizes:
        command = [sys.executable, __file__, "--one", str(size), "--prune", arguments.prune, "--text", str(arguments.text)]
        command += ["--tokenizer-characters", str(arguments.tokenizer_characters)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        print(
            f"{size:5.0f} {row['tokens'] / 1e6:8.1f} {row['ngrams'] / 1e6:8.1f} {row['arpa_bytes'] / 1e6:8.0f} "
            f"{row['seconds']:7.1f} {row['cpu_seconds']:7.1f} {size / row['seconds']:6.2f} {row['peak_bytes'] / 1e6:8.0f} "
            f"{row['kenlm_bytes'] / 1e6:9.0f}",
            flush=True,
        )
    if len(rows) > 1:
        (small, first), (large, last) = (sizes[-2], rows[-2]), (sizes[-1], rows[-1])

        def at_1_gb(key: str) -> float:
            slope = (last[key] - first[key]) / (large - small)
            return last[key] + max(slope, 0) * (1000 - large)

        held = at_1_gb("kenlm_bytes")
        peak = max(at_1_gb("peak_bytes"), held + 0.5e9)
        print(
            f"1000 MB by a straight line through the last two: {at_1_gb('cpu_seconds') / 60:.0f} CPU minutes, "
            f"ARPA {at_1_gb('arpa_bytes') / 1e9:.1f} GB, peak {peak / 1e9:.1f} GB, KenLM {held / 1e9:.1f} GB. "
            "It is an extrapolation: n-grams grow more slowly than text, so that size and time are likely to be less. "
            "The peak is that of counting, or that of scoring the held-out documents with the model in memory "
            "(KenLM and half a gigabyte), whichever is more."
        )


if __name__ == "__main__":
    main()
