"""What the quick commands import: a command that imports PyTorch takes seconds to say anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from torchport.cli import packages

HEAVY = ("torch", "triton", "mlir", "llvmlite", "numpy", "pyopencl", "transformers", "sympy")

COMMAND = f"""
import sys
from torchport.cli import main
try:
    main()
finally:
    print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""

EVERY_HELP = f"""
import sys, typer
from torchport.cli import app
def help(command, words):
    try:
        app.app(words + ["--help"])
    except SystemExit as status:
        assert status.code == 0, words
    for name, inner in getattr(command, "commands", {{}}).items():
        help(inner, words + [name])
help(typer.main.get_command(app.app), [])
print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""


def imported(program: str, *arguments: str) -> set[str]:
    """The heavy packages that a process has imported at its end."""
    result = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return set(result.stderr.splitlines()[-1].split())


def test_help_of_every_command_imports_nothing_heavy() -> None:
    assert imported(EVERY_HELP) == set()


@pytest.mark.parametrize("arguments", [("--version",), ("cache", "info"), ("quarantine", "list")])
def test_commands_that_read_files_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported(COMMAND, *arguments) == set()


@pytest.mark.skipif(torch.version.cuda is not None or torch.version.hip is not None, reason="asks PyTorch about GPUs")
@pytest.mark.parametrize("arguments", [("targets",), ("targets", "--all"), ("targets", "--json")])
def test_targets_imports_what_describes_devices(arguments: tuple[str, ...]) -> None:
    allowed = {"llvmlite", "pyopencl", "numpy"}  # the CPU's features; OpenCL's devices, with NumPy
    assert imported(COMMAND, *arguments) <= allowed


def started(
    monkeypatch: pytest.MonkeyPatch, *, imports: bool = False
) -> tuple[list[str], dict[str, packages.ProbeResult]]:
    """Which packages the doctor imports, and what it finds."""
    imported = []
    start = packages._start
    monkeypatch.setattr(packages, "_start", lambda code: imported.append(code) or start(code))
    results = packages.look(imports=imports)
    return [name for name, code in packages.PROBES.items() if code in imported], results


def test_doctor_loads_the_libraries_of_whole_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    names, results = started(monkeypatch)
    assert names == ["targets"]
    assert results["torch"].version == torch.__version__
    assert not any(result.problem for result in results.values())


def test_doctor_imports_a_package_whose_library_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "libllvmlite.so"
    broken.write_bytes(b"\x7fELF")
    find = packages._library
    monkeypatch.setattr(packages, "PROBES", {name: packages.PROBES[name] for name in ("llvmlite", "native")})
    monkeypatch.setattr(packages, "_library", lambda name: ("0.50.0", broken) if name == "llvmlite" else find(name))
    names, results = started(monkeypatch)
    assert names == ["llvmlite", "native"]
    assert results["llvmlite"].facts["host"]["cpu"]


def test_doctor_imports_every_package_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PROBES", {name: packages.PROBES[name] for name in ("llvmlite", "native")})
    assert started(monkeypatch, imports=True)[0] == ["llvmlite", "native"]
