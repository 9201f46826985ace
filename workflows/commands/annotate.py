"""The verbs `annotate`, `minhash` and `signals`: what documents are like, from plain files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pyarrow as pa

    from quality.registry import Context, Signal

_PATH = click.Path(path_type=Path, dir_okay=False)
in_argument = click.argument("source", metavar="IN", type=_PATH)
out_option = click.option("-o", "--out", required=True, type=_PATH, help="A .parquet or .jsonl file to write.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
_SHORT = {"palm": "rps_doc_ml_palm_score", "wikipedia": "rps_doc_ml_wikipedia_score", "wikiref": "rps_doc_ml_wikiref_score"}
_FETCHED = {"stop_words": "stop-words.json", "ldnoobw": "ldnoobw", "ut1": "ut1.json"}
"""Where `menagerie models fetch` leaves word lists, below word-lists/ in the cache folder."""


def _list(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from quality.registry import registered
    from workflows.commands.signals import show_signals

    show_signals(list(registered().values()))
    context.exit()


@click.command()
@in_argument
@out_option
@click.option("--signals", "names", multiple=True, metavar="NAME[,NAME]", help="Only these signals; all by default.")
@click.option("--rules", multiple=True, metavar="SET[,SET]", help="Judge by published rule sets, such as gopher,c4,fineweb.")
@click.option(
    "--mode",
    type=click.Choice(["redpajama-v2", "fixed"]),
    default="redpajama-v2",
    show_default=True,
    help="The published values, quirks included, or mended ones.",
)
@click.option(
    "--module", "modules", multiple=True, metavar="MODULE", help="Signals of your own: package.module, or a .py file."
)
@click.option("--stop-words", metavar="PATH", help="Stop words by language: JSON, or a folder of <lang>.txt.")
@click.option("--ldnoobw", metavar="DIR", help="LDNOOBW's lists: a folder of <lang>.txt.")
@click.option("--ut1", metavar="FILE", help="UT1's block list: JSON with domain_to_category_id.")
@click.option("--importance", metavar="DIR", help="Importance tables of `models train-importance`.")
@click.option(
    "--classifier", "classifiers", multiple=True, metavar="SIGNAL[/LANG]=FILE",
    help="A fastText model for palm, wikipedia or wikiref.",
)  # fmt: skip
@click.option("--all-columns", is_flag=True, help="Write the columns of IN too: what label and mix need to see both.")
@click.option("--rejects", type=_PATH, help="A .parquet or .jsonl file for documents on which a signal of yours failed.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="List every signal, and exit.")
@json_option
def annotate(
    source: Path,
    out: Path,
    names: tuple[str, ...],
    rules: tuple[str, ...],
    mode: str,
    modules: tuple[str, ...],
    classifiers: tuple[str, ...],
    all_columns: bool,
    rejects: Path | None,
    as_json: bool,
    **lists: str | None,
) -> None:
    """Measure the quality signals of the documents in IN, a Parquet or JSONL file.

    IN has a column raw_content (or text, or content); id, url, source_domain, language and CCNet's fields are used where they
    are there. OUT has the column id (with --all-columns: those of IN), one column per signal, a list where the signal has a
    value per line, and with --rules a column rules_<set> with the reason why it drops a document. With --rules and without
    --signals only the signals of the rules are measured. Word lists that `menagerie models fetch` has fetched are found.
    """
    from quality.annotate import annotate as measure
    from quality.registry import select, unavailable
    from quality.rules import Verdicts, judge_table, rule_sets
    from workflows.plain_files import Sink, as_documents, check_outputs, read_batches

    check_outputs([source], out, rejects)
    sets = rule_sets(_split(rules))
    asked = _split(names)
    named = "all" if asked == ["all"] or (not asked and not sets) else asked
    signals = select(named, modules, also=[name for each in sets for name in each.signals])
    context = _context(mode, lists, classifiers)
    missing = unavailable(signals, context.resources.held())
    if refused := [missing[name] for name in asked if name in missing]:
        raise ValueError(refused[0])
    documents, columns, failures, verdicts = 0, set(), Counter(), Verdicts()
    with Sink(out) as sink, _reject_sink(rejects) as rejected:
        for batch in read_batches(source):
            documents += batch.num_rows
            columns.update(batch.column_names)
            given = as_documents(batch, source)
            try:
                told = measure(given, signals, context=context)
            except ValueError as error:
                raise ValueError(f"{source}: {error}") from error
            failures.update(str(detail) for detail in told.rejects["detail"].to_pylist())
            if rejected is not None:
                rejected.write(told.rejects)
            measured = told.signals
            if sets:
                reasons, counted = judge_table(measured, batch, sets)
                verdicts.add(counted)
                for reason in reasons.iter_columns():
                    measured = measured.append_column(reason.name, reason.to_arrow())
            sink.write(_beside(batch, measured, source) if all_columns else measured)
    summary = _summary(out, signals)
    if as_json:
        judged = {"rules": verdicts.to_json()} if sets else {}
        told_all = {"out": str(out), "documents": documents, "signals": summary, "failures": dict(failures), **judged}
        click.echo(json.dumps(told_all))
        return
    _show_summary(out, summary, documents)
    if sets:
        from workflows.rules_table import show_verdicts

        show_verdicts(sets, verdicts)
    _show_gaps(signals, missing, summary, documents, columns)
    for detail, count in failures.most_common(5):
        click.echo(f"{count:,} documents rejected, null in OUT: {detail}")


@click.command()
@in_argument
@out_option
@click.option("--shingle", default=13, show_default=True, type=click.IntRange(1), help="Words in a shingle.")
@click.option("--seed", default=42, show_default=True, type=click.IntRange(0, 2**32 - 1), help="Seed of the permutations.")
@click.option(
    "--scheme",
    default="redpajama-v2",
    show_default=True,
    type=click.Choice(["redpajama-v2", "affine32"]),
    help="RedPajama-V2's values, or several times faster ones; they do not compare with each other.",
)
@click.option("--bands", is_flag=True, help="Add RedPajama-V2's columns signature_sim1.0 to signature_sim0.7.")
@json_option
def minhash(source: Path, out: Path, shingle: int, seed: int, scheme: str, bands: bool, as_json: bool) -> None:
    """Sign the documents in IN, a Parquet or JSONL file, with MinHash: 128 permutations.

    OUT has the columns id and signature (null for documents with fewer words than a shingle).
    """
    from pipeline.minhash import BANDS, MinHash, MinHashParams, band_column
    from quality.annotate import annotate as sign
    from workflows.plain_files import Sink, as_documents, check_outputs, read_batches

    check_outputs([source], out)
    if bands and out.suffix != ".parquet":
        raise ValueError(f"{out}: bands are binary columns; write them to a .parquet file")
    signer = MinHash(MinHashParams.model_validate({"shingle": shingle, "seed": seed, "scheme": scheme}))
    documents = unsigned = 0
    with Sink(out) as sink:
        for batch in read_batches(source):
            signed = sign(as_documents(batch, source), [], signer).minhash
            documents += signed.num_rows
            unsigned += signed["signature"].null_count
            if bands:
                for level in BANDS:
                    signed = signed.append_column(f"signature_sim{level}", band_column(signed["signature"], level))
            sink.write(signed)
    if as_json:
        click.echo(json.dumps({"out": str(out), "documents": documents, "unsigned_documents": unsigned}))
    else:
        click.echo(f"{out}: {documents:,} documents, {unsigned:,} of them too short for a signature")


def _split(told: Sequence[str]) -> list[str]:
    return [name for names in told for name in names.split(",") if name]


def _context(mode: str, lists: Mapping[str, str | None], classifiers: Sequence[str]) -> Context:
    """Word lists and models as given, else as fetched."""
    from pipeline.models import cache_folder
    from quality.classifiers import classifier_files, load_classifiers
    from quality.registry import Context
    from quality.resources import SignalResources

    fetched = {name: cache_folder() / "word-lists" / path for name, path in _FETCHED.items()}
    found = {
        name: told or (fetched[name] if name in fetched and fetched[name].exists() else None) for name, told in lists.items()
    }
    models: dict[str, str | dict[str, str]] = {}
    for told in classifiers:
        signal, equals, file = told.partition("=")
        signal, _, language = signal.partition("/")
        signal = _SHORT.get(signal, signal)
        if not equals or not file or signal not in _SHORT.values():
            raise ValueError(f"--classifier {told}: write SIGNAL=FILE or SIGNAL/LANG=FILE, where SIGNAL is {', '.join(_SHORT)}")
        if language:
            of_language = models.setdefault(signal, {})
            if isinstance(of_language, str):
                raise ValueError(f"--classifier {told}: {signal} already has a model for all languages")
            of_language[language] = file
        else:
            models[signal] = file
    loaded = load_classifiers({key: Path(file).expanduser() for key, file in classifier_files(models).items()})
    return Context(mode, SignalResources.load(classifiers=loaded, **found))  # type: ignore[arg-type]


class _NoSink:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _reject_sink(path: Path | None) -> Any:
    from workflows.plain_files import Sink

    return Sink(path) if path is not None else _NoSink()


def _beside(batch: pa.Table, measured: pa.Table, source: Path) -> pa.Table:
    """A batch's columns, then its signals."""
    for name in measured.column_names[1:]:
        if name in batch.column_names:
            raise ValueError(f"{source} already has a column {name}: leave --all-columns out, or choose with --signals")
        batch = batch.append_column(measured.schema.field(name), measured[name])
    return batch


