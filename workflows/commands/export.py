"""`menagerie export`: a corpus in the layout of others."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.command()
@click.argument("corpus")
@click.option("-o", "--out", required=True, metavar="DIR", help="Folder or bucket URL to write to.")
@click.option(
    "--format", "kind", type=click.Choice(["redpajama-v2"]), default="redpajama-v2", show_default=True, help="The layout."
)
@click.option("--partitions", "pattern", default="*", metavar="PATTERN", help="Only these, such as '2023-06/*/en_head'.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def export(corpus: str, out: str, kind: str, pattern: str, as_json: bool) -> None:
    """Write the tables of CORPUS as RedPajama-V2 publishes its own: documents/, quality_signals/, minhash/, duplicates/.

    What the corpus does not have is left out. A recipe reads the result with `ingest_redpajama: {source: {url: DIR}}`,
    whose `languages` and `buckets` say which partitions.
    """
    from pipeline.corpus import Corpus
    from pipeline.export_redpajama import Exported, export_redpajama

    told = Exported()
    for partition, told in export_redpajama(Corpus(corpus), out, pattern):
        if not as_json:
            click.echo(f"{partition}: {told.documents:,} documents so far", err=True)
    if as_json:
        click.echo(json.dumps({"out": out, "format": kind, **asdict(told)}))
        return
    click.echo(
        f"{out}: {told.partitions:,} partitions, {told.documents:,} documents, {told.signals:,} with signals, "
        f"{told.signatures:,} signed, {told.duplicates:,} exact duplicates, {told.bytes / 1e6:,.1f} MB"
    )
    if told.without:
        click.echo(f"the corpus has no {', '.join(told.without)}")
    if told.left_out:
        click.echo(f"not part of the layout, so in no file: {', '.join(told.left_out)}")
    if told.renumbered:
        click.echo(f"{told.renumbered:,} documents have another id: the layout numbers the rows of a partition without gaps")
