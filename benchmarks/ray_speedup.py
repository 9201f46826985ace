"""The same build in one process and on Ray with two workers: wall time of both, in one run, and their ratio.

    python benchmarks/ray_speedup.py [copies] [warc|wet]

Of WARC files an inline `ingest` is not one core's work alone: its time limit puts extraction into a process beside the
reader, which keeps 1.3 cores busy, so two workers can do that stage at most 1.55 times as fast. Of WET files it is.
Goal: Ray with two workers at least 1.5 times as fast, on a build of 60 s or more inline, on two cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from web_corpus import write_recipe

GOAL = 1.5


def build(recipe: Path, corpus: Path, *options: str) -> float:
    """Seconds that one build takes, Ray's start included."""
    # Each side has one thread per task, so that the cores are what is compared.
    environment = os.environ | {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "workflows.cli", "build", str(recipe), "--set", f"corpus={corpus}", *options]
    begun = time.perf_counter()
    subprocess.run(command, check=True, env=environment)
    return time.perf_counter() - begun


def main() -> None:
    copies = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    kind = sys.argv[2] if len(sys.argv) > 2 else "warc"
    with tempfile.TemporaryDirectory() as name:
        recipe = write_recipe(Path(name), copies, kind)
        inline = build(recipe, Path(name) / "inline", "--engine", "inline")
        on_ray = build(recipe, Path(name) / "ray", "--engine", "ray", "--cpus", "2")
    print(f"{copies} x {kind}: inline {inline:.1f} s, Ray with 2 workers {on_ray:.1f} s: {inline / on_ray:.2f} x (goal {GOAL})")


if __name__ == "__main__":
    main()
