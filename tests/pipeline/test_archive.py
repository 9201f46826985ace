"""Crawl archives, sound, odd and damaged: every good record comes out, everything else is told of."""

from __future__ import annotations

import io
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.sources.warc as warc
from pipeline.sources.archive import ArchiveParams, ArchiveSource, file_stem
from pipeline.sources.gzip_members import read_pieces
from pipeline.sources.parameters import Limits
from pipeline.sources.record import Document, Page, Reject
from pipeline.sources.records import Damaged, Record, digest_is_right, judge
from pipeline.sources.recovery import recover
from pipeline.sources.warc import read_warc
from pipeline.sources.window import Window
from tests.pipeline.archives import block_digest, members, response, warc_record

_ROOT = Path(os.environ.get("MENAGERIE_SHARED") or Path(__file__).parents[3] / "shared") / "data" / "broken"
_BROKEN = json.loads((_ROOT / "expected.json").read_text()) if _ROOT.is_dir() else {}
LIMITS = Limits()


def good(items) -> dict[str, int]:
    return dict(Counter(i.head.kind for i in items if isinstance(i, Record)))


def reasons(items) -> Counter[str]:
    return Counter(i.reason for i in items if isinstance(i, (Damaged, Reject)))


def read(content: bytes, limits: Limits = LIMITS) -> list[Record | Damaged]:
    return list(read_warc(io.BytesIO(content), limits))


@pytest.mark.parametrize("name", sorted(_BROKEN) or [pytest.param("", marks=pytest.mark.skip("no reference data"))])
def test_a_damaged_file_yields_exactly_its_good_records(name: str) -> None:
    items = list(ArchiveSource().records(str(_ROOT / name)))
    assert good(items) == _BROKEN[name]["good_records"]
    assert all(i.reason and i.reason.replace("_", "").isalnum() for i in items if isinstance(i, Damaged))
    converted = list(ArchiveSource().read(str(_ROOT / name)))
    assert len(converted) == max(len(items), 1)  # an empty file is one reject
    documents = sum(isinstance(i, (Page, Document)) for i in converted)
    wanted = _BROKEN[name]["good_records"]
    assert documents == wanted.get("response", 0) + wanted.get("conversion", 0)


def test_sound_files_are_read_by_the_fast_reader_alone(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []
    monkeypatch.setattr(
        warc, "read_pieces", lambda file, limit, start=0: starts.append(start) or read_pieces(file, limit, start)
    )
    for name in ("web/web-000.warc.gz", "web/web-000.warc.wet.gz", "commoncrawl/cc-2020-34.warc.gz"):
        starts.clear()
        items = list(ArchiveSource().records(str(shared / name)))
        assert len(items) > 40 and not reasons(items)
        assert len(starts) == 1 and starts[0] > 0, "only the last record is read twice"


def test_both_readers_agree_on_real_files(shared: Path) -> None:
    for path in [*sorted((shared / "commoncrawl").glob("*.w*.gz")), shared / "web/web-001.warc.wet.gz"]:
        with path.open("rb") as file:
            careful = list(recover(Window(read_pieces(file, 1 << 30)), LIMITS))
        fast = list(ArchiveSource().records(str(path)))
        assert [(i.head, getattr(i, "block", None)) for i in fast] == [(i.head, getattr(i, "block", None)) for i in careful]


_TEXTS = [(f"text {n} " * (40 * n + 5)).encode() for n in range(7)]
_RECORDS = [warc_record("conversion", text, f"http://a.test/{n}") for n, text in enumerate(_TEXTS)]
_SOUND = {"members": members(*_RECORDS), "one member": members(b"".join(_RECORDS)), "plain": b"".join(_RECORDS)}


@settings(max_examples=150, deadline=5000)
@given(st.sampled_from(sorted(_SOUND)), st.data())
def test_no_damage_raises_or_hangs_or_lets_a_wrong_record_through(form: str, data: st.DataObject) -> None:
    content = bytearray(_SOUND[form])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        match data.draw(st.sampled_from(["cut", "flip", "insert", "delete", "zero"])):
            case "cut":
                del content[at:]
            case "flip":
                if content:
                    content[at] ^= data.draw(st.integers(1, 255))
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=40))
            case "delete":
                del content[at : at + data.draw(st.integers(1, 60))]
            case "zero":
                content[at : at + 30] = bytes(len(content[at : at + 30]))
    items = read(bytes(content))
    for item in items:
        if isinstance(item, Record):
            # Damage may hit the header that states the digest; what is stated must be right, and what is not, whole.
            assert judge(item.head, item.block).reason is None
            assert len(item.block) == item.head.length
            assert item.head.block_digest is None or digest_is_right(item.head.block_digest, item.block) is not False
    careful = list(recover(Window(read_pieces(io.BytesIO(bytes(content)), 1 << 30)), LIMITS))
    # FastWARC forgives a stray byte behind a block, so it may find more where damage took the digest away; never less.
    assert not blocks(careful) - blocks(items)
    assert not blocks([i for i in items if i.head and i.head.block_digest]) - blocks(careful)


def blocks(items) -> Counter[bytes]:
    return Counter(i.block for i in items if isinstance(i, Record))


