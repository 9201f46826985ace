"""Digests of documents: equal digests mean equal text."""

from __future__ import annotations

from hashlib import blake2b
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.text import TextBatch

Equality = Literal["raw", "normalized"]
"""raw: the same characters. normalized: the same words, whatever their case, ASCII punctuation, spacing and normal form."""


def text_digests(documents: pa.Table, equality: Equality) -> NDArray[np.uint64]:
    """128 bits of BLAKE2b per document, as uint64 (documents, 2). Nobody can write a text that passes for another one.

    A text without a normalised word is compared raw, so that "!" and "?" do not become duplicates.
    """
    digests: list[bytes] = []
    for text in TextBatch.over(documents.select(["raw_content"])):
        digests += _raw(text) if equality == "raw" else _normalised(text)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64).reshape(-1, 2)


def _raw(text: TextBatch) -> list[bytes]:
    return [blake2b(string.encode(), digest_size=16).digest() for string in text.strings]


def _normalised(text: TextBatch) -> list[bytes]:
    offsets, digests = text.words.byte_offsets.tolist(), []
    words, raw = text.words.utf8.data, text.text
    for document, (start, end) in enumerate(pairwise(offsets)):
        told = words[start : end - 1] if end > start else raw[document].as_py().encode()
        digests.append(blake2b(told, digest_size=16, person=b"words" if end > start else b"raw").digest())
    return digests
