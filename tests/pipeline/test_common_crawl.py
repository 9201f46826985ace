"""Common Crawl by snapshot, against a server on loopback that serves the same layout."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.download import NotHereError, offline
from pipeline.sources.common_crawl import CommonCrawlParams, DownloadParams
from pipeline.sources.parameters import Limits
from pipeline.sources.record import Document, Reject
from pipeline.sources.registry import open_source

SNAPSHOT = "CC-MAIN-2024-22"
FOLDER = f"crawl-data/{SNAPSHOT}/segments/1715971057216.39/wet"
PATHS = [f"{FOLDER}/CC-MAIN-20240517233122-20240518023122-{n:05d}.warc.wet.gz" for n in range(20)]
LISTING = f"crawl-data/{SNAPSHOT}/wet.paths.gz"


@pytest.fixture
def server(crawl_server: Any) -> Any:
    crawl_server.files[LISTING] = gzip.compress("".join(f"{path}\n" for path in PATHS).encode())
    return crawl_server


def params(server: Any, tmp_path: Path, **choice: Any) -> CommonCrawlParams:
    download = DownloadParams(cache=str(tmp_path / "cache"), backoff=0.01, retries=4, keep=choice.pop("keep", True))
    return CommonCrawlParams(snapshot=SNAPSHOT, base_url=server.url, download=download, **choice)


def documents(rows: Iterable[Any]) -> int:
    return sum(isinstance(row, Document) for row in rows)


def numbers(chosen: CommonCrawlParams) -> list[int]:
    return [int(url.rsplit("-", 1)[1][:5]) for url in chosen.files()]


def test_the_listing_gives_the_files_in_its_order(server: Any, tmp_path: Path) -> None:
    assert params(server, tmp_path).files() == [server.url + path for path in PATHS]
    assert params(server, tmp_path).files() == [server.url + path for path in PATHS]
    assert server.count(LISTING) == 1


def test_offline_knows_what_is_here_and_asks_nobody(server: Any, tmp_path: Path) -> None:
    with offline(), pytest.raises(NotHereError, match="build does that"):
        params(server, tmp_path).files()
    assert server.count(LISTING) == 0
    params(server, tmp_path).files()
    with offline():
        assert len(params(server, tmp_path).files()) == len(PATHS)
    assert server.count(LISTING) == 1


def test_files_are_chosen_by_range_shard_and_sample(server: Any, tmp_path: Path) -> None:
    assert numbers(params(server, tmp_path, first=3, count=4)) == [3, 4, 5, 6]
    cut = [numbers(params(server, tmp_path, shards=3, shard=shard)) for shard in range(3)]
    assert cut == [list(range(6)), list(range(6, 13)), list(range(13, 20))]
    assert numbers(params(server, tmp_path, shards=3, shard=1, first=1, count=2)) == [7, 8]
    samples = [numbers(params(server, tmp_path, sample=6, seed=seed)) for seed in range(5)]
    assert all(len(set(sample)) == 6 and sample == sorted(sample) for sample in samples)
    assert len({tuple(sample) for sample in samples}) > 1
    assert samples[0] == numbers(params(server, tmp_path, sample=6, seed=0))


def test_senseless_choices_are_one_clear_error(server: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lists 20 files, and the recipe's choice leaves none"):
        params(server, tmp_path, first=20).files()
    with pytest.raises(ValidationError, match="shard 3 is not among 3 shards"):
        params(server, tmp_path, shards=3, shard=3)
    with pytest.raises(ValidationError, match="snapshot"):
        CommonCrawlParams(snapshot="2024-22")


def test_an_unknown_snapshot_is_one_clear_error(crawl_server: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is CC-MAIN-2024-22 a published snapshot"):
        params(crawl_server, tmp_path).files()


def test_a_listing_of_something_else_is_refused(server: Any, tmp_path: Path, shared: Path) -> None:
    name = f"crawl-data/{SNAPSHOT}/warc.paths.gz"
    server.files[name] = (shared / "commoncrawl" / f"{SNAPSHOT}.warc.paths.gz").read_bytes()
    with pytest.raises(ValueError, match=r"warc\.paths\.gz, line 1, lists 'part-00000.*the listing of something else") as told:
        params(server, tmp_path, format="warc").files()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("path", ["../../etc/passwd", PATHS[0].replace("2024-22", "2023-06"), PATHS[0] + ".exe", "a b"])
def test_every_line_of_a_listing_is_checked(server: Any, tmp_path: Path, path: str) -> None:
    server.files[LISTING] = gzip.compress(f"{PATHS[0]}\n\n{path}\n".encode())
    with pytest.raises(ValueError, match="line 3, lists"):
        params(server, tmp_path).files()


def test_a_damaged_listing_is_one_clear_error(server: Any, tmp_path: Path) -> None:
    server.files[LISTING] = server.files[LISTING][:-30]
    with pytest.raises(ValueError, match=r"wet\.paths\.gz is damaged \(truncated"):
        params(server, tmp_path).files()


def test_the_same_records_come_over_a_bad_connection(server: Any, act: Any, tmp_path: Path, shared: Path) -> None:
    local = [shared / "commoncrawl" / "cc-2024-22.warc.wet.gz", shared / "web" / "web-000.wet.gz"]
    local = [path for path in local if path.exists()] or [next((shared / "web").glob("*.wet.gz"))]
    for path, file in zip(PATHS, local, strict=False):
        server.files[path] = file.read_bytes()
        size = file.stat().st_size
        server.script[path] = [act(status=503, retry_after="0"), act(cut=size // 3), act(status=429), act(cut=size // 4)]
    chosen = params(server, tmp_path, count=len(local))
    files, source = open_source(chosen)
    expected = [list(_local(path, tmp_path, PATHS[n])) for n, path in enumerate(local)]
    assert [list(source.read(url)) for url in files] == expected
    assert sum(map(len, expected)) > 0
    assert server.count(PATHS[0]) == 5
    assert {request.user_agent.split("/")[0] for request in server.requests} == {"menagerie"}


def _local(file: Path, tmp_path: Path, name: str) -> Any:
    """What the archive reader says of the same bytes under the same name, without a network."""
    from pipeline.sources.archive import ArchiveParams

    copy = tmp_path / "plain" / Path(name).name
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(file, copy)
    return ArchiveParams(kind="wet", paths=(str(copy),)).open(Limits()).read(str(copy))


def test_the_crawl_may_lie_in_a_folder(tmp_path: Path, shared: Path) -> None:
    root = tmp_path / "mirror"
    (root / FOLDER).mkdir(parents=True)
    (root / LISTING).write_bytes(gzip.compress((PATHS[0] + "\n").encode()))
    shutil.copy(shared / "commoncrawl" / "cc-2024-22.warc.wet.gz", root / PATHS[0])
    chosen = CommonCrawlParams(snapshot=SNAPSHOT, base_url=str(root))
    files, source = open_source(chosen)
    assert files == [f"{root}/{PATHS[0]}"]
    assert documents(source.read(files[0])) == 1
    assert chosen.identity(files[0]).startswith("xxh3:")


def test_a_file_that_the_server_lacks_is_a_counted_reject(server: Any, tmp_path: Path) -> None:
    files, source = open_source(params(server, tmp_path))
    (reject,) = source.read(files[0])
    assert isinstance(reject, Reject) and reject.reason == "missing_file" and reject.url == files[0]


def test_a_cache_need_not_be_kept(server: Any, tmp_path: Path, shared: Path) -> None:
    server.files[PATHS[0]] = (shared / "commoncrawl" / "cc-2024-22.warc.wet.gz").read_bytes()
    for keep, requests in ((False, 2), (True, 3)):
        files, source = open_source(params(server, tmp_path, keep=keep))
        assert documents(source.read(files[0])) == documents(source.read(files[0])) == 1
        assert server.count(PATHS[0]) == requests
    left = sorted(p.name for p in (tmp_path / "cache").rglob("*.gz"))
    assert left == [Path(PATHS[0]).name, "wet.paths.gz"]


def test_workers_together_ask_no_more_than_allowed(server: Any, act: Any, tmp_path: Path, shared: Path) -> None:
    for path in PATHS:
        server.files[path] = (shared / "commoncrawl" / "cc-2024-22.warc.wet.gz").read_bytes()
        server.script[path] = [act(wait=0.02)]
    files, source = open_source(params(server, tmp_path))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda url: documents(source.read(url)), files)) == [1] * 20
    assert server.most_at_once == 2


def test_how_files_are_fetched_is_no_part_of_the_fingerprint(server: Any, tmp_path: Path) -> None:
    one, other = params(server, tmp_path), params(server, tmp_path / "elsewhere")
    assert one.download != other.download and one.model_dump(mode="json") == other.model_dump(mode="json")
    assert one.identity(server.url + PATHS[0]) != one.identity(server.url + PATHS[1])
