"""One self-contained HTML page about a corpus and the model trained on it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.receipt import Receipt, fingerprint

if TYPE_CHECKING:
    from workflows.engine import Engine
    from workflows.recipe import Recipe

VERSION = 2


def report_step(recipe: Recipe, engine: Engine) -> Receipt:
    """Write the report of a build, unless nothing has changed since the last one."""
    from workflows.report.page import write_report

    assert recipe.report is not None
    path = Path(recipe.report.path).expanduser()
    inputs = {p: o.digest for p, o in engine.catalog.items()}
    for stage in ("train", "evaluate"):
        for receipt in engine.corpus.receipts(stage):
            inputs[stage] = receipt.fingerprint
    mark = fingerprint("report", VERSION, recipe.report.model_dump(mode="json"), inputs)
    receipt = engine.corpus.receipt("report", "all")
    if receipt and receipt.fingerprint == mark and path.exists():
        with engine.progress.stage("report", 1, [receipt]):
            return receipt
    begun = time.perf_counter()
    with engine.progress.stage("report", 1) as bar:
        written, problems = write_report(engine.corpus, path, title=recipe.name, samples=recipe.report.samples)
        for problem in problems:
            engine.progress.show(f"warning: the report leaves out {problem}")
        metrics = {"path": str(path), "bytes": written}
        receipt = Receipt("report", "all", mark, 0, 0, {}, {}, metrics, 0, round(time.perf_counter() - begun, 3))
        engine.corpus.write_receipt(receipt)
        bar.advance(receipt)
    return receipt
