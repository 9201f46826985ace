"""Fetching published models from a server that behaves, and from one that does not."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import re
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.models import CCNET_LANGUAGES, GITHUB, PUBLISHER, Model, ModelFile, fetch, find, locate, registry
from pipeline.word_lists import LDNOOBW_SHA256, combination_numbers
from quality.resources import SignalResources

CONTENT = b"a model of forty-two bytes, and not one more" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` by path and counts requests."""

    content: dict[str, bytes]
    asked: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = self.server.content.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.content, running.asked = {}, []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def left_in(folder: Path) -> list[str]:
    """Every file but the downloader's own state."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and ".state" not in p.parts)


def model(*files: ModelFile) -> Model:
    return Model("made", files, "CC0-1.0", "made for a test")


def test_the_registry_has_the_language_ids_and_ccnets_language_models() -> None:
    assert len(CCNET_LANGUAGES) == 48
    assert list(registry())[:2] == ["lid176", "lid176-small"]
    assert {f"ccnet-{language}" for language in ("en", "de", "fr", "es", "it")} < set(registry())
    assert [file.path for file in find("ccnet-en").files] == ["ccnet/en.sp.model", "ccnet/en.arpa.bin"]
    for each in registry().values():
        for file in each.files:
            assert file.url.startswith((f"{PUBLISHER}/", f"{GITHUB}/", "https://dsi.ut-capitole.fr/"))
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)


def test_the_published_checksum_is_that_of_the_model(shared: Path, server: Server, tmp_path: Path) -> None:
    server.content["/fasttext/supervised-models/lid.176.ftz"] = (shared / "models" / "lid.176.ftz").read_bytes()
    (got,) = fetch([find("lid176-small")], tmp_path, mirror=address(server))
    assert (got.checked, got.downloaded) == ("published", True)
    assert locate("lid176-small", tmp_path) == (got.path,)
    assert got.path.stat().st_size == find("lid176-small").size


def test_a_model_is_downloaded_once_and_checked_every_time(server: Server, tmp_path: Path) -> None:
    server.content["/m.bin"] = CONTENT
    made = model(ModelFile(f"{address(server)}/m.bin", "folder/m.bin", SHA256, len(CONTENT)))
    assert [f.downloaded for f in fetch([made, made], tmp_path)] == [True, False]
    assert server.asked == ["/m.bin"]
    assert left_in(tmp_path) == ["folder/m.bin"]
    assert (tmp_path / "folder" / "m.bin").read_bytes() == CONTENT
    (tmp_path / "folder" / "m.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=r"m\.bin has sha256 .* not the published .*: delete it and fetch it again"):
        fetch([made], tmp_path)


def test_a_wrong_checksum_is_an_error_and_leaves_no_file(server: Server, tmp_path: Path) -> None:
    server.content["/m.bin"] = b"something else"
    made = model(ModelFile(f"{address(server)}/m.bin", "m.bin", SHA256))
    with pytest.raises(ValueError, match=rf"gave 14 bytes with sha256 .*, not the published {SHA256}; they are deleted"):
        fetch([made], tmp_path)
    assert left_in(tmp_path) == []
    server.content["/m.bin"] = CONTENT
    assert fetch([made], tmp_path)[0].downloaded


def test_without_a_published_checksum_the_first_download_counts(server: Server, tmp_path: Path) -> None:
    server.content["/en.sp.model"] = CONTENT
    made = model(ModelFile(f"{address(server)}/en.sp.model", "en.sp.model"))
    assert [f.checked for f in fetch([made], tmp_path)] == ["first"]
    assert (tmp_path / "en.sp.model.sha256").read_text() == f"{SHA256}  en.sp.model\n"  # sha256sum --check reads it
    assert [f.checked for f in fetch([made], tmp_path)] == ["recorded"]
    (tmp_path / "en.sp.model").unlink()
    server.content["/en.sp.model"] = CONTENT + b"!"
    with pytest.raises(ValueError, match=f"not the recorded {SHA256}"):
        fetch([made], tmp_path)
    assert left_in(tmp_path) == ["en.sp.model.sha256"]


def test_a_model_that_the_server_lacks_is_an_error(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the server has no such file"):
        fetch([find("lid176")], tmp_path, mirror=address(server))


def test_a_missing_model_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fetch it with `menagerie models fetch ccnet-en`"):
        locate("ccnet-en", tmp_path)
    with pytest.raises(ValueError, match=r"no model is called lid-176; did you mean lid176"):
        find("lid-176")


def test_the_command_fetches_and_lists(shared: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workflows.commands.models import models

    monkeypatch.setenv("MENAGERIE_CACHE", str(tmp_path))
    server.content["/fasttext/supervised-models/lid.176.ftz"] = (shared / "models" / "lid.176.ftz").read_bytes()
    server.content["/cc_net/lm/en.sp.model"] = server.content["/cc_net/lm/en.arpa.bin"] = CONTENT
    run = CliRunner().invoke
    done = run(models, ["fetch", "lid176-small", "ccnet-en", "--mirror", address(server)], catch_exceptions=False)
    assert done.exit_code == 0
    assert f"{tmp_path}/lid.176.ftz: sha256 is the published one" in done.output
    assert f"{tmp_path}/ccnet/en.sp.model: no checksum is published; recorded sha256 {SHA256}" in done.output
    again = json.loads(run(models, ["fetch", "ccnet-en", "--json"], catch_exceptions=False).output)
    assert [(f["checked"], f["downloaded"]) for f in again] == [("recorded", False)] * 2
    listed = {row["name"]: row for row in json.loads(run(models, ["list", "--json"], catch_exceptions=False).output)}
    assert [name for name, row in listed.items() if row["here"]] == ["lid176-small", "ccnet-en"]
    assert listed["lid176"]["bytes"] == 131_266_198
    table = run(models, ["list"], catch_exceptions=False)
    assert table.exit_code == 0
    assert re.search(r"lid176-small\s+yes\s+1\s+published", table.output)
    assert isinstance(run(models, ["fetch", "nothing"]).exception, ValueError)
    assert run(models, ["fetch"]).exit_code == 2


def test_word_lists_come_at_fixed_commits_and_are_read_as_they_are(server: Server, tmp_path: Path) -> None:
    (stop_words,) = find("stop-words").files
    assert re.search(r"/[0-9a-f]{40}/stopwords-all\.json$", stop_words.url) and stop_words.sha256
    assert len(find("ldnoobw").files) == len(LDNOOBW_SHA256) == 26
    words = b"a\nphrase of more\n"
    checksum, folder = hashlib.sha256(words).hexdigest(), "word-lists/ldnoobw"
    made = model(*(ModelFile(f"{address(server)}/{code}", f"{folder}/{code}.txt", checksum) for code in ("en", "de")))
    server.content["/en"] = server.content["/de"] = words
    fetch([made], tmp_path)
    lists = SignalResources.load(ldnoobw=tmp_path / "word-lists" / "ldnoobw").ldnoobw
    assert lists == {"de": ("a", "phrase of more"), "en": ("a", "phrase of more")}


def test_the_block_list_is_unpacked_with_the_numbers_of_combinations(server: Server, shared: Path, tmp_path: Path) -> None:
    golden = json.loads((shared / "rpv2" / "ut1.json").read_text())
    assert combination_numbers()[("adult",)] == 0 and len(combination_numbers()) == 8191
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for category in golden["categories"]:
            if category == "agressive":  # as published, a link to another category
                continue
            domains = "\n".join(d for d, of in golden["domain_to_categories"].items() if category in of)
            info = tarfile.TarInfo(f"blacklists/{category}/domains")
            info.size = len(domains.encode())
            tar.addfile(info, io.BytesIO(domains.encode()))
        link = tarfile.TarInfo("blacklists/agressive")
        link.type, link.linkname = tarfile.SYMTYPE, "agressif"
        tar.addfile(link)
    server.content["/blacklists/download/blacklists.tar.gz"] = packed.getvalue()
    (got,) = fetch([find("ut1")], tmp_path, mirror=address(server))
    assert got.path == tmp_path / "word-lists" / "ut1.json" and locate("ut1", tmp_path) == (got.path,)
    wanted = {}
    for domain, of in golden["domain_to_categories"].items():
        categories = set(of) - {"agressive"} | ({"agressive"} if "agressif" in of else set())
        if categories:
            wanted[domain] = combination_numbers()[tuple(sorted(categories))]
    assert SignalResources.load(ut1=got.path).ut1 == wanted
    got.path.unlink()
    assert not fetch([find("ut1")], tmp_path)[0].downloaded and got.path.is_file()
    for domain, of in golden["domain_to_categories"].items():
        assert combination_numbers()[tuple(sorted(of))] == golden["domain_to_category_id"][domain]
