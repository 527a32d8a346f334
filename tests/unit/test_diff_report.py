"""Reports of a comparison: one HTML file that needs nothing else, and JUnit XML."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from recorded import judge, recorded

from torchport.numerics.compare.diff import Diff, compare
from torchport.numerics.compare.junit import junit
from torchport.numerics.compare.report_html import page
from torchport.numerics.compare.report_kernels import cards_of
from torchport.numerics.compare.report_svg import heat_map, histograms, waterfall
from torchport.numerics.runs.reader import Launch
from torchport.numerics.verdicts.measure import BINS
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.verdict import KernelVerdict

SECTIONS = ("summary", "coverage", "roots", "waterfall", "values", "unpaired", "environment", "kernels")
VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}


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
    assert {"waterfall", "histogram", "heat"} <= kinds
    assert "Computing with &#39;TF32 inputs&#39; alone explains 80% of the difference; 20% is left." in html
    assert "TF32 inputs" in html and 'style="width:80.0%"' in html
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
    assert roots.index("FAIL") < roots.index("The largest legal errors")
    first = re.search(r'<details class="kernel" id="([\w-]+)" open>', html)
    assert first is not None and first[1] == "kernel-A1-B1"


def unverified(call: RecordedCall, launch: Launch) -> KernelVerdict:
    return KernelVerdict(launch.seq, launch.kernel, None, launch.nodes, "UNVERIFIED", None, ("not asked",))


def test_each_launch_is_shown_once_beside_its_partner(diff: Diff) -> None:
    cards, all_cards = cards_of(diff, 1000)
    assert all_cards == len(cards)
    shown = [(one.run, one.side.seq) for card in cards for one in card.shown]
    sides = {(run, side.seq) for row in diff.rows for run in "AB" if (side := row.side(run)) is not None}
    assert sorted(shown) == sorted(sides)
    together = [card for card in cards if len(card.shown) == 2]
    assert len(together) == len([row for row in diff.rows if row.a is not None and row.b is not None])
    assert all([one.run for one in card.shown] == ["A", "B"] for card in together)
    assert (cards[0].level, [one.side.launch_level for one in cards[0].shown]) == ("FAIL", ["EXPECTED", "FAIL"])
    first, more = cards_of(diff, 2)
    assert (len(first), more) == (2, all_cards)


def test_a_launch_that_makes_values_of_several_stands_beside_one_and_names_the_others() -> None:
    a, b = recorded(), recorded()
    values = [launch for launch in b.launches if launch.kind == "kernel"]
    outputs = [arg for launch in values[:3] for arg in launch.args if arg.role == "out"]
    one = replace(values[0], args=(*values[0].args[:2], *outputs), nodes=tuple(arg.node for arg in outputs))
    b.launches[:] = [b.launches[0], one, *values[3:]]
    cards, _ = cards_of(compare(a, b, unverified), 100)
    (wide,) = [card for card in cards if any(one.run == "B" and len(one.outputs) == 3 for one in card.shown)]
    assert [len(one.others) for one in wide.shown] == [0, 2]
    assert sum(one.run == "A" for card in cards for one in card.shown) == len(values)


def test_a_function_is_shown_once(diff: Diff) -> None:
    """Above it is what differs from run to run without changing what is computed."""
    source = "import triton\n\n@meta({number})\n@triton.jit\ndef one(x):\n    pass\n"
    a, b = recorded(), recorded()
    for number, run in enumerate((a, b)):
        for kernel in run.kernels.values():
            kernel["source"] = source.format(number=number)
    cards, _ = cards_of(compare(a, b, judge), 100)
    first, *others = (card.sources for card in cards)
    assert [(one.runs, bool(one.function), one.same_as) for one in first] == [("A and B", True, "")]
    assert "def" in first[0].function and "meta" not in first[0].function and "meta" in first[0].above
    assert all(not one.function and one.same_as == cards[0].anchor for sources in others for one in sources)
    b.kernels["mm"]["source"] += "    # other\n"
    apart = next(card.sources for card in cards_of(compare(a, b, judge), 100)[0] if "mm" in card.names[0])
    assert [one.runs for one in apart] == ["A", "B"]


def test_the_chart_is_as_wide_as_its_card_and_leads_to_kernels(diff: Diff, html: str) -> None:
    text = waterfall(diff, {("B", 1): "kernel-A1-B1"})
    assert '<svg class="waterfall" role="img" aria-label="errors along the graph" width="100%"' in text
    places = [float(one) for one in re.findall(r'cx="([\d.]+)%"', text)]
    assert len(places) == sum(side is not None for row in diff.rows for side in (row.a, row.b))
    assert 0 < min(places) < 12 and 88 < max(places) < 100
    assert text.count('<a href="#kernel-A1-B1">') == sum(row.b is not None and row.b.seq == 1 for row in diff.rows)
    assert '<a href="#kernel-A1-B1"><circle' in html


def test_tables_have_names_in_cells_for_narrow_screens(html: str) -> None:
    """Where there is no room for columns, each cell says what it is."""
    tables = re.findall(r'<table class="(\w+)">(.*?)</table>', html, re.DOTALL)
    assert {kind for kind, _ in tables} == {"stacked", "worst"}
    assert html.count("<table") == len(tables)
    for kind, table in tables:
        if kind == "stacked" and "what differs" not in table:
            cells = re.findall(r"<td[^>]*>", table)
            assert [cell for cell in cells if "data-name=" not in cell and "main" not in cell] == []


def test_a_page_of_hostile_runs() -> None:
    """NaN everywhere, names that are very long or markup, hundreds of values, shares beyond all bounds."""
    name = "x" * 5000 + "</script><script>alert(2)</script>\"'&"
    nodes = ("mm", "exp", "mm_1", "abs_1", "amax", "add", "div")
    nothing = {node: (lambda value: value * float("nan")) for node in nodes}
    for truth in (False, True):
        diff = compare(recorded(name=name), recorded(nothing, name=name), judge, truth=truth)
        diff.rows *= 60
        diff.roots = [replace(root, share=share) for root in diff.roots for share in (None, float("nan"), -1e9, 1e9)]
        text = page(diff)
        assert "<script>alert" not in text
        reader = Reader()
        reader.feed(text)
        assert reader.open == [] and len(reader.ids) == len(set(reader.ids))


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
    assert "0 to 0.5 sigma" in heat_map([[0.1, float("nan")]])
