"""`menagerie train`, `menagerie evaluate`, `menagerie generate`."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", metavar="RUN.yaml", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Replace a setting of the file; may be repeated.")
@click.option("--ray", "workers", type=click.IntRange(min=0), help="Train in this many Ray Train workers.")
@click.option("--gpu", is_flag=True, help="With --ray: one GPU per worker.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and progress on standard error.")
def train(run: Path, overrides: tuple[str, ...], workers: int | None, gpu: bool, as_json: bool) -> None:
    """Pretrain a model on token shards, or go on with the run in its folder.

    RUN.yaml holds a run: folder, data, model, optimizer, schedule, steps (docs/training.md). Several processes:
    torchrun --nproc-per-node 2 -m workflows.cli train RUN.yaml
    """
    if gpu and workers is None:
        raise click.UsageError("--gpu goes with --ray N; without it, the settings device and precision decide")
    from training import load_config, train_on_ray
    from training import train as train_model

    config = load_config(run, overrides)
    if workers is not None:
        result = train_on_ray(config, workers, gpu)
    else:
        result = train_model(config, lambda line: click.echo(line, err=as_json))
    if _is_first_process():
        if as_json:
            click.echo(json.dumps(result.to_dict()))
        else:
            click.echo(f"done: {result.steps} steps, {result.tokens} tokens, loss {result.loss:.4f}; model in {result.folder}")


@click.command()
@click.argument("folder", metavar="RUN_DIR", type=click.Path(path_type=Path))
@click.option(
    "--held-out", "named", multiple=True, metavar="NAME=MANIFEST", help="Token shards to evaluate on; may be repeated."
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), help="Per component, stop after the document that reaches so many tokens."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(folder: Path, named: tuple[str, ...], max_tokens: int | None, device: str, as_json: bool) -> None:
    """Perplexity of a trained model per component, on held-out documents.

    Without --held-out: the `heldout` shards that lie beside the `train` shards of the run.
    """
    from training import evaluate as evaluate_model

    manifests = dict(_named(text) for text in named)
    if len(manifests) < len(named):
        raise click.UsageError("--held-out: two have the same name")
    manifests = manifests or _held_out(folder)
    results = evaluate_model(folder, manifests, device, max_tokens)
    if as_json:
        click.echo(json.dumps(results))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("component", *(Column for Column in ("documents", "tokens", "loss", "perplexity", "bits per byte")))
    for name, values in results.items():
        numbers = f"{values['documents']:,}", f"{values['tokens']:,}", f"{values['loss']:.4f}"
        table.add_row(name, *numbers, f"{values['perplexity']:.2f}", f"{values['bits_per_byte']:.3f}")
    Console().print(table)


@click.command()
@click.argument("folder", metavar="RUN_DIR", type=click.Path(path_type=Path))
@click.option("--prompt", default="", help="What the text starts with.")
@click.option("--tokens", type=click.IntRange(min=0), default=200, show_default=True, help="At most so many new tokens.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.8, show_default=True, help="0: the likeliest token.")
@click.option("--top-k", type=click.IntRange(min=0), default=0, show_default=True, help="Draw from the likeliest k; 0: all.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True, help="Nucleus sampling.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def generate(
    folder: Path, prompt: str, tokens: int, temperature: float, top_k: int, top_p: float, seed: int, device: str
) -> None:
    """Text from a trained model."""
    from training import generate as generate_text

    click.echo(generate_text(folder, prompt, tokens, temperature, top_k, top_p, seed, device))


def _is_first_process() -> bool:
    import os

    return os.environ.get("RANK", "0") == "0"


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise ValueError(f"--held-out {text}: write it as component=path/to/manifest.json")
    return name, path


def _held_out(folder: Path) -> dict[str, str]:
    """The held-out shards beside those that a run was trained on: <component>/heldout for <component>/train."""
    import yaml

    file = folder / "config.yaml"
    if not file.is_file():
        raise ValueError(f"{file} is missing: name the folder of a run, or give --held-out")
    found = {}
    for name, component in yaml.safe_load(file.read_text())["data"]["components"].items():
        manifest = Path(component["manifest"])
        beside = manifest.parent.parent / "heldout" / manifest.name
        if manifest.parent.name == "train" and beside.is_file():
            found[name] = str(beside)
    if not found:
        raise ValueError(f"no heldout shards lie beside those that {folder} was trained on: give --held-out name=manifest.json")
    return found
