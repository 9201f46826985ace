"""Records of crawl archives, and what makes one sound: a full header, a whole block, and right digests."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from pipeline.sources.http import HTTP, split_response, undo_encodings

NEEDS_URI = frozenset({"response", "resource", "request", "revisit", "conversion", "continuation"})
"""Types that must name their target (ISO 28500, WARC-Target-URI)."""
DOCUMENT_TYPES = frozenset({"response", "conversion"})
"""Types that are numbered in `record_id`."""


@dataclass(slots=True)
class Head:
    """What the header of a record says, as far as it matters here. `kind`: the record type."""

    kind: str
    length: int
    uri: str | None = None
    date: str | None = None
    content_type: str | None = None
    block_digest: str | None = None
    payload_digest: str | None = None
    name: str | None = None  # WARC-Record-ID


@dataclass(slots=True)
class Record:
    """A sound record. `number`: how many document records come before it in its file, damaged ones included."""

    head: Head
    block: bytes
    number: int = 0


@dataclass(slots=True)
class Damaged:
    """A record that is not sound, or bytes that are none (`head` is None)."""

    reason: str
    detail: str | None = None
    head: Head | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` and `detail` say what is wrong, None if nothing is; `confirmed`: a digest vouches for every byte."""

    reason: str | None = None
    detail: str | None = None
    confirmed: bool = False


def judge(head: Head, block: bytes, max_body_bytes: int) -> Verdict:
    """What is known of a record whose block has its stated length.

    A stated digest of the block decides. That of the payload counts only beside one of the block: crawlers that state it
    alone disagree on what it covers. A revisit's are not looked at, since they tell of bytes that it leaves out.
    """
    if head.uri is None and head.kind in NEEDS_URI:
        return Verdict("no_target_uri", f"a {head.kind} record without WARC-Target-URI")
    if head.block_digest is None or head.kind == "revisit":
        return Verdict()
    right = digest_is_right(head.block_digest, block)
    if right is False:
        return Verdict("digest_mismatch", f"the block is not that of {head.block_digest}")
    if head.payload_digest is not None and not _payload_is_right(head, block, max_body_bytes):
        return Verdict("payload_digest_mismatch", f"the payload is not that of {head.payload_digest}")
    return Verdict(confirmed=right is True)


def _payload_is_right(head: Head, block: bytes, max_body_bytes: int) -> bool:
    """Whether the payload digest is that of the body as stored, without chunks, or decoded; or that of the whole block."""
    stated = head.payload_digest
    assert stated is not None
    if stated == head.block_digest:
        return True
    if not (block.startswith(HTTP) or head.kind == "request"):
        return digest_is_right(stated, block) is not False
    response = split_response(block)
    if digest_is_right(stated, response.body) is not False:
        return True
    if not response.transfer_encoding and not response.content_encoding:
        return False
    for content_encoding in ("", response.content_encoding):
        response.content_encoding = content_encoding
        decoded = undo_encodings(response, max_body_bytes)
        if isinstance(decoded, str) or digest_is_right(stated, decoded):
            return True  # too large to tell, or right
    return False


def digest_is_right(stated: str, content: bytes | memoryview) -> bool | None:
    """Whether a labelled digest (`sha1:...`) is that of the content, in base32, base16 or either base64; None if the
    algorithm is not known here, or the value has no length that the algorithm could give."""
    algorithm, _, value = stated.partition(":")
    algorithm = algorithm.strip().lower().replace("-", "")
    if algorithm not in ("sha1", "sha256", "sha512", "md5"):
        return None
    digest = hashlib.new(algorithm, content, usedforsecurity=False).digest()
    value = value.strip().rstrip("=")
    size = len(digest)
    if len(value) == 2 * size:
        return value.lower() == binascii.hexlify(digest).decode()
    if len(value) == (8 * size + 4) // 5:
        return value.upper() == base64.b32encode(digest).decode().rstrip("=")
    if len(value) == (8 * size + 5) // 6:
        return value.replace("-", "+").replace("_", "/") == base64.b64encode(digest).decode().rstrip("=")
    return None


def clean_uri(uri: str | None) -> str | None:
    """A target without the angle brackets that old wget wrote around it; None if nothing is left."""
    if uri is None:
        return None
    uri = uri.strip()
    if uri.startswith("<") and uri.endswith(">"):
        uri = uri[1:-1].strip()
    return uri or None
