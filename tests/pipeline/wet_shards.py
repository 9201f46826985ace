"""The five WET files of the reference data as raw shards, read with nothing but gzip, from CCNet's description."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa

from pipeline import tables

MIN_LENGTH = 300


def read_shards(data: Path) -> dict[str, pa.Table]:
    """`web/0000` to `web/0004`: one raw table per WET file."""
    files = sorted((data / "web").glob("*.warc.wet.gz"))
    return {f"web/{number:04d}": read_shard(file) for number, file in enumerate(files)}


def read_shard(file: Path) -> pa.Table:
    rows = []
    for number, (headers, body) in enumerate(conversions(gzip.decompress(file.read_bytes()))):
        lines = [line.strip() for line in body.split("\n")]
        title, text = lines[0], "\n".join(lines[1:-1])  # the block ends in a newline
        if len(text) < MIN_LENGTH:
            continue
        rows.append(
            {
                "record_id": f"{file.name.split('.')[0]}/{number}",
                "url": headers["WARC-Target-URI"],
                "date_download": headers["WARC-Date"],
                "digest": headers["WARC-Block-Digest"],
                "source_domain": urlsplit(headers["WARC-Target-URI"]).netloc,
                "title": title,
                "raw_content": text,
                "cc_segment": file.name,
                "original_length": int(headers["Content-Length"]),
            }
        )
    return pa.Table.from_pylist(rows, schema=tables.RAW)


def conversions(content: bytes) -> Iterator[tuple[dict[str, str], str]]:
    """Headers and text of every conversion record."""
    position = 0
    while position < len(content):
        end = content.index(b"\r\n\r\n", position)
        headers = dict(line.split(": ", 1) for line in content[position:end].decode().split("\r\n")[1:])
        position = end + 4 + int(headers["Content-Length"])
        if headers["WARC-Type"] == "conversion":
            yield headers, content[end + 4 : position].decode()
        position += 4


def raw_table(texts: list[str], first: int = 0) -> pa.Table:
    """A raw table of texts, for small examples."""
    columns = {name: pa.nulls(len(texts), tables.RAW.field(name).type) for name in tables.RAW.names}
    columns["record_id"] = pa.array([f"made/{first + i}" for i in range(len(texts))])
    columns["raw_content"] = pa.array(texts, pa.large_string())
    columns["original_length"] = pa.array([len(t.encode()) for t in texts], pa.int64())
    return pa.table(columns, schema=tables.RAW)
