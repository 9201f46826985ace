"""Bytes of a web page to text: what the page says of its encoding, as far as the bytes bear it out."""

from __future__ import annotations

from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from functools import lru_cache

_MARKS = ((BOM_UTF8, "utf-8"), (BOM_UTF16_LE, "utf-16-le"), (BOM_UTF16_BE, "utf-16-be"))

_TOLERANCE = 10
"""A stated encoding is given up if more than one in so many characters beyond ASCII, and more than one in all, is invalid."""


def decode(content: bytes, stated: str | None) -> str:
    """Text of a page. stated: the charset of the HTTP header.

    In this order: a byte order mark, the HTTP header, `<meta>`, Resiliparse's detection. Labels are read as browsers read
    them, latin-1 as windows-1252 (WHATWG Encoding). If much is invalid in that encoding and nothing in the one that the
    detection finds, it is that; else what is invalid becomes U+FFFD. Never raises.
    """
    from resiliparse.parse.encoding import detect_encoding

    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    encoding = (_codec(stated) if stated else None) or detect_encoding(content, from_html_meta=True) or "utf-8"
    try:
        return content.decode(encoding)
    except LookupError:
        encoding = "utf-8"
    except UnicodeDecodeError:
        pass
    text = content.decode(encoding, "replace")
    foreign = len(text) - len(text.encode("ascii", "ignore"))
    if text.count("\ufffd") * _TOLERANCE <= foreign + _TOLERANCE:
        return text  # a cut or mixed page in the encoding that it states
    detected = detect_encoding(content)
    if detected and detected != encoding:
        try:
            return content.decode(detected)
        except (LookupError, UnicodeDecodeError):
            pass
    return text


@lru_cache(maxsize=1024)
def _codec(label: str) -> str | None:
    from resiliparse.parse.encoding import map_encoding_to_html5

    return map_encoding_to_html5(label.encode("ascii", "ignore").decode(), fallback_utf8=False)
