"""Links of the documentation lead somewhere, and the repository's files that it names exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("backends/*/README.md")])

# Where a path in backticks may start, besides the repository's root: pages name modules by their package.
BASES = [
    ROOT / base for base in ("", "torchport", "torchport/numerics", "passes", "passes/torchport_passes",
                             "passes/torchport_passes/scalar", "backends/cpu", "tools", "tests")
]  # fmt: skip
EXAMPLES = ("passes/test/my_pass.mlir", "passes/test/NAME.ttir", "programs/0.json")
_SOURCES = ("py", "md", "toml", "json", "mlir", "ttir", "cpp", "h", "svg", "png")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(rf"`([\w.-]+(?:/[\w.-]+)*/(?:[\w.-]+\.(?:{'|'.join(_SOURCES)}))?)`")


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^(```|~~~).*?^\1\s*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> Iterator[str]:
    """The fragments by which GitHub knows a page's headings."""
    for title in re.findall(r"^#+ +(.+)$", prose(page), flags=re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in _LINK.findall(prose(page)):
        if re.match(r"\w+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and target.suffix == ".md" and fragment not in anchors(target)):
            wrong.append(link)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    bases = [*BASES, page.parent]
    paths = [path for path in _PATH.findall(prose(page)) if any((base / path.split("/")[0]).is_dir() for base in bases)]
    missing = [path for path in paths if not any((base / path).exists() for base in bases)]
    assert [path for path in missing if path not in EXAMPLES] == []
