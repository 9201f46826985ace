"""A small crawl made by the tests: real WARC files with pages of made-up prose, near copies and exact copies among them."""

from __future__ import annotations

import gzip
import hashlib
import random
from pathlib import Path

import yaml

_WORDS = [
    "the",
    "a",
    "of",
    "and",
    "to",
    "in",
    "is",
    "it",
    "that",
    "for",
    "on",
    "with",
    "as",
    "was",
    "at",
    "by",
    "an",
    "be",
    "this",
    "from",
    "or",
    "had",
    "not",
    "but",
    "what",
    "all",
    "were",
    "when",
    "we",
    "there",
    "can",
    "river",
    "mountain",
    "village",
    "harbour",
    "winter",
    "summer",
    "market",
    "letter",
    "garden",
    "window",
    "engine",
    "bridge",
    "teacher",
    "painter",
    "doctor",
    "island",
    "walked",
    "carried",
    "opened",
    "counted",
    "followed",
    "remembered",
    "painted",
    "repaired",
    "measured",
    "gathered",
    "quiet",
    "bright",
    "narrow",
    "ancient",
    "patient",
]


def _sentence(random_: random.Random) -> str:
    words = random_.choices(_WORDS, k=random_.randint(6, 16))
    return " ".join(words).capitalize() + "."


def page_texts(count: int, seed: int = 0) -> list[list[str]]:
    """Paragraphs of `count` pages. Every tenth copies an earlier page, every eleventh copies one with a few words changed."""
    random_ = random.Random(seed)
    pages: list[list[str]] = []
    for number in range(count):
        paragraphs = [" ".join(_sentence(random_) for _ in range(random_.randint(3, 6))) for _ in range(random_.randint(4, 9))]
        if number % 10 == 9:
            paragraphs = pages[random_.randrange(len(pages))]
        elif number % 11 == 10:
            paragraphs = [*pages[random_.randrange(len(pages))][:-1], _sentence(random_)]
        pages.append(paragraphs)
    return pages


def write_crawl(folder: Path, files: int = 3, pages: int = 60, seed: int = 0) -> None:
    """Write `pages` pages into `files` WARC files below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = page_texts(pages, seed)
    share = -(-pages // files)
    for file in range(files):
        with (folder / f"small-{file:03d}.warc.gz").open("wb") as out:
            for number in range(file * share, min(pages, (file + 1) * share)):
                body = "".join(f"<p>{p}</p>\n" for p in texts[number])
                html = f"<html><head><title>Page {number}</title></head><body><h1>Page {number}</h1>\n{body}</body></html>"
                out.write(_member(number, html.encode()))


def _member(number: int, html: bytes) -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(html) + html
    digest = hashlib.sha1(http).hexdigest()
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012d}>\r\n"
        f"WARC-Target-URI: http://site{number % 4}.example/page/{number}\r\nWARC-Date: 2024-05-01T00:00:{number % 60:02d}Z\r\n"
        f"X-Page-Digest: {digest}\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + http + b"\r\n\r\n", mtime=0)


def write_recipe(folder: Path, crawl: Path, train: bool = True) -> Path:
    """A recipe for the crawl with every stage in it; `train: False` ends with the token shards."""
    recipe: dict = {
        "name": "small",
        "corpus": str(folder / "corpus"),
        "engine": {"kind": "inline"},
        "keep_rejects": True,
        "ingest": {
            "snapshot": "small",
            "source": {"kind": "warc", "paths": [str(crawl / "*.warc.gz")]},
            "extract": {"main_content": False},
            "min_length": 100,
        },
        "language_models": {
            "languages": ["en"], "language": {"kind": "resiliparse"}, "vocabulary_size": 300, "order": 3,
            "minimum_characters": 1000, "held_out": 0.5,
        },
        "mine": {
            "paragraphs": {"group_shards": 1},
            "language": {"kind": "resiliparse", "threshold": 0.0},
            "perplexity": {"models": "corpus", "languages": ["en"]},
        },
        "annotate": {},
        "deduplicate": {"keep": "longest"},
        "label": [
            {
                "task": "quality",
                "classes": ["poor", "good"],
                "functions": [
                    {"name": "long", "column": "rps_doc_word_count", "min": 150, "vote": "good", "otherwise": "poor"},
                    {"name": "varied", "column": "rps_doc_frac_unique_words", "min": 0.2, "vote": "good"},
                    {"name": "dull", "column": "rps_doc_unigram_entropy", "max": 3.0, "vote": "poor"},
                ],
            }
        ],
        "mix": {
            "tables": ["documents", "signals", "duplicates", "labels/quality"],
            "select": [
                {"name": "exact_duplicate", "keep": "exact_of IS NULL"},
                {"name": "fuzzy_duplicate", "keep": '"keep_sim0.7"'},
                {"name": "poor_quality", "drop": "label = 'poor'"},
            ],
            "components": [
                {"name": "fluent", "buckets": ["head", "middle"], "weight": 0.6, "max_epochs": 50},
                {"name": "rest", "weight": 0.4, "max_epochs": 50},
            ],
            "heldout": 0.2,
        },
        "tokenize": {"train": {"vocab_size": 400}},
    }  # fmt: skip
    if train:
        recipe |= {
            "train": {
                "steps": 6, "seq_len": 32, "batch": 4, "model": {"layers": 1, "d_model": 32, "heads": 2},
                "log": {"interval": 2, "checkpoint_interval": 3, "tensorboard": False},
            },
            "evaluate": {"prompts": ["The river "], "tokens": 8},
            "report": {"path": str(folder / "report.html"), "samples": 4},
        }  # fmt: skip
    path = folder / "recipe.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def tables_of(corpus: Path) -> dict[str, bytes]:
    """Every table, global file and token shard of a corpus: what must be the same, byte for byte, however it was built."""
    skipped = ("receipts", "runs")
    return {
        str(p.relative_to(corpus)): p.read_bytes()
        for p in sorted(corpus.rglob("*"))
        if p.is_file() and p.relative_to(corpus).parts[0] not in skipped
    }
