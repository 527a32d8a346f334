"""``torchport new-backend``: what it writes installs, is found, and passes its own tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_plugin_example import EXAMPLE, PIP
from typer.testing import CliRunner

from torchport.cli.app import app
from torchport.cli.new_backend import Kind, write
from torchport.errors import OptionError


def test_the_example_is_what_it_writes(tmp_path: Path) -> None:
    made = write("example", tmp_path / "made")
    for file in ("pyproject.toml", "torchport_example/__init__.py", "torchport_example/spelling.py"):
        assert (made / file).read_text() == (EXAMPLE / file).read_text(), file


@pytest.mark.parametrize("name", ["", "Acme", "9chips", "a-b", "a b", "a.b", "class", "x" * 41, "../up", "é"])
def test_names_that_are_not_valid(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match="cannot be a backend's name"):
        write(name, tmp_path / "made")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "says"), [("cpu", "is there already, from"), ("simt", "package torchport_")])
def test_names_that_are_taken(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        write(name, tmp_path / "made")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with pytest.raises(OptionError, match="is there already: give another folder"):
        write("acme", tmp_path / "made")
    assert list(tmp_path.iterdir()) == [tmp_path / "made"]


def test_the_command_says_what_is_next(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["new-backend", "acme", "--output", str(tmp_path / "deep" / "made")])
    assert result.exit_code == 0, result.output
    assert f"pip install --no-build-isolation -e {tmp_path / 'deep' / 'made'}" in result.output
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["made"]


@pytest.mark.parametrize("kind", ["c", "triton", pytest.param("linalg", marks=pytest.mark.slow)])
def test_it_installs_and_its_tests_pass(tmp_path: Path, kind: Kind) -> None:
    if kind == "c" and shutil.which("cc") is None:
        pytest.skip("its chip is the C compiler: cc")
    made = write("my_chip", tmp_path / "made", kind=kind)
    subprocess.run([*PIP, "--target", tmp_path / "site", made], check=True, timeout=300)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "TORCHPORT_COMPILE_AHEAD": "0"}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=500,
            check=False,
        )  # fmt: skip

    listed = run("-m", "torchport.cli", "targets", "--json")
    assert listed.returncode == 0, listed.stderr
    rows = [row for row in json.loads(listed.stdout) if row["backend"] == "my_chip"]
    assert rows
    assert all(row["package"] == "torchport-my_chip 1.0" for row in rows)
    if kind != "triton":
        assert [row["state"] for row in rows] == ["ready"]
    tests = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", made, made / "tests")
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "passed" in tests.stdout
    assert "skipped" not in tests.stdout


def test_the_guide_lists_every_macro() -> None:
    guide = (EXAMPLE.parents[1] / "docs" / "vendor-guide.md").read_text()
    sources = [EXAMPLE / "torchport_example" / "spelling.py"]
    defined = {
        word
        for source in sources
        for word in re.findall(r"(?:#define |TP_AS\()(TP_\w+|tp_\w+)", source.read_text())
        if word not in ("TP_AS", "tp_")
    }
    assert len(defined) > 25
    assert not [word for word in sorted(defined) if f"`{word}" not in guide]
