"""`menagerie signals`: every signal and every rule set, with definition, source and range."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from quality.registry import Signal


@click.command()
@click.argument("patterns", nargs=-1)
@click.option("--rules", "of_rules", is_flag=True, help="List the published rule sets and their rules instead.")
@click.option(
    "--module", "modules", multiple=True, metavar="MODULE", help="Signals of your own: package.module, or a .py file."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def signals(patterns: tuple[str, ...], of_rules: bool, modules: tuple[str, ...], as_json: bool) -> None:
    """List the quality signals whose names match PATTERNS, such as 'rps_doc_*'; all by default."""
    from fnmatch import fnmatch

    if of_rules:
        _rules(patterns, as_json)
        return
    from quality.registry import load_modules, registered

    load_modules(modules)
    chosen = [s for s in registered().values() if not patterns or any(fnmatch(s.name, p) for p in patterns)]
    if not chosen:
        raise ValueError(f"no signal is named {' or '.join(patterns)}; `menagerie signals` lists all")
    if as_json:
        rows = [
            {
                "name": s.name,
                "level": s.level,
                "definition": s.definition,
                "range": list(s.range),
                "source": s.source,
                "columns": list(s.columns),
                "resources": list(s.resources),
            }
            for s in chosen
        ]
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    show_signals(chosen)


def show_signals(chosen: Sequence[Signal]) -> None:
    """Name, range and definition of each, for a person."""
    width = max(60, shutil.get_terminal_size().columns)
    for each in chosen:
        facts = ", ".join(fact for fact in (f"one value per {each.level}", told_range(each.range)) if fact)
        click.echo(f"{click.style(each.name, bold=True)}  ({facts})")
        told = f"{each.definition} [{each.source}]"
        click.echo(textwrap.fill(told, width, initial_indent="    ", subsequent_indent="    "))


def told_range(bounds: tuple[float | None, float | None]) -> str:
    """`0 to 1`, `from 0`, or nothing where there is no bound."""
    low, high = bounds
    if low is None:
        return f"to {high:g}" if high is not None else ""
    return f"{low:g} to {high:g}" if high is not None else f"from {low:g}"


def _rules(patterns: Sequence[str], as_json: bool) -> None:
    from quality.rules import RULE_SETS, rule_sets

    sets = rule_sets(patterns) if patterns else tuple(RULE_SETS.values())
    if as_json:
        click.echo(json.dumps([asdict(each) for each in sets], indent=1))
        return
    for each in sets:
        click.echo(f"{each.name}: {each.about} ({each.source})")
        for rule in each.rules:
            click.echo(f"  {rule.name:<26} {rule.told}")
