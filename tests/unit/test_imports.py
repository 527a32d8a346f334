"""Modules of tools/ and test helpers import each other one way; import-linter sees only installed packages."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _imports(folder: Path) -> dict[str, set[str]]:
    """Module name -> the modules of ``folder`` it imports, at the top or inside a function."""
    files = {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path
        for path in folder.rglob("*.py")
    }
    graph = {}
    for module, path in files.items():
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                members = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= members & files.keys() or {node.module}
        graph[module] = (imported & files.keys()) - {module}
    return graph


@pytest.mark.parametrize("folder", ["tools", "tests/unit", "tests/backend", "tests/models", "tests/distributed"])
def test_imports_make_no_circle(folder: str) -> None:
    graph = _imports(ROOT / folder)
    assert any(graph.values())
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the modules of a circle
