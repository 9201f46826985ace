"""The corpus that the engine's benchmarks build: real pages (`MENAGERIE_SHARED`), several times over, up to duplicates."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import yaml


def pages(kind: str = "warc") -> list[Path]:
    """The WARC files with real pages, or the WET files with their text; ends the script if they are not there."""
    shared = Path(os.environ.get("MENAGERIE_SHARED") or Path(__file__).parents[2] / "shared")
    found = sorted((shared / "data" / "web").glob("*.warc.wet.gz" if kind == "wet" else "*.warc.gz"))
    if not found:
        sys.exit(f"no {kind.upper()} files in {shared}/data/web: set MENAGERIE_SHARED")
    return found


def write_recipe(folder: Path, copies: int, kind: str = "warc") -> Path:
    """A recipe over `copies` x the pages (or WET files), one shard per copy, from ingest to duplicates."""
    crawl = folder / "crawl"
    crawl.mkdir(parents=True, exist_ok=True)
    for copy in range(copies):
        for page in pages(kind):
            target = crawl / f"{copy:02d}-{page.name}"
            if not target.exists():
                shutil.copyfile(page, target)
    recipe = {
        "name": "benchmark",
        "corpus": str(folder / "corpus"),
        "ingest": {
            "snapshot": "web",
            "source": {"kind": kind, "paths": [str(crawl / "*.gz")]},
            "shards": copies,
        },
        "mine": {
            "paragraphs": {"group_shards": 1},
            "language": {"kind": "resiliparse"},
            "keep_languages": ["en", "de", "fr", "es", "it"],  # RedPajama-V2's
        },
        "annotate": {},
        "deduplicate": {},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path
