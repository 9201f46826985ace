"""From bytes to text: encodings, content types, extractors, and pages that hang or crash them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.extract import Extraction, Failure, Text, extract, form_of
from pipeline.extraction_worker import decode_answer, encode_answer
from pipeline.guard import Guard, Job
from pipeline.sources.charset import decode
from pipeline.sources.wet import title_and_text

# Quadratic in the number of attributes, inside one native call: minutes of work.
ENDLESS = b"<p " + b" ".join(b"a%d=1" % n for n in range(200_000)) + b">text"
# Indentation of the innermost items alone is more than the address space allows.
CRASH = b"<ul><li>x" * 50_000


@pytest.mark.parametrize(
    ("content", "stated", "text"),
    [
        ("naïve – €".encode(), "utf-8", "naïve – €"),
        ("naïve – €".encode("cp1252"), "latin1", "naïve – €"),
        ("naïve – €".encode("cp1252"), "ISO-8859-1", "naïve – €"),
        ("日本語".encode("euc_jp"), "EUC-JP", "日本語"),
        ('<meta charset="shift_jis">日本語'.encode("shift_jis"), None, '<meta charset="shift_jis">日本語'),
        ("\ufeffhä".encode(), "latin1", "hä"),
        ("hä".encode("utf-16"), None, "hä"),
        ("Übergrößenträger".encode(), "no-such-charset", "Übergrößenträger"),
        (b"cut \xc3", "utf-8", "cut \ufffd"),
        (b"", None, ""),
    ],
)
def test_text_is_decoded_as_a_browser_would(content: bytes, stated: str | None, text: str) -> None:
    assert decode(content, stated) == text


@given(
    st.binary(max_size=300),
    st.sampled_from([None, "utf-8", "latin1", "euc-kr", "utf-16", "x\udcff", "iso-2022-jp", "zlib_codec"]),
)
def test_any_bytes_decode(content: bytes, stated: str | None) -> None:
    decode(content, stated).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    ("content", "kind", "form"),
    [
        (b"<html>", "text/html", "html"),
        (b"<?xml version='1.0'?><!DOCTYPE html>", "application/xml", "html"),
        (b"plain", "text/plain", "text"),
        (b"<!DOCTYPE html><p>", "text/plain", "html"),
        (b"<p>x", None, "html"),
        (b"%PDF-1.4", "text/html", "content_type_binary"),
        (b"%PDF-1.4", "application/pdf", "content_type_pdf"),
        (b"x", "image/webp", "content_type_image"),
        (b"{}", "application/json", "content_type_json"),
        (b"x", "application/zip", "content_type_application"),
        (b"x", "chemical/x-pdb", "content_type_other"),
        (b"<?xml version='1.0'?><rss>", "text/xml", "content_type_xml"),
        (b"???", None, "content_type_unknown"),
        (b"", "text/html", "no_text"),
    ],
)
def test_only_text_goes_on(content: bytes, kind: str | None, form: str) -> None:
    got = form_of(content, kind)
    assert (got.reason if isinstance(got, Failure) else got) == form


PAGE = b"""<html><head><title> A\n title </title></head><body><nav><a href=/>Home</a> <a href=/about>About us</a></nav>
<article><h1>Head</h1>%b</article><footer>Imprint and terms</footer></body></html>""" % (
    b"<p>" + b"The article says something that takes a whole sentence. " * 10 + b"</p>"
)


@pytest.mark.parametrize("method", ["resiliparse", "trafilatura"])
def test_main_content_leaves_out_what_plain_text_keeps(method) -> None:
    main = extract(PAGE, None, "html", Extraction(method, True))
    plain = extract(PAGE, None, "html", Extraction(method, False))
    assert isinstance(main, Text) and isinstance(plain, Text)
    assert main.title == plain.title == "A title"
    assert "takes a whole sentence" in main.text and "About us" not in main.text
    assert "takes a whole sentence" in plain.text and "About us" in plain.text


def test_a_page_without_text_says_so() -> None:
    assert extract(b"<html><script>x</script>", None, "html", Extraction()) == Failure("no_text")


@settings(max_examples=50)
@given(
    st.one_of(st.builds(Text, st.none() | st.text(), st.text()), st.builds(Failure, st.text(), st.none() | st.text(min_size=1)))
)
def test_answers_cross_the_pipe_unchanged(answer: Text | Failure) -> None:
    buffer = bytearray(encode_answer(answer) * 2)
    assert decode_answer(buffer) == answer and decode_answer(buffer) == answer and not buffer
    assert decode_answer(bytearray(encode_answer(answer)[:-1])) is None


def test_a_page_that_native_code_never_leaves_costs_itself_alone() -> None:
    pages = [b"<p>page %d" % n for n in range(30)]
    pages[3] = pages[20] = ENDLESS
    guard = Guard(Extraction(main_content=False), 0.3)
    answers = [a for _, a in guard.map(Job(None, p, None, "html") for p in pages)]
    guard.close()
    assert [a.reason if isinstance(a, Failure) else a.text for a in answers] == [
        "time_limit" if n in (3, 20) else f"page {n}" for n in range(30)
    ]


def test_a_page_that_crashes_native_code_costs_itself_alone() -> None:
    guard = Guard(Extraction(main_content=False), 20, 600 << 20)
    pages = [b"<p>before", CRASH, b"<p>after"]
    answers = [a for _, a in guard.map(Job(None, p, None, "html") for p in pages)]
    guard.close()
    assert [a.reason if isinstance(a, Failure) else a.text for a in answers] == ["before", "extraction_crashed", "after"]


def test_guarded_and_plain_extraction_agree_and_keep_the_order() -> None:
    def items():
        for n in range(700):
            yield Job(n, b"<title>%d</title><p>" % n + b"word " * (n * 7), None, "html") if n % 3 else n

    guard = Guard(Extraction(main_content=False), 10)
    guarded = list(guard.map(items()))
    guard.close()
    assert guarded == list(Guard(Extraction(main_content=False), 0).map(items()))


def test_an_abandoned_map_leaves_nothing_for_the_next() -> None:
    guard = Guard(Extraction(main_content=False), 10)
    for _ in guard.map(Job(None, b"<p>old %d" % n, None, "html") for n in range(1000)):
        break
    assert [a.text for _, a in guard.map([Job(None, b"<p>new", None, "html")]) if isinstance(a, Text)] == ["new"]
    guard.close()
    assert guard.pid is None


@pytest.mark.parametrize(
    ("block", "title", "text"),
    [
        (b"T\n a \n\nb\n", "T", "a\n\nb"),
        (b"T\nb", "T", "b\n"),  # CCNet keeps the one empty line that it sees
        (b"T\nb\n\n", "T", "b\n"),
        (b"T\r\na\rb\n", "T", "a\nb"),
        (b"T\n\xff\n", "T", "\ufffd"),
        (b"T\n", "T", ""),
        (b"", "", ""),
    ],
)
def test_wet_text_is_taken_apart_as_ccnet_does(block: bytes, title: str, text: str) -> None:
    assert title_and_text(block) == (title, text)
