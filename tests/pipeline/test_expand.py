"""Paths and patterns of sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.sources.parameters import expand


def test_patterns_become_the_files_that_match(tmp_path: Path) -> None:
    for name in ("b.warc.gz", "a.warc.gz", "deep/c.warc.gz", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert expand([f"{tmp_path}/*.warc.gz"]) == [f"{tmp_path}/a.warc.gz", f"{tmp_path}/b.warc.gz"]
    assert expand([f"{tmp_path}/**/*.warc.gz"]) == [f"{tmp_path}/{n}.warc.gz" for n in ("a", "b", "deep/c")]
    with pytest.raises(ValueError, match=r"no file matches .*\*\.arc"):
        expand([f"{tmp_path}/*.arc"])


def test_a_file_and_a_folder_may_be_named_like_patterns(tmp_path: Path) -> None:
    folder = tmp_path / "crawl[1]"
    folder.mkdir()
    (folder / "page[2].warc.gz").touch()
    (folder / "page2.warc.gz").touch()
    assert expand([f"{folder}/page[2].warc.gz"]) == [f"{folder}/page[2].warc.gz"]
    assert expand([f"{folder}/*.warc.gz"]) == [f"{folder}/page2.warc.gz", f"{folder}/page[2].warc.gz"]
    assert expand([f"{folder}/page[0-9].warc.gz"]) == [f"{folder}/page2.warc.gz"]
