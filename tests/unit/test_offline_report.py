"""``torchport port``: the matrix as data, as a page, and as an exit status."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from torchport.cli.app import app
from torchport.errors import OptionError
from torchport.offline import capture, port
from torchport.offline.html import page
from torchport.offline.report import PortReport, size
from torchport.target import Target

MODEL = """
import torch
def make():
    return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.LayerNorm(32)), (torch.ones(4, 16),)
def with_doubles():
    return lambda x: (x.double() * 2).cumsum(0), (torch.ones(64),)
def not_a_model():
    return 3
"""


@pytest.fixture(scope="module")
def report() -> PortReport:
    found = capture(lambda x, w: torch.softmax((x + 1) @ w, -1), (torch.ones(8, 64), torch.ones(64, 64)))
    targets = [Target.parse(text) for text in ("cpu", "cuda:90", "nothing:1", "cuda:12")]
    return port("a <model>", found, targets)


def test_a_target_that_is_not_available_is_one_row(report: PortReport) -> None:
    states = {state.target: state for state in report.targets}
    assert set(report.artifacts) == {"cpu", "cuda:90"} and not any(a.error for a in report.every_artifact)
    assert "installed backends" in states["nothing:1"].unavailable and "valid: " in states["cuda:12"].unavailable
    assert not states["cpu"].absent and states["cpu"].transfers == 0
    if not torch.cuda.is_available():
        assert "does not run" in states["cuda:90"].absent and states["cuda:90"].transfers is None
    assert report.failed()


class Page(HTMLParser):
    """Everything a browser could fetch, the cells by kernel and target, and what stands in tags by their id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.cells: dict[tuple[str, str], str] = {}
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        if tag not in ("meta", "link", "br", "img", "input"):
            self.open.append(tag)
        for name in ("src", "href", "srcset", "data", "action", "poster", "background"):
            if name in given and not given[name].startswith("#"):
                self.fetched.append(given[name])
        if "data-kernel" in given:
            self.cells[given["data-kernel"], given["data-target"]] = given["class"].split()[-1]
        if "id" in given:
            self.ids.append(given["id"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing(report: PortReport) -> None:
    text = page(report)
    found = Page(text)
    assert not found.open and found.fetched == []
    assert not {"link", "iframe", "img", "object", "embed"} & set(found.tags)
    assert "url(" not in text and "@import" not in text and "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text
    labels = report.capture.labels()
    assert found.cells == {
        **{(label, target): "ok" for label in labels for target in ("cpu", "cuda:90")},
        **{(label, target): "none" for label in labels for target in ("nothing:1", "cuda:12")},
    }
    assert [one for one in found.ids if one.startswith("kernel-")] == [f"kernel-{i + 1}" for i in range(len(labels))]
    assert "a &lt;model&gt;" in text and "<model>" not in text
    assert "aten.mm.out" in text and "tl.load" in text.replace("</span>", "").replace('<span class="n">', "").replace(
        '<span class="o">', ""
    )


def test_cells_have_the_colour_of_what_they_say(report: PortReport) -> None:
    from dataclasses import replace

    first, *others = report.artifacts["cuda:90"]
    for changed, state in (
        (replace(first, error="no such <instruction>", binary=None), "bad"),
        (replace(first, limits=("16 bytes of registers spilled",)), "limit"),
    ):
        text = page(replace(report, artifacts={**report.artifacts, "cuda:90": (changed, *others)}))
        assert Page(text).cells[report.capture.labels()[0], "cuda:90"] == state
        assert "&lt;instruction&gt;" in text or "registers spilled" in text


def test_strict_counts_limits(report: PortReport) -> None:
    from dataclasses import replace

    here = replace(report, targets=report.targets[:2])
    assert not here.failed() and not here.failed(strict=True)
    first, *others = here.artifacts["cpu"]
    limited = replace(here, artifacts={**here.artifacts, "cpu": (replace(first, limits=("much",)), *others)})
    assert not limited.failed() and limited.failed(strict=True)


def test_what_is_in_quarantine_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torchport import quarantine

    monkeypatch.setenv("TORCHPORT_QUARANTINE", str(tmp_path / "quarantine.json"))
    found = capture(lambda x: x + 1, (torch.ones(512),))
    (kernel,) = found.kernels
    cpu = Target("cpu")
    quarantine.add(cpu, quarantine.identity(kernel.source, kernel.function), kernel.config, "off by 22.5")
    (artifact,) = port("m", found, [cpu]).every_artifact
    assert artifact.limits == ("in quarantine on cpu: off by 22.5",)


def test_sizes() -> None:
    assert [size(n) for n in (0, 1023, 1024, 20_000, 5 << 20, 3 << 30)] == [
        "0 B", "1023 B", "1.0 KiB", "20 KiB", "5.0 MiB", "3.0 GiB",
    ]  # fmt: skip


def test_the_command(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text(MODEL)
    results, shown_page = tmp_path / "results.json", tmp_path / "page.html"
    wanted = "cpu,cuda:90,hip:gfx942"
    files = ["--json", str(results), "--html", str(shown_page)]
    shown = CliRunner().invoke(app, ["port", f"{model}:make", "--targets", wanted, *files])
    assert shown.exit_code == 0, shown.output
    assert "0 failed" in shown.output and "hip:gfx942" in shown.output and "not a kernel: aten.addmm" in shown.output
    content = json.loads(results.read_text())
    assert content["schema"] == "torchport.port/1"
    assert {a["target"] for a in content["artifacts"]} == set(content["targets"]) == set(wanted.split(","))
    assert all(a["resources"] and a["bytes"] for a in content["artifacts"])
    assert {state for state in Page(shown_page.read_text()).cells.values()} == {"ok"}


def test_exit_status_where_a_target_is_missing(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text(MODEL)
    shown = CliRunner().invoke(app, ["port", f"{model}:with_doubles", "--targets", "cpu,nothing:3"])
    assert shown.exit_code == 1 and "nothing:3 is not available" in shown.output and "0 failed" in shown.output


@pytest.mark.parametrize(
    "model,says",
    [("nowhere.py:make", "names no file"), ("{}:nothing", "no function"), ("{}:not_a_model", "must return"), ("x", "")],
)
def test_bad_models(tmp_path: Path, model: str, says: str) -> None:
    file = tmp_path / "model.py"
    file.write_text(MODEL)
    outcome = CliRunner().invoke(app, ["port", model.format(file), "--targets", "cuda:90"])
    assert isinstance(outcome.exception, OptionError) and says in str(outcome.exception)
