"""Fill the tables of docs/kernels.md and draw its plots from measured results: `python benchmarks/report_kernels.py`.

Reads every `benchmarks/results/kernels*.json` (what `benchmarks/kernels.py --json` writes; of rows that are in several files,
the file whose name sorts last counts) and replaces what stands between `<!-- measured: OPERATOR -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS, GUIDE, PLOTS = ROOT / "benchmarks/results", ROOT / "docs/kernels.md", ROOT / "docs/kernels"


def load(folder: Path = RESULTS) -> dict[str, list[dict[str, Any]]]:
    """Rows by operator, in the order in which they were measured; each knows its card."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("kernels*.json")):
        measured = json.loads(path.read_text())
        for row in measured["rows"]:
            key = (row["operator"], row["shape"], row["direction"])
            rows.pop(key, None)
            rows[key] = row | {"about": measured["about"]}
    operators: dict[str, list[dict[str, Any]]] = {}
    for row in rows.values():
        operators.setdefault(row["operator"], []).append(row)
    return operators


def best_peer(row: dict[str, Any]) -> tuple[str, float] | None:
    there = {name: time for name, time in row["peers"].items() if time is not None}
    return min(there.items(), key=lambda item: item[1]) if there else None


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| shape | | ms | floor ms | over floor | fastest peer | its time / ours | |", "|---" * 8 + "|"]
    for row in rows:
        peer = best_peer(row)
        against = f"{peer[0]} {peer[1]:.3g} ms | {peer[1] / row['measured']:.2f}" if peer else "– | –"
        notes = "; ".join([*([row["notes"]] if row["notes"] else []), *_extra(row["extra"])])
        lines.append(
            f"| {row['shape']} | {row['direction']} | {row['measured']:.3g} | {row['floor']:.3g} | "
            f"{row['measured'] / row['floor']:.2f} | {against} | {notes} |"
        )
    cards = sorted({_card(row["about"]) for row in rows})
    return "\n".join(["", *lines, "", f"{'; '.join(cards)}.", ""])


def _extra(extra: dict[str, Any]) -> list[str]:
    told = []
    for name, value in extra.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v:.3g}" for k, v in value.items() if isinstance(v, int | float))
        elif isinstance(value, int) and not isinstance(value, bool):
            value = f"{value:,}"
        elif isinstance(value, float):
            value = f"{value:.3g}"
        told.append(f"{name.replace('_', ' ')} {value}")
    return told


def _card(about: dict[str, Any]) -> str:
    ceilings = f"copy {about['copy_tb_per_s']:.2f} TB/s, bfloat16 product {about['gemm_tflop_per_s']:.0f} TFLOP/s"
    return f"{about['device']} ({ceilings}), torch {about['torch']}, Triton {about['triton']}"


def plot(operator: str, rows: list[dict[str, Any]], target: Path) -> None:
    """How many times our time each peer takes, by shape: bars to the right of 1 are slower than ours."""
    import matplotlib

    matplotlib.use("svg")
    # The same rows give the same file; text stays text, which is a fifth of the size.
    matplotlib.rcParams |= {"svg.hashsalt": operator, "svg.fonttype": "none"}
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    figure, axes = pyplot.subplots(figsize=(8, 0.9 + 0.42 * len(rows)))
    height = 0.8 / max(len(names), 1)
    for number, name in enumerate(names):
        ratios = [(row["peers"].get(name) or 0) / row["measured"] for row in rows]
        places = [at + number * height - 0.4 + height / 2 for at in range(len(rows))]
        axes.barh(places, ratios, height=height, label=name)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row['shape']}, {row['direction']}" for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("time of the peer / ours")
    axes.legend(fontsize=7)
    figure.tight_layout()
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)


def fill(guide: str, operators: dict[str, list[dict[str, Any]]]) -> str:
    """The guide with each operator's table, and its plot where peers were timed. ValueError for rows that have no place."""
    homeless = [name for name in operators if f"<!-- measured: {name} -->" not in guide]
    if homeless:
        raise ValueError(
            f"{GUIDE} has no place for {', '.join(homeless)}: add <!-- measured: {homeless[0]} --> and <!-- end -->"
        )

    def replace(found: re.Match[str]) -> str:
        rows = operators.get(found[1])
        if not rows:
            return f"<!-- measured: {found[1]} -->\n<!-- end -->"
        drawn = f"\n![{found[1]} beside its peers](kernels/{found[1]}.svg)\n" if any(best_peer(row) for row in rows) else ""
        return f"<!-- measured: {found[1]} -->\n{table(rows)}{drawn}\n<!-- end -->"

    return re.sub(r"<!-- measured: (\w+) -->\n.*?<!-- end -->", replace, guide, flags=re.DOTALL)


def main() -> None:
    operators = load()
    GUIDE.write_text(fill(GUIDE.read_text(encoding="utf-8"), operators), encoding="utf-8")
    for name, rows in operators.items():
        if any(best_peer(row) for row in rows):
            plot(name, rows, PLOTS / f"{name}.svg")


if __name__ == "__main__":
    main()
