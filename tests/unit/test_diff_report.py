"""Reports of a comparison: one HTML file that needs nothing else, and JUnit XML."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from recorded import judge, recorded

from torchport.numerics.compare.diff import Diff, compare
from torchport.numerics.compare.junit import junit
from torchport.numerics.compare.report_html import page
from torchport.numerics.compare.report_svg import bars, heat_map, histograms
from torchport.numerics.verdicts.measure import BINS

SECTIONS = ("summary", "coverage", "roots", "waterfall", "values", "unpaired", "environment", "kernels")
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Reader(HTMLParser):
    """Elements and their ids; fails where tags do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes another element"


@pytest.fixture(scope="module")
def diff() -> Diff:
    faulty = recorded({"mm": lambda value: value * 1.001}, target="chip", fused=("abs_1",))
    return compare(recorded(), faulty, judge, truth=True)


@pytest.fixture(scope="module")
def html(diff: Diff) -> str:
    return page(diff)


def test_the_page_is_complete_and_nests(html: str, diff: Diff) -> None:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    assert [one for one in SECTIONS if one not in reader.ids] == []
    assert len(reader.ids) == len(set(reader.ids))
    kinds = {attributes.get("class", "") or "" for tag, attributes in reader.tags if tag == "svg"}
    assert {"waterfall", "histogram", "heat", "bars"} <= kinds
    targets = {(attributes.get("href") or "")[1:] for tag, attributes in reader.tags if tag == "a"}
    assert targets <= set(reader.ids)
    assert f"<b>{len(diff.unpaired)}</b>" in html


def test_the_page_asks_nothing_of_the_network(html: str) -> None:
    assert not re.search(r"(?:https?:)?//[\w.-]+\.\w", html.replace("http://www.w3.org/2000/svg", ""))
    assert not re.search(r"<(?:link|img|iframe|script src|object)\b|@import|url\(", html)
    assert "default-src 'none'" in html


def test_names_and_sources_are_escaped(html: str) -> None:
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "&lt;b&gt;&amp;amp;&lt;/b&gt;" in html


def test_the_root_is_first_and_its_details_are_open(html: str) -> None:
    roots = html[html.index('id="roots"') : html.index('id="waterfall"')]
    assert roots.index("FAIL") < roots.index("EXPECTED")
    first = re.search(r'<details class="kernel" id="(launch-\w-\d+)" open>', html)
    assert first is not None and first[1] == "launch-B-1"


def test_a_page_of_runs_without_tensors() -> None:
    text = page(compare(recorded(kept=False), recorded(kept=False), judge))
    assert "only statistics" in text
    assert "the same bits" in text


def test_junit_counts_failures_and_what_was_skipped(diff: Diff) -> None:
    root = ElementTree.fromstring(junit(diff, ("FAIL",)))
    suites = {suite.get("name"): suite for suite in root}
    assert list(suites) == ["programs", "A cpu", "B chip"]
    assert suites["programs"].get("failures") == "0"
    assert suites["A cpu"].get("failures") == "0"
    assert suites["B chip"].get("failures") == "1"
    (failure,) = suites["B chip"].iter("failure")
    assert "off by" in (failure.get("message") or "")
    unverified = compare(recorded(kept=False), recorded(kept=False), judge)
    skipped = ElementTree.fromstring(junit(unverified, ("FAIL",)))[1]
    assert skipped.get("skipped") == skipped.get("tests") != "0"


def test_pictures_of_extremes() -> None:
    assert "no error" in histograms([("A", [5] + [0] * (BINS - 1))])
    assert histograms([("A", [0] * BINS)]) == ""
    assert heat_map([]) == ""
    assert "fill-opacity:1.000" in heat_map([[float("inf"), 0.0]])
    assert "100%" in bars([("denormals", 1.0)], 0.0)