@settings(max_examples=60, deadline=5000)
@given(st.integers(0, 6), st.integers(0, 2**32))
def test_damage_to_one_gzip_member_costs_that_record_alone(hit: int, seed: int) -> None:
    chance = random.Random(seed)
    parts = [members(record) for record in _RECORDS]
    broken = bytearray(parts[hit])
    broken[chance.randrange(10, len(broken))] ^= chance.randrange(1, 256)
    parts[hit] = bytes(broken)
    items = read(b"".join(parts))
    assert len(items) >= len(_TEXTS), "what is lost is told of"
    found = [i.block for i in items if isinstance(i, Record)]
    assert [t for t in found if t != _TEXTS[hit]] == [t for t in _TEXTS if t != _TEXTS[hit]]


@given(st.binary(max_size=2000))
def test_any_bytes_at_all_are_read_without_an_error(content: bytes) -> None:
    assert not [i for i in read(content) if isinstance(i, Record) and judge(i.head, i.block).reason]


def test_records_are_numbered_by_documents_in_their_file(tmp_path: Path, shared: Path) -> None:
    path = tmp_path / "x.warc.wet.gz"
    path.write_bytes(
        members(
            warc_record("warcinfo", b"a: b", None),
            warc_record("conversion", b"one"),
            warc_record("conversion", b"broken", length=900),
            warc_record("request", b"GET /"),
            warc_record("conversion", b"three"),
        )
    )
    items = list(ArchiveSource().read(str(path)))
    assert [i.record_id for i in items if isinstance(i, Document)] == ["x/0", "x/2"]
    assert [i.record_id for i in items if isinstance(i, Reject) and i.reason == "record_cut"] == ["x/1"]
    pages = [i for i in ArchiveSource().read(str(shared / "web/web-003.warc.gz")) if isinstance(i, Page)]
    assert [p.record_id for p in pages] == [f"web-003/{n}" for n in range(224)]


def test_an_oversized_record_is_skipped_and_the_next_one_read() -> None:
    limits = Limits(max_record_bytes=1000)
    bomb = warc_record("response", b"\0" * 5_000_000)
    items = read(members(bomb, warc_record("conversion", b"after")), limits)
    assert reasons(items) == {"too_large": 1} and good(items) == {"conversion": 1}
    items = read(bomb + warc_record("conversion", b"after"), limits)
    assert reasons(items) == {"too_large": 1} and good(items) == {"conversion": 1}


def test_a_record_over_several_members_is_whole() -> None:
    record = warc_record("conversion", b"first half, second half")
    items = read(members(record[:200], record[200:], warc_record("conversion", b"next")))
    assert good(items) == {"conversion": 2} and not reasons(items)


def test_zstandard_archives_are_read_up_to_the_damage() -> None:
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    frames = [compressor.compress(record) for record in _RECORDS]
    for content in (b"".join(frames), compressor.compress(b"".join(_RECORDS))):
        assert [i.block for i in read(content) if isinstance(i, Record)] == _TEXTS and not reasons(read(content))
    cut = read(b"".join(frames[:4]) + frames[4][:60])
    assert [i.block for i in cut if isinstance(i, Record)] == _TEXTS[:4]
    broken = bytearray(b"".join(frames))
    broken[len(b"".join(frames[:3])) + 40] ^= 255
    items = read(bytes(broken))
    assert [i.block for i in items if isinstance(i, Record)][:3] == _TEXTS[:3] and reasons(items)


def test_kinds_take_their_own_records(tmp_path: Path) -> None:
    path = tmp_path / "both.warc"
    path.write_bytes(warc_record("response", response(b"<p>x")) + warc_record("conversion", b"t\nx"))

    def taken(kind: str) -> list[str]:
        params = ArchiveParams.model_validate({"kind": kind, "paths": [str(path)]})
        return [getattr(i, "reason", type(i).__name__) for i in params.open(LIMITS).read(params.files()[0])]

    assert taken("auto") == ["Page", "Document"]
    assert taken("warc") == ["Page", "record_type_conversion"]
    assert taken("wet") == ["record_type_response", "Document"]


def test_only_web_addresses_become_pages(tmp_path: Path) -> None:
    path = tmp_path / "x.warc"
    path.write_bytes(
        warc_record("response", b"127.0.0.1", "dns:a.test")
        + warc_record("response", response(b"<p>x"), "HTTPS://a.test/")
        + warc_record("response", b"no header at all", "http://a.test/")
    )
    told = [getattr(i, "reason", type(i).__name__) for i in ArchiveSource().read(str(path))]
    assert told == ["url_scheme", "Page", "no_http_header"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot open .*nothing\.warc\.gz"):
        list(ArchiveSource().read(str(tmp_path / "nothing.warc.gz")))


def test_names_lose_what_says_only_the_format() -> None:
    assert [file_stem(n) for n in ("web-003.warc.wet.gz", "a.b.warc.gz", "x.arc", "y.warc")] == ["web-003", "a.b", "x", "y"]


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5", "SHA-1"])
@given(content=st.binary(max_size=50), other=st.binary(max_size=50))
def test_digests_are_read_in_every_usual_spelling(algorithm: str, content: bytes, other: bytes) -> None:
    import base64
    import hashlib

    raw = hashlib.new(algorithm.lower().replace("-", ""), content).digest()
    base32, base64_ = base64.b32encode(raw), base64.b64encode(raw)
    spelled = [base32, base32.rstrip(b"="), raw.hex().encode(), base64_, base64.urlsafe_b64encode(raw)]
    for value in spelled:
        stated = f"{algorithm}:{value.decode()}"
        assert digest_is_right(stated, content) is True
        assert digest_is_right(stated, other) is (content == other)
    assert digest_is_right("crc32:00000000", content) is None
    assert digest_is_right("sha1:" + "8" * 32, content) is False
    assert block_digest(content).startswith("sha1:")
