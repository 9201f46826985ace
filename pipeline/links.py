"""Links of a web page, and one spelling per URL."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from pipeline.exchange import Exchange

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HTML = ("text/html", "application/xhtml+xml")
_NO_FOLLOW = re.compile(r"\b(nofollow|none)\b")
_PATH, _QUERY = "/%:@!$&'()*+,;=~", "/%:@!$&'()*+,;=~?"  # what RFC 3986 allows there, and escapes as they are


def normalised(url: str) -> str | None:
    """One spelling per URL: scheme and host in lower case, no default port, no fragment, quoted. None for no web URL."""
    try:
        parts = urlsplit(url.strip())
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
        if scheme not in _DEFAULT_PORTS or not host or parts.username is not None:
            return None
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError:  # UnicodeError is one
        return None
    host = f"[{host}]" if ":" in host else host
    site = host if port in (None, _DEFAULT_PORTS[scheme]) else f"{host}:{port}"
    return urlunsplit((scheme, site, quote(parts.path or "/", safe=_PATH), quote(parts.query, safe=_QUERY), ""))


def links(exchange: Exchange) -> list[str]:
    """Absolute links of an HTML page in document order, or where a redirect points; none where the page asks for it.

    Taken from `a` and `area`, without those of rel="nofollow", relative to `base`. Empty for anything but HTML.
    """
    from resiliparse.parse.encoding import detect_encoding
    from resiliparse.parse.html import HTMLTree

    if 300 <= exchange.status < 400:
        location = exchange.headers.get("location")
        return [_join(exchange.url, location)] if location else []
    if exchange.status != 200 or exchange.content_type not in _HTML:
        return []
    content = exchange.content
    document = HTMLTree.parse_from_bytes(content, exchange.charset or detect_encoding(content) or "utf-8").document
    if document is None:
        return []
    # Collections are copied to lists, because iterating over one takes time quadratic in its size.
    for meta in document.query_selector_all("meta[name][content]")[:]:
        if _attribute(meta, "name").lower() == "robots" and _NO_FOLLOW.search(_attribute(meta, "content").lower()):
            return []
    base = document.query_selector("base[href]")
    root = _join(exchange.url, _attribute(base, "href")) if base is not None else exchange.url
    anchors = document.query_selector_all("a[href], area[href]")[:]
    return [_join(root, _attribute(a, "href")) for a in anchors if "nofollow" not in _attribute(a, "rel").lower().split()]


def _attribute(element: Any, name: str) -> str:
    return element.getattr(name, "") or ""


def _join(base: str, link: str) -> str:
    try:
        return urljoin(base, link.strip())
    except ValueError:
        return link
