"""The `menagerie` command. Verbs load when they are called, so that `--help` answers at once."""

from __future__ import annotations

import importlib
import sys

import click

VERBS: dict[str, tuple[str, str]] = {
    # verb: (module:attribute, one line of help; here, so that the list of verbs imports none of them)
    "demo": ("workflows.commands.demo:demo", "The whole way on a small real crawl of Python's own documentation."),
    "build": ("workflows.commands.build:build", "Run a recipe: every stage that is not done yet."),
    "status": ("workflows.commands.build:status", "Per stage: partitions, documents, drops by reason, time."),
    "verify": ("workflows.commands.build:verify", "Check digests, alignment and conservation of a corpus."),
    "extract": ("workflows.commands.extract:extract", "Crawl files or other sources to a Parquet file of documents."),
    "annotate": ("workflows.commands.annotate:annotate", "Quality signals of a Parquet or JSONL file."),
    "minhash": ("workflows.commands.annotate:minhash", "MinHash signatures of a Parquet or JSONL file."),
    "dedup": ("workflows.commands.dedup:dedup", "Exact and fuzzy deduplication of Parquet or JSONL files."),
    "signals": ("workflows.commands.signals:signals", "List every quality signal and published rule set."),
    "label": ("workflows.commands.label:label", "Labelling functions and a label model over documents."),
    "mix": ("workflows.commands.mix:mix", "Select documents and plan a mixture in tokens."),
    "tokenize": ("workflows.commands.tokenize:tokenize", "Token shards from documents or a mixture."),
    "train": ("workflows.commands.train:train", "Pretrain a model on token shards."),
    "evaluate": ("workflows.commands.train:evaluate", "Perplexity per component on held-out documents."),
    "generate": ("workflows.commands.train:generate", "Text from a trained model."),
    "models": ("workflows.commands.models:models", "List, fetch and train models; fetch word lists."),
    "export": ("workflows.commands.export:export", "A corpus in the layout of RedPajama-V2 as published."),
    "submit": ("workflows.commands.submit:submit", "Run a recipe as a job on a Ray cluster."),
    "bench": (
        "workflows.commands.bench:bench",
        "Measure speed on this machine: signals, minhash, labelers, kernels, training.",
    ),
    "report": ("workflows.commands.report:report", "One HTML page about a corpus and the models trained on it."),
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, attribute = VERBS[cmd_name][0].split(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="menagerie")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def menagerie(debug: bool) -> None:
    """From a web crawl to a pretrained language model."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    # Accepted after the verb too, where people type it.
    given = (["--debug"] if debug else []) + [a for a in given if a != "--debug"]
    try:
        menagerie.main(given, prog_name="menagerie", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:  # usage
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; run the same command again to go on", err=True)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        click.echo(f"error: {_one_line(error)}", err=True)
        sys.exit(1)


def _one_line(error: BaseException) -> str:
    """What, where, how to mend it. Unexpected errors add their type, and where to see more."""
    told = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and error.strerror and type(error).__module__ == "builtins":
        return f"{error.filename2 or error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    if isinstance(error, ValueError | FileNotFoundError | PermissionError | ConnectionError):
        return told
    return f"{type(error).__name__}: {told} (--debug shows the traceback)"


if __name__ == "__main__":
    main()
