"""Files behind a URL: whole or absent, here and in memory. `test_object_store.py` keeps the same promises on S3."""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage import Storage, join_url, open_filesystem


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "root") if request.param == "local" else f"memory://{tmp_path.name}/root")


def test_what_is_written_is_read(storage: Storage) -> None:
    content = bytes(range(256)) * 1000
    written = storage.write("a/b.bin", content)
    assert (written.path, written.bytes, written.digest) == ("a/b.bin", 256_000, xxhash.xxh3_128(content).hexdigest())
    assert storage.read("a/b.bin") == content
    assert storage.exists("a/b.bin") and storage.size("a/b.bin") == 256_000 and storage.digest("a/b.bin") == written.digest
    with storage.open("a/b.bin") as stream:
        stream.seek(255)
        assert stream.read(2) == b"\xff\x00"


def test_a_file_name_never_changes_the_bytes(storage: Storage) -> None:
    packed = gzip.compress(b"x" * 1000)
    for name, content in (("plain.gz", b"not packed"), ("packed.gz", packed), ("packed.zst", packed)):
        assert storage.write(name, content).digest == storage.digest(name)
        assert storage.read(name) == content and storage.size(name) == len(content)


def test_writing_again_replaces_and_deleting_twice_is_no_error(storage: Storage) -> None:
    storage.write("a", b"one")
    storage.write("a", b"two")
    assert storage.read("a") == b"two"
    storage.delete("a")
    storage.delete("a")
    assert not storage.exists("a")
    with pytest.raises(FileNotFoundError):
        storage.read("a")


def test_files_are_listed_below_the_root_in_order(storage: Storage) -> None:
    for path in ("t/2/b.parquet", "t/1/c.parquet", "t/1/a.json", "u/d.parquet"):
        storage.write(path, b"")
    assert storage.files("t", ".parquet") == ["t/1/c.parquet", "t/2/b.parquet"]
    assert storage.files("") == ["t/1/a.json", "t/1/c.parquet", "t/2/b.parquet", "u/d.parquet"]
    assert storage.files("none") == []


def test_a_storage_travels_as_its_url(storage: Storage) -> None:
    storage.write("a", b"x")
    assert len(pickle.dumps(storage)) < 500
    assert pickle.loads(pickle.dumps(storage)) == storage and pickle.loads(pickle.dumps(storage)).read("a") == b"x"


def test_fetch_gives_a_local_file(storage: Storage, tmp_path: Path) -> None:
    storage.write("models/m.bin", b"model")
    assert storage.fetch("models/m.bin", tmp_path / "scratch").read_bytes() == b"model"


def test_an_unknown_scheme_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match="cannot open nonsense://x"):
        open_filesystem("nonsense://x")


@given(st.sampled_from(["s3://b/c", "s3://b/c/"]), st.sampled_from(["", "?endpoint_override=127.0.0.1:1&scheme=http"]))
def test_a_query_stays_at_the_end_of_a_url(folder: str, query: str) -> None:
    assert join_url(folder + query, "d/e.parquet") == f"s3://b/c/d/e.parquet{query}"
    assert join_url("/x?/y", "z") == "/x?/y/z"


def test_what_a_killed_write_leaves_is_invisible_and_swept(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write("t/a.bin", b"old")
    left = tmp_path / "t" / f".a.bin.{'0' * 32}.tmp"
    left.write_bytes(b"half of the ne")
    (tmp_path / "t" / ".keep.tmp").write_bytes(b"somebody else's")
    assert storage.files("t") == ["t/.keep.tmp", "t/a.bin"] and storage.read("t/a.bin") == b"old"
    assert storage.sweep() == 1
    assert not left.exists() and (tmp_path / "t" / ".keep.tmp").exists()


WRITER = """
import sys
from pipeline.storage import Storage
storage, size = Storage(sys.argv[1]), 8 << 20
n = 0
while True:
    storage.write(f"t/{n % 3}.bin", bytes([n % 251]) * size)
    print(n, flush=True)
    n += 1
"""


def test_a_kill_in_the_middle_leaves_no_half_file(tmp_path: Path) -> None:
    size, in_flight = 8 << 20, 0
    for attempt in range(12):
        root = tmp_path / str(attempt)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert writer.stdout is not None and writer.stdout.readline()
        time.sleep(0.003 * attempt)
        writer.kill()
        writer.wait(10)
        writer.stdout.close()
        storage = Storage(str(root))
        assert storage.files("t")
        for path in storage.files("t"):
            content = storage.read(path)
            assert len(content) == size and content == content[:1] * size
        in_flight += storage.sweep()
    assert in_flight > 0, "no kill hit a write, so nothing was shown"
