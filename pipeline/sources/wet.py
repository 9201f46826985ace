"""The text of a WET record, as CCNet takes it apart (facebookresearch/cc_net, process_wet_file.py)."""

from __future__ import annotations

_RECORD_END = "\r\n\r\n"


def title_and_text(block: bytes) -> tuple[str, str]:
    """The first line, and the others joined by line feeds; each line stripped, empty lines kept.

    CCNet reads lines of a whole file, so it sees two empty lines behind a block that ends with a line feed and drops them;
    behind any other block it sees one and keeps it. Bytes that are not UTF-8 become U+FFFD.
    """
    lines = [line.strip() for line in split_lines(block.decode("utf-8", "replace") + _RECORD_END)[:-1]]
    if len(lines) >= 2 and not lines[-1] and not lines[-2]:
        del lines[-2:]
    return (lines[0] if lines else ""), "\n".join(lines[1:])


def strip_lines(text: str) -> str:
    """Extracted text in the form that `title_and_text` gives WET text."""
    return "\n".join(line.strip() for line in split_lines(text))


def split_lines(text: str) -> list[str]:
    """Lines that end in LF, CR LF or CR, as Python's universal newlines see them."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.split("\n")
