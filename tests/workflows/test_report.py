"""The report: one file, all its parts, drawn by a real browser without a network."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from selenium import webdriver
from selenium.webdriver.common.by import By

from pipeline.corpus import Corpus
from pipeline.receipt import Receipt
from tests.workflows.small_crawl import write_crawl, write_recipe
from workflows.cli import menagerie
from workflows.report.diff import side_by_side
from workflows.report.gather import CorpusFacts
from workflows.report.labels import shares_of, summary

SECTIONS = ("way", "where", "signals", "duplicates", "labels", "mixture", "training", "documents")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_crawl(folder / "crawl")
    recipe = write_recipe(folder, folder / "crawl")
    result = CliRunner().invoke(menagerie, ["build", str(recipe)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no chromium and chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1280,1000",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


def test_the_page_needs_nothing_beside_it(built: Path) -> None:
    page = (built / "report.html").read_text(encoding="utf-8")
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # the plotting library names sites that it never asks
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", own)
    assert "@import" not in own


def test_a_browser_draws_every_section(built: Path, browser: webdriver.Chrome) -> None:
    browser.get((built / "report.html").as_uri())
    for name in SECTIONS:
        assert browser.find_element(By.ID, name).is_displayed(), name
    figures = browser.find_elements(By.CSS_SELECTOR, ".plotly-graph-div")
    assert len(figures) >= 6
    for figure in figures:
        assert figure.find_elements(By.CSS_SELECTOR, ".main-svg"), f"{figure.get_attribute('id')} is not drawn"
        parent = figure.find_element(By.XPATH, "./ancestor::section")
        assert figure.rect["y"] + figure.rect["height"] <= parent.rect["y"] + parent.rect["height"] + 1, "it spills over"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1281
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    asked = re.findall(r'"url":"(https?://[^"]+)"', " ".join(line["message"] for line in browser.get_log("performance")))
    assert not asked, "the page asked the network"


def test_it_shows_the_numbers_of_the_receipts(built: Path, browser: webdriver.Chrome) -> None:
    browser.get((built / "report.html").as_uri())
    facts = CorpusFacts(Corpus(str(built / "corpus")))
    ingest, mine = facts.stage("ingest"), facts.stage("mine")
    assert ingest is not None and mine is not None
    tiles = {t.text.split("\n")[1]: t.text.split("\n")[0] for t in browser.find_elements(By.CLASS_NAME, "tile")}
    assert tiles["records read"] == f"{ingest.rows_in:,}"
    assert tiles["documents extracted"] == f"{ingest.rows_out:,}"
    way = browser.find_element(By.ID, "way").text
    for reason, count in {**ingest.drops, **mine.drops}.items():
        assert f"{reason.replace('_', ' ')} {count:,}" in way


def test_histograms_count_every_document_once(built: Path) -> None:
    facts = CorpusFacts(Corpus(str(built / "corpus")))
    documents = facts.frame.collect()
    for histogram in facts.histograms():
        assert sum(histogram.everything) + histogram.nulls == documents.height, histogram.name
        chosen = documents.filter("selected")[histogram.name].drop_nulls().len()
        assert sum(histogram.selected) == chosen, histogram.name


def test_it_shows_a_pair_of_similar_documents_that_differ(built: Path) -> None:
    pair = CorpusFacts(Corpus(str(built / "corpus"))).similar_pair()
    assert pair is not None
    assert pair[0].text != pair[1].text


def test_dropped_documents_are_shown_with_every_reason(built: Path) -> None:
    facts = CorpusFacts(Corpus(str(built / "corpus")))
    kept, dropped = facts.samples(8)
    assert kept and all(s.reason is None for s in kept)
    reasons = set(facts.frame.collect()["reason"].drop_nulls())
    assert reasons <= {s.reason for s in dropped}


def test_labelling_tasks_are_told_with_what_decided_some_labels(built: Path) -> None:
    facts = CorpusFacts(Corpus(str(built / "corpus")))
    (task,) = facts.labels()
    documents = facts.frame.collect()
    assert sum(task.confidence) == task.counted["documents"].sum() == documents.height
    assert task.whys and sum(task.fit["class_balance"].values()) == pytest.approx(1)
    for why in task.whys:
        told = why.explanation
        assert told.prior + sum(share for *_, share in told.shares) == pytest.approx(told.log_odds)
        assert {name for name, *_ in told.shares} == set(task.analysis["function"])
        assert shares_of(told)[0][3] in (1.0, -1.0)
    page = (built / "report.html").read_text(encoding="utf-8")
    assert "Why this label" in page and f'id="figure-functions-{task.task}"' in page
    assert all(line in html.unescape(page) for line in summary(task))


def test_words_that_differ_are_marked_and_markup_in_texts_is_harmless() -> None:
    left, right = side_by_side("one <b>two</b> three", "one <b>two</b> four")
    assert left == "one &lt;b&gt;two&lt;/b&gt; <mark>three</mark>"
    assert right == "one &lt;b&gt;two&lt;/b&gt; <mark>four</mark>"


def test_a_corpus_that_is_half_built_has_a_report_too(built: Path, tmp_path: Path) -> None:
    recipe = str(built / "recipe.yaml")
    url = str(tmp_path / "corpus")
    for until in ("ingest", "mine"):
        CliRunner().invoke(menagerie, ["build", recipe, "--set", f"corpus={url}", "--until", until], catch_exceptions=False)
        page = tmp_path / f"{until}.html"
        result = CliRunner().invoke(menagerie, ["report", url, "-o", str(page)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert 'id="way"' in page.read_text(encoding="utf-8")


def test_a_folder_that_is_no_corpus_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no receipts: is it a corpus"):
        CliRunner().invoke(menagerie, ["report", str(tmp_path)], catch_exceptions=False)


def test_what_is_damaged_is_named_and_the_rest_is_shown(built: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(built / "corpus", corpus)
    broken = sorted((corpus / "signals").rglob("*.parquet"))[0]
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    receipt = sorted((corpus / "receipts" / "deduplicate").rglob("*.json"))[0]
    receipt.write_text("{")
    out = tmp_path / "report.html"
    result = CliRunner().invoke(menagerie, ["report", str(corpus), "-o", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    told = [line for line in result.stderr.splitlines() if line.startswith("left out: ")]
    assert any(broken.name in line and "signals" in line for line in told)
    assert any(receipt.name in line for line in told)
    page = out.read_text(encoding="utf-8")
    assert "What could not be read" in page
    for name in ("where", "duplicates", "mixture", "documents"):
        assert f'<section id="{name}"' in page, name


def test_rule_sets_are_told_over_all_partitions(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))
    for part, failed in (("a", 2), ("b", 1)):
        counts = {"gopher_short_document": failed, "gopher_long_document": 0}
        metrics = {"rules": {"documents": 4, "failed": counts, "first": counts, "only": dict.fromkeys(counts, 0)}}
        receipt = {"stage": "annotate", "partition": part, "fingerprint": "f", "rows_in": 4, "rows_out": 4, "metrics": metrics}
        corpus.write_receipt(Receipt(**receipt))
    (row,) = CorpusFacts(corpus).rules().to_dicts()
    assert row == {"rule": "gopher_short_document", "documents_failing": 3, "share": 0.375, "reason": 3, "only_this": 0}
