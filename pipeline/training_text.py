"""Texts of documents to train a language model on: plain text, JSON lines, Parquet, or a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.corpus import Corpus
from pipeline.sources.jsonl import JsonlSource
from pipeline.sources.lines import Fault, Line, read_lines
from pipeline.sources.parquet import ParquetSource
from pipeline.sources.record import Reject

TextUnit = Literal["line", "blank-line", "file"]
_JSON = (".jsonl", ".ndjson", ".json")
_PLAIN = (".txt", ".text", ".md", ".rst")


@dataclass
class TrainingText:
    """The documents of several inputs. `rejected` counts, by reason, what the last run through them could not read.

    inputs: files, told apart by name: `.parquet`; `.jsonl`, `.ndjson`, `.json`; `.txt`, `.text`, `.md`, `.rst` (all but
    Parquet also as `.gz` or `.zst`); a folder that is a corpus (its documents of `language`), or any other (the files below it
    with such names). unit: what is a document in a plain text file: a line, what blank lines part, or the file.
    """

    inputs: Sequence[Path]
    language: str
    unit: TextUnit = "line"
    rejected: Counter[str] = field(default_factory=Counter)

    def files(self) -> list[Path]:
        """The files to read, in order. ValueError for an input that holds no text, or is of no known kind."""
        found: list[Path] = []
        for given in self.inputs:
            if given.is_dir():
                below = self._below(given)
                if not below:
                    raise ValueError(f"{given} holds no documents in {self.language} and no text, JSONL or Parquet file")
                found += below
            elif not given.is_file():
                raise ValueError(f"{given} does not exist")
            elif _kind(given) is None:
                raise ValueError(f"{given}: {_known()}")
            else:
                found.append(given)
        return found

    def __call__(self) -> Iterator[str]:
        """Every text, from the start."""
        self.rejected.clear()
        for path in self.files():
            kind = _kind(path)
            if kind == "text":
                yield from self._plain(path)
                continue
            source = ParquetSource() if kind == "parquet" else JsonlSource()
            for record in source.read(str(path)):
                if isinstance(record, Reject):
                    self.rejected[record.reason] += 1
                else:
                    yield record.text  # type: ignore[union-attr] # neither source gives pages

    def _below(self, folder: Path) -> list[Path]:
        if (folder / "documents").is_dir():
            corpus = Corpus(str(folder))
            names = corpus.partitions("documents", f"*/{self.language}_*")
            return [folder / corpus.path("documents", name) for name in names]
        return sorted(path for path in folder.rglob("*") if path.is_file() and _kind(path))

    def _plain(self, path: Path) -> Iterator[str]:
        held: list[str] = []
        for line in read_lines(str(path)):
            if isinstance(line, Fault):
                self.rejected[line.reason] += 1
                continue
            text = self._decode(line)
            if text is None:
                continue
            if self.unit == "line":
                yield text
            elif self.unit == "file" or text.strip():
                held.append(text)
            elif held:
                yield "\n".join(held)
                held = []
        if held:
            yield "\n".join(held)

    def _decode(self, line: Line) -> str | None:
        try:
            return line.content.decode()
        except UnicodeDecodeError:
            self.rejected["bad_utf8"] += 1
            return None


def _kind(path: Path) -> Literal["parquet", "json", "text"] | None:
    if path.suffix == ".parquet":
        return "parquet"
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    return "json" if name.endswith(_JSON) else "text" if name.endswith(_PLAIN) else None


def _known() -> str:
    return f"neither .parquet nor {', '.join(_JSON + _PLAIN)} (.gz, .zst)"
