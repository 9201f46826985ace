"""`menagerie bench`: the scripts of `benchmarks/` that stand behind every statement about speed, on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

_SCRIPTS = {
    # verb: (script, what it measures)
    "signals": ("signals.py", "Quality signals: MB/s beside the published implementations."),
    "minhash": ("minhash.py", "Annotation, MinHash signatures and clustering on one core."),
    "labelers": ("label_models.py", "Label models: fit and predict beside numpy's bound, and memory."),
    "kernels": ("kernels.py", "The fused operators on this machine's GPU, beside torch; names those that are slower."),
    "training": ("pretraining.py", "Tokens per second and MFU of a training run on made-up shards."),
}
_FOLDER = Path(__file__).parents[2] / "benchmarks"


@click.group()
def bench() -> None:
    """Measure speed on this machine. What follows a verb goes to its script: `menagerie bench kernels -- --help` says more."""


def _verb(name: str, script: str, about: str) -> click.Command:
    @click.command(name, help=about, short_help=about)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENTS OF THE SCRIPT]...")
    def run(arguments: tuple[str, ...]) -> None:
        path = _FOLDER / script
        if not path.is_file():
            raise ValueError(f"{path} is not there: benchmarks are in the source tree, not in the installed package; clone it")
        if name == "kernels" and not {"-h", "--help"} & set(arguments):
            _need_gpu()
        raise click.exceptions.Exit(subprocess.run([sys.executable, str(path), *arguments], check=False).returncode)

    run.context_settings = {"ignore_unknown_options": True}
    return run


def _need_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise ValueError(
            "bench kernels: torch sees no CUDA device here; run it on a machine with a GPU "
            "(`python -m kernels.check --device cpu` checks the operators without one)"
        )


for _name, (_script, _about) in _SCRIPTS.items():
    bench.add_command(_verb(_name, _script, _about))
