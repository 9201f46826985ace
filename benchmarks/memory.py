"""Peak memory of every stage for 1x and 8x the input, partitions of one size: it must follow the partition, not the corpus.

python benchmarks/memory.py [factor]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from web_corpus import write_recipe


def peak(recipe: Path, stage: str) -> float:
    """Peak resident memory (MB) of a process that runs one stage, the stages before it being done."""
    command = [sys.executable, "-m", "workflows.cli", "build", str(recipe), "--engine", "inline", "--until", stage]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"stage {stage} failed: {' '.join(command)}")
    return usage.ru_maxrss / 1024


def main() -> None:
    from workflows.recipe import load_recipe

    factor = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    with tempfile.TemporaryDirectory() as name:
        recipes = [write_recipe(Path(name) / str(copies), copies) for copies in (1, factor)]
        stages = [s.name for s in load_recipe(recipes[0]).stages()]
        print(f"{'stage':<16}{'1x MB':>10}{f'{factor}x MB':>10}{'ratio':>8}")
        for stage in stages:
            small, large = (peak(recipe, stage) for recipe in recipes)
            print(f"{stage:<16}{small:>10.0f}{large:>10.0f}{large / small:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
