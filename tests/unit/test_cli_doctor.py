"""``torchport doctor`` on a whole installation and on broken ones."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from torchport.cli import doctor
from torchport.cli.packages import ProbeResult


def run(path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the doctor with ``path`` before everything else on Python's path."""
    environment = {**os.environ, "COLUMNS": "200"}
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-m", "torchport.cli", "doctor"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )


def test_a_whole_installation() -> None:
    result = run()
    faults = re.findall(r"✗\s+(\S+ \S+)", result.stdout)
    assert set(faults) <= {"target opencl", "target webgpu"}, result.stdout  # this machine may lack their drivers
    assert result.returncode == bool(faults), result.stdout + result.stderr
    for word in ("PyTorch", "Triton", "MLIR bindings", "llvmlite", "CPU", "threads", "cache", "native extension"):
        assert re.search(rf"✓\s+{word}", result.stdout), word


BROKEN = [
    ("torch", "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')", "not installed"),
    ("triton", "raise ModuleNotFoundError(\"No module named 'triton'\", name='triton')", "not installed"),
    ("llvmlite", "raise OSError('libLLVM.so: cannot open shared object file')", "broken: OSError: libLLVM.so"),
    ("mlir", "import os, signal; os.kill(os.getpid(), signal.SIGILL)", "killed the process (signal 4)"),
]
TOGETHER = (("torch", "triton"), ("llvmlite", "mlir"))  # broken in one installation


@pytest.fixture(scope="module")
def diagnosis(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """What the doctor says of an installation in which these packages are broken."""

    @functools.cache
    def examined(*packages: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path_factory.mktemp("broken")
        for package, source, _ in BROKEN:
            if package in packages:
                (folder / package).mkdir()
                (folder / package / "__init__.py").write_text(source)
        return run(folder)

    return examined


@pytest.mark.parametrize(("package", "source", "said"), BROKEN)
def test_a_broken_package(
    diagnosis: Callable[..., subprocess.CompletedProcess[str]], package: str, source: str, said: str
) -> None:
    result = diagnosis(*next(packages for packages in TOGETHER if package in packages))
    name = doctor._PACKAGES[package][0]
    assert result.returncode == 1
    assert re.search(rf"✗\s+{name} .*{re.escape(said)}", result.stdout), result.stdout + result.stderr
    assert re.search(rf"-m pip install .*{package}", result.stdout)
    assert "Traceback" not in result.stderr


def found(**versions: str) -> dict[str, ProbeResult]:
    """Probes of a whole installation, some with another version."""
    whole = {"torch": "2.13.0+cpu", "triton": "3.7.1", "mlir": "22.1.8.4", "llvmlite": "0.50.0", "native": "built"}
    return {**{name: ProbeResult(version) for name, version in (whole | versions).items()}, "targets": ProbeResult("")}


@pytest.mark.parametrize(
    ("package", "version"),
    [("torch", "2.10.1"), ("torch", "2.14.0"), ("triton", "3.5.0"), ("llvmlite", "0.49.0"), ("mlir", "22.1.9.0")],
)
def test_an_unsupported_version_needs_fixing(package: str, version: str) -> None:
    bad = [check for check in doctor.checks(found(**{package: version})) if version in check.detail]
    assert len(bad) == 1
    assert "supported: " in bad[0].detail and "pip install" in bad[0].fix


@pytest.mark.parametrize("version", ["2.11.0", "2.12.1+cu130", "2.13.0+cpu"])
def test_supported_versions_pass(version: str) -> None:
    check = next(check for check in doctor.checks(found(torch=version)) if check.name == "PyTorch")
    assert check.fix == ""


def test_two_active_triton_drivers_are_named() -> None:
    clash = found()
    clash["triton"] = ProbeResult("3.7.1", facts={"backends": {"cpu": True, "other": True, "amd": False}})
    check = next(check for check in doctor.checks(clash) if check.name == "Triton backends")
    assert "cpu, other" in check.fix


def test_the_supported_ranges_are_those_of_pyproject() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for package, (_, oldest, too_new, requirement) in doctor._PACKAGES.items():
        if package in ("torch", "triton"):
            wanted = f'"{package}>={".".join(map(str, oldest))},<{".".join(map(str, too_new))}"'
            assert wanted in text, wanted
        else:
            for part in requirement.split():
                assert f'"{part.strip(chr(39))}"' in text, part
