"""Records of crawl archives, and what makes one sound: a full header, a whole block, and right digests."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

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


def judge(head: Head, block: bytes) -> Verdict:
    """What is known of a record whose block has its stated length.

    A stated digest of the block decides. A payload digest counts only beside one of the block, and not for responses: crawlers
    disagree on what the payload of a response is, and its bytes are in the block. The digests of a revisit are not looked at,
    since they tell of bytes that it leaves out.
    """
    if head.uri is None and head.kind in NEEDS_URI:
        return Verdict("no_target_uri", f"a {head.kind} record without WARC-Target-URI")
    if head.block_digest is None or head.kind == "revisit":
        return Verdict()
    right = digest_is_right(head.block_digest, block)
    if right is False:
        return Verdict("digest_mismatch", f"the block is not that of {head.block_digest}")
    if head.payload_digest is not None and head.kind != "response":
        payload = block.partition(b"\r\n\r\n")[2] if head.kind == "request" else block
        if head.payload_digest != head.block_digest and digest_is_right(head.payload_digest, payload) is False:
            return Verdict("payload_digest_mismatch", f"the payload is not that of {head.payload_digest}")
    return Verdict(confirmed=right is True)


_ALGORITHMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "sha512": hashlib.sha512, "md5": hashlib.md5}
_BASE32 = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567abcdefghijklmnopqrstuvwxyz" + "0189_",
    "0123456789abcdefghijklmnopqrstuv0123456789abcdefghijklmnop" + "!!!!!",
)
"""The digits of base 32 (RFC 4648) to those that int() reads; what is no digit to what is none there either."""


def digest_is_right(stated: str, content: bytes) -> bool | None:
    """Whether a labelled digest (`sha1:...`) is that of the content, in base32, base16 or either base64; None if the
    algorithm is not known here, or the value has no length that the algorithm could give."""
    algorithm, _, value = stated.partition(":")
    new = _ALGORITHMS.get(algorithm.strip().lower().replace("-", ""))
    if new is None:
        return None
    digest = new(content, usedforsecurity=False).digest()
    value = value.strip().rstrip("=")
    bits = 8 * len(digest)
    if len(value) == (bits + 4) // 5:
        try:
            return int(value.translate(_BASE32), 32) >> (5 * len(value) - bits) == int.from_bytes(digest, "big")
        except ValueError:
            return False
    if len(value) == 2 * len(digest):
        return value.lower() == digest.hex()
    if len(value) == (bits + 5) // 6:
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
