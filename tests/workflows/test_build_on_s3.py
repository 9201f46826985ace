"""A whole build in a bucket, on a server that speaks S3 over HTTP (moto's): tables, shards, training, the report."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from pipeline.corpus import Corpus
from tests.workflows.small_crawl import write_crawl, write_recipe
from workflows.build import build
from workflows.cli import main
from workflows.progress import Progress
from workflows.recipe import load_recipe
from workflows.verify import verify


@pytest.fixture
def bucket() -> Iterator[str]:
    """URL query of an S3 server with an empty bucket `crawl`."""
    server_module = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(key, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        address = "{}:{}".format(*server.get_host_and_port())
        pafs.S3FileSystem(endpoint_override=address, scheme="http", allow_bucket_creation=True).create_dir("crawl")
        yield f"?endpoint_override={address}&scheme=http"
        server.stop()


def test_a_corpus_in_a_bucket_is_built_trained_on_verified_and_reported(bucket: str, tmp_path: Path) -> None:
    write_crawl(tmp_path / "crawl", files=2, pages=40)
    recipe = write_recipe(tmp_path, tmp_path / "crawl")
    url = f"s3://crawl/a/corpus{bucket}"
    assignments = [f"corpus={json.dumps(url)}", f"train.folder={json.dumps(str(tmp_path / 'runs'))}"]
    made = load_recipe(recipe, assignments)
    done = build(made, progress=Progress(quiet=True))
    run = Path(done["train"][0].metrics["run"])
    assert run.is_relative_to(tmp_path / "runs") and (run / "model.safetensors").exists()
    assert list(verify(Corpus(url))) == []
    before = {r.stage: r.seconds for receipts in done.values() for r in receipts}
    again = build(made, progress=Progress(quiet=True))
    assert {r.stage: r.seconds for receipts in again.values() for r in receipts} == before
    page = tmp_path / "page.html"
    main(["report", url, "-o", str(page)])
    assert "Page 1" in page.read_text(encoding="utf-8") or "site1.example" in page.read_text(encoding="utf-8")