def _summary(out: Path, signals: Sequence[Signal]) -> dict[str, dict[str, float | None]]:
    """What OUT holds, read back from it: documents without a value, and quantiles; of all lines for a signal of lines."""
    import polars as pl

    types = {s.name: pl.List(pl.Float64) if s.level == "line" else pl.Float64() for s in signals}
    frame = pl.scan_parquet(out) if out.suffix == ".parquet" else pl.scan_ndjson(out, schema=types)
    values: dict[str, dict[str, float | None]] = {}
    for each in signals:
        column = pl.col(each.name)
        flat = column.list.explode() if each.level == "line" else column
        told = {"null": column.null_count(), "5%": flat.quantile(0.05), "median": flat.median(), "95%": flat.quantile(0.95)}
        row = frame.select(expression.alias(label) for label, expression in told.items()).collect()
        values[each.name] = row.row(0, named=True)
    return values


def _show_summary(out: Path, summary: Mapping[str, Mapping[str, float | None]], documents: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{out}: {documents:,} documents", box=None, header_style="bold", title_justify="left")
    table.add_column("signal", overflow="fold")
    labels = ("null", "5%", "median", "95%")
    for label in labels:
        table.add_column(label, justify="right")
    for name, value in summary.items():
        table.add_row(name, f"{value['null']:,}", *("" if value[t] is None else f"{value[t]:.4g}" for t in labels[1:]))
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width: names stay whole, one a line
        wanted = console.measure(table, options=console.options.update(max_width=1 << 10)).maximum
        console.width = max(console.width, wanted)
    console.print(table)


def _show_gaps(
    signals: Sequence[Signal], missing: Mapping[str, str], summary: Mapping[str, Mapping[str, float | None]], documents: int,
    columns: set[str],
) -> None:  # fmt: skip
    """Why signals are null for all documents: a word list, a model or a column is not there."""
    reasons: dict[str, list[str]] = {}
    for each in signals:
        if not documents or summary[each.name]["null"] != documents:
            continue
        if each.name in missing:
            reasons.setdefault(missing[each.name].partition(" needs ")[2], []).append(each.name)
        elif absent := set(each.columns) - columns:
            reasons.setdefault(f"{', '.join(sorted(absent))}, which is no column of the input", []).append(each.name)
        elif each.resources and "language" in each.columns:
            reasons.setdefault("a list or model for the documents' languages", []).append(each.name)
    for reason, names in reasons.items():
        click.echo(f"null without {reason}: {', '.join(names)}")
    if "language" not in columns and any(each.name == "gopher_stop_words" for each in signals):
        click.echo("IN has no column language: gopher_stop_words takes every document for English")
