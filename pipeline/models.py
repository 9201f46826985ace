"""Models that other people published: where they are, what they must hash to, and the folder that keeps them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.download import Downloader
from pipeline.word_lists import LDNOOBW_SHA256, unpack_ut1

PUBLISHER = "https://dl.fbaipublicfiles.com"
GITHUB = "https://raw.githubusercontent.com"
_LDNOOBW = "LDNOOBW/List-of-Dirty-Naughty-Obscene-and-Otherwise-Bad-Words/5faf2ba42d7b1c0977169ec3611df25a3c08eb13"
_LANGUAGES = (
    "af ar az be bg bn ca cs da de el en es et fa fi fr gu he hi hr hu hy id is it ja ka kk km kn ko lt lv mk ml mn mr my ne "
    "nl no pl pt ro ru uk zh"
)
CCNET_LANGUAGES = tuple(_LANGUAGES.split())
"""Languages with a published SentencePiece and KenLM model (cc_net `Makefile`, `langs`)."""


@dataclass(frozen=True)
class ModelFile:
    """One file. path: below the cache folder; sha256 (hex) and size in bytes, None if unpublished. unpacked: for an archive the
    file below the cache folder that is made of it, and how: what readers open."""

    url: str
    path: str
    sha256: str | None = None
    size: int | None = None
    unpacked: tuple[str, Callable[[Path, Path], None]] | None = None

    @property
    def used(self) -> str:
        """What readers open, below the cache folder."""
        return self.unpacked[0] if self.unpacked else self.path


@dataclass(frozen=True)
class Model:
    """A published model and its files."""

    name: str
    files: tuple[ModelFile, ...]
    licence: str
    about: str

    @property
    def size(self) -> int | None:
        """Bytes of all files; None if a size is not known."""
        return sum(f.size or 0 for f in self.files) if all(f.size for f in self.files) else None


@dataclass(frozen=True)
class Fetched:
    """What became of one file: where it is, its sha256, and whether that was checked against a published or recorded one."""

    path: Path
    sha256: str
    checked: str  # against: "published", "recorded" (by the first download into this folder), or "first" (none; now recorded)
    downloaded: bool


@cache
def registry() -> Mapping[str, Model]:
    """Every model that `menagerie models fetch` knows, by name."""
    large = ModelFile(
        f"{PUBLISHER}/fasttext/supervised-models/lid.176.bin",
        "lid.176.bin",
        "7e69ec5451bc261cc7844e49e4792a85d7f09c06789ec800fc4a44aec362764e",
        131_266_198,
    )
    small = ModelFile(
        f"{PUBLISHER}/fasttext/supervised-models/lid.176.ftz",
        "lid.176.ftz",
        "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
        938_013,
    )
    models = [
        Model("lid176", (large,), "CC-BY-SA-3.0", "fastText language id, 176 languages: CCNet's"),
        Model("lid176-small", (small,), "CC-BY-SA-3.0", "the same, compressed, a little less accurate"),
    ]
    for language in CCNET_LANGUAGES:
        pair = (f"{language}.sp.model", f"{language}.arpa.bin")
        files = tuple(ModelFile(f"{PUBLISHER}/cc_net/lm/{name}", f"ccnet/{name}") for name in pair)
        models.append(Model(f"ccnet-{language}", files, "not stated", f"CCNet's SentencePiece + KenLM of {language} Wikipedia"))
    return {model.name: model for model in (*models, *_word_lists())}


def _word_lists() -> tuple[Model, ...]:
    """The lists that signals read, at fixed commits; the block list changes daily."""
    stop_words = ModelFile(
        f"{GITHUB}/6/stopwords-json/fca10ee6724fdfae58b9e72e43ac7d4a6ae9cd45/stopwords-all.json",
        "word-lists/stop-words.json",
        "187c6c912d44986ac7981aadef9a56ed45f0781a65f860e9bcd0c31a26357483",
        118_584,
    )
    ldnoobw = tuple(
        ModelFile(f"{GITHUB}/{_LDNOOBW}/{language}", f"word-lists/ldnoobw/{language}.txt", sha256)
        for language, sha256 in LDNOOBW_SHA256.items()
    )
    ut1 = ModelFile(
        "https://dsi.ut-capitole.fr/blacklists/download/blacklists.tar.gz",
        "word-lists/blacklists.tar.gz",
        unpacked=("word-lists/ut1.json", unpack_ut1),
    )
    return (
        Model("stop-words", (stop_words,), "Apache-2.0", "stopwords-json, 50 languages: RedPajama-V2's stop words"),
        Model("ldnoobw", ldnoobw, "CC-BY-4.0", f"LDNOOBW, {len(ldnoobw)} languages: words on which C4 drops pages"),
        Model("ut1", (ut1,), "CC-BY-SA-4.0", "UT1 block list of domains, RedPajama-V2's 13 categories"),
    )


def cache_folder() -> Path:
    """Where fetched models lie: $MENAGERIE_CACHE, else ~/.cache/menagerie."""
    return Path(os.environ.get("MENAGERIE_CACHE") or Path.home() / ".cache" / "menagerie").expanduser()


def find(name: str) -> Model:
    """ValueError, with near names, if the registry has no such model."""
    models = registry()
    if name not in models:
        from difflib import get_close_matches

        near = get_close_matches(name, models, 3) or ["lid176"]
        raise ValueError(f"no model is called {name}; did you mean {' or '.join(near)}? `menagerie models list` shows all")
    return models[name]


def locate(name: str, folder: Path | None = None) -> tuple[Path, ...]:
    """The files of a fetched model. ValueError says how to fetch it if one is missing."""
    folder = folder or cache_folder()
    paths = tuple(folder / file.used for file in find(name).files)
    for path in paths:
        if not path.is_file():
            raise ValueError(f"model {name} is not at {path}: fetch it with `menagerie models fetch {name}`")
    return paths


def fetch(models: Iterable[Model], folder: Path | None = None, mirror: str | None = None, retries: int = 4) -> list[Fetched]:
    """Download what is not there yet (an interrupted download goes on where it ended), and check every file, old or new.

    folder: the cache folder by default. mirror: a URL that takes the place of the publishers' hosts. A file without a published
    checksum is held to that of its first download, which lies beside it as `<file>.sha256`. ValueError, with the download
    deleted, if the checksum differs; FileNotFoundError or ConnectionError if the server has no such file or does not answer.
    """
    folder = folder or cache_folder()
    downloader = Downloader(cache=str(folder / "downloads"), retries=retries)
    return [_fetch_file(file, folder, mirror, downloader) for model in models for file in model.files]


def _fetch_file(file: ModelFile, folder: Path, mirror: str | None, downloader: Downloader) -> Fetched:
    target = folder / file.path
    record = target.with_name(f"{target.name}.sha256")
    recorded = record.read_text().split()[0] if record.is_file() else None
    expected, checked = (file.sha256, "published") if file.sha256 else (recorded, "recorded" if recorded else "first")
    if target.is_file():
        sha256 = _sha256(target)
        if expected and sha256 != expected:
            raise ValueError(f"{target} has sha256 {sha256}, not the {checked} {expected}: delete it and fetch it again")
        downloaded = False
    else:
        url = mirror.rstrip("/") + urlsplit(file.url).path if mirror else file.url
        arrived = downloader.fetch(url)
        sha256 = _sha256(arrived)
        if expected and sha256 != expected:
            size = arrived.stat().st_size
            downloader.forget(url)
            raise ValueError(
                f"{url} gave {size} bytes with sha256 {sha256}, not the {checked} {expected}; they are deleted: "
                "try again, or name another --mirror"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        arrived.replace(target)
        downloaded = True
    if checked == "first":
        record.write_text(f"{sha256}  {target.name}\n")
    if file.unpacked is not None:
        name, unpack = file.unpacked
        if downloaded or not (folder / name).is_file():
            unpack(target, folder / name)
    return Fetched(folder / file.used, sha256, checked, downloaded)


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
