"""What rule sets say of documents, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from quality.rules import RuleSet, Verdicts


def show_verdicts(sets: Sequence[RuleSet], verdicts: Verdicts) -> None:
    """Kept and dropped; every rule that any document fails; and how far the sets agree."""
    console, total = Console(highlight=False), max(verdicts.documents, 1)
    names = ", ".join(each.name for each in sets)
    console.print(
        f"\n[bold]{verdicts.kept:,}[/bold] of {verdicts.documents:,} documents ({verdicts.kept / total:.1%}) pass {names}"
    )
    table = Table(box=None, header_style="bold")
    for heading in ("rule", "keeps"):
        table.add_column(heading, no_wrap=True)
    for heading in ("fail", "reason", "only this"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in sets:
        dropped = verdicts.dropped.get(each.name, 0)
        table.add_row(f"[bold]{each.name}[/bold]", "", f"[bold]{dropped:,}[/bold]", f"[bold]{dropped / total:.1%}[/bold]", "")
        for rule in each.rules:
            reason = each.reason(rule)
            failed, first, only = (told.get(reason, 0) for told in (verdicts.failed, verdicts.first, verdicts.only))
            if failed:
                table.add_row(f"  {rule.name}", rule.bound, f"{failed:,}", f"{first:,}", f"{only:,}")
    console.print(table)
    console.print(
        "fail: documents that fail it; reason: it is the first of its set that they fail; only this: they fail no other"
    )
    if len(sets) > 1:
        console.print(_overlap(sets, verdicts))
    for each in sets:
        blind = [s for s in each.signals if verdicts.documents and verdicts.unmeasured.get(s) == verdicts.documents]
        if blind:
            console.print(f"{each.name} passes every document by {', '.join(blind)}: there is no value", soft_wrap=True)


def _overlap(sets: Sequence[RuleSet], verdicts: Verdicts) -> Table:
    """Documents that fail both of two sets, and what share they are of those that fail either."""
    table = Table("fail both", box=None, header_style="bold")
    for each in sets:
        table.add_column(each.name, justify="right")
    for row in sets:
        cells = []
        for column in sets:
            if row is column:
                cells.append(f"{verdicts.dropped.get(row.name, 0):,}")
                continue
            pair = (row.name, column.name)
            both = verdicts.both.get(pair, verdicts.both.get((pair[1], pair[0]), 0))
            either = verdicts.dropped.get(row.name, 0) + verdicts.dropped.get(column.name, 0) - both
            cells.append(f"{both:,} ({both / either:.0%})" if either else "0")
        table.add_row(row.name, *cells)
    return table
