"""Bad plugins, installed as packages are: each gives one clear error, and every other target goes on working."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = """
from torchport.capabilities import Capabilities
from torchport.plugin import Device
from torchport.target import Target

able = Capabilities(
    simd_width=1, simd_groups=(1,), block_elements=64, grid=(1, 1, 1), scratchpad_bytes=0, dtypes=frozenset({"fp32"}),
    dot_precisions=frozenset(), denormals=frozenset(),
)

class Compiler:
    triton = "torchport"
    def fingerprint(self): return ""
    def compile(self, source, options): raise NotImplementedError
    def passes(self): return []

class Driver:
    device, stock = "cpu", False
    def load(self, binary, types): raise NotImplementedError

class Vendor:
    name, api_version, options = NAME, 2, {}
    def devices(self): return [Device(Target(NAME), "a chip of tests")]
    def capabilities(self, target): return able
    def compiler(self, target): return Compiler()
    def driver(self, target): return Driver()

"""

PLUGINS = {
    # name: (what its module does beyond GOOD, what the error says)
    "v_good": ("", ""),
    "v_old": ("Vendor.api_version = 1", "was written for plugin API 1, this torchport has 2; install the release"),
    "v_future": ("Vendor.api_version = 3", "was written for plugin API 3, this torchport has 2"),
    "v_lacks": ("del Vendor.compiler, Vendor.options", "it has no options, compiler"),
    "v_text": ("Vendor.devices = 'none'", "devices must be methods"),
    "v_options": ("Vendor.options = 5", "options is 5, not a mapping of Inductor options"),
    "v_class": ("backend = Vendor", "the entry point leads to the class Vendor, not to an object of it"),
    "v_import": ("raise OSError('libvendor.so: not found')", "cannot be loaded: OSError: libvendor.so: not found"),
    "v_exit": ("raise SystemExit('no licence')", "cannot be loaded: SystemExit: no licence"),
    "v_syntax": ("def", "cannot be loaded: SyntaxError"),
    "v_property": ("Vendor.options = property(lambda self: 1 / 0)", "cannot be loaded: ZeroDivisionError"),
    "v_named": ("Vendor.name = 'other'", "it calls itself 'other', its entry point 'v_named'"),
    "v_devices": ("Vendor.devices = lambda self: 1 / 0", "failed in devices(): ZeroDivisionError: division by zero"),
    "v_none": ("Vendor.devices = lambda self: None", "devices() returned None, not a list of torchport.plugin.Device"),
    "v_strings": ("Vendor.devices = lambda self: ['chip']", "devices() returned ['chip'], not a list of"),
    "v_strange": (
        "Vendor.devices = lambda self: [Device(Target('cpu'), '')]",
        "devices() lists cpu; its targets must begin with 'v_strange'",
    ),
    "v_empty": ("Vendor.devices = lambda self: []", "finds no device here"),
    "v_cap": ("Vendor.capabilities = lambda self, target: 1 / 0", "failed in capabilities(v_cap): ZeroDivisionError"),
    "v_caps": ("Vendor.capabilities = lambda self, target: {}", "capabilities() returned {}, not a"),
    "v_compile": ("Vendor.compiler = lambda self, target: 1 / 0", "failed in compiler(v_compile): ZeroDivisionError"),
    "v_compiler": ("Vendor.compiler = lambda self, target: 5", "compiler() returned 5, not an object with triton,"),
    "v_drive": ("Vendor.driver = lambda self, target: 1 / 0", "failed in driver(v_drive): ZeroDivisionError"),
    "v_driver": ("Vendor.driver = lambda self, target: None", "driver() returned None, not an object with device"),
    "v_absent": ("del Vendor", "cannot be loaded: AttributeError"),
}

MODEL = """
import json, sys, torch, torchport
x = torch.randn(100)
found = {}
for name in sys.argv[1:]:
    torch._dynamo.reset()
    try:
        torch.compile(lambda x: torch.sin(x) * 2, backend="torchport", options={"target": name})(x)
        found[name] = ""
    except torchport.errors.TargetError as error:
        found[name] = str(error)
torch._dynamo.reset()
y = torch.compile(lambda x: torch.sin(x) * 2, backend="torchport", options={"target": "cpu", "fallback": "error"})(x)
assert (y - torch.sin(x.double()) * 2).abs().max() < 1e-6
print(json.dumps(found))
"""


def distribution(folder: Path, package: str, name: str, module: str) -> None:
    """What pip would leave of a package with one module and one entry point."""
    info = folder / f"{package}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[torchport.backends]\n{name} = {package}:backend\n")
    (folder / f"{package}.py").write_text(module)


@pytest.fixture(scope="module")
def vendors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vendors")
    for name, (change, _) in PLUGINS.items():
        made = "" if name in ("v_class", "v_absent") else "backend = Vendor()\n"
        distribution(folder, f"pkg_{name}", name, f"NAME = {name!r}\n{GOOD}\n{change}\n{made}")
    for package in ("pkg_first", "pkg_second"):
        distribution(folder, package, "v_twice", f"NAME = 'v_twice'\n{GOOD}\nbackend = Vendor()\n")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "300"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=500, check=False
    )


def test_targets_says_what_is_wrong_with_each(vendors: Path) -> None:
    result = run(vendors, "-m", "torchport.cli", "targets", "--json")
    assert result.returncode == 0, result.stderr
    rows = {row["backend"]: row for row in json.loads(result.stdout)}
    for name, (_, says) in PLUGINS.items():
        row = rows[name]
        assert row["package"] == f"pkg_{name} 1.5" or name == "v_twice"
        assert row["state"] == ("unusable" if says else "ready"), row
        assert says in row["missing"], (name, row["missing"])
        if says:
            assert f"backend '{name}'" in row["missing"]
            assert "\n" not in row["missing"] or name == "v_syntax"
        if says and name != "v_empty":
            assert f"package pkg_{name}" in row["missing"], row["missing"]
    twice = rows["v_twice"]["missing"]
    assert "claimed twice, by " in twice
    for package in ("pkg_first", "pkg_second"):
        assert f"{package}:backend (package {package})" in twice
    assert rows["cpu"]["state"] == "ready"


def test_the_table_is_shown(vendors: Path) -> None:
    result = run(vendors, "-m", "torchport.cli", "targets")
    assert result.returncode == 0, result.stderr
    here = {"opencl", "webgpu"}  # whose drivers this machine may lack
    shown = set(re.findall(r"│ (\w+)[^\n]*│ unusable +│", result.stdout)) - here
    assert shown == {name for name, (_, says) in PLUGINS.items() if says} | {"v_twice"}
    assert "Traceback" not in result.stdout + result.stderr


def test_models_on_them_and_on_the_cpu(vendors: Path, tmp_path: Path) -> None:
    bad = [name for name, (_, says) in PLUGINS.items() if says and name not in ("v_empty", "v_caps", "v_cap")]
    asked = [name for name in bad if "devices()" not in PLUGINS[name][1]]
    (tmp_path / "model.py").write_text(MODEL)
    result = run(vendors, str(tmp_path / "model.py"), *asked, "v_twice", "v_nobody")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    for name in asked:
        assert PLUGINS[name][1] in found[name], (name, found[name])
    assert "claimed twice" in found["v_twice"]
    assert "no backend is called 'v_nobody'; installed backends:" in found["v_nobody"]


def test_the_doctor_names_them(vendors: Path) -> None:
    result = run(vendors, "-m", "torchport.cli", "doctor")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert re.search(r"✓ +target cpu +ready", result.stdout)
    for name, (_, says) in PLUGINS.items():
        assert re.search(rf"{'✗' if says else '✓'} +target {name}\b", result.stdout), name
    assert "libvendor.so: not found" in result.stdout


def test_a_command_on_a_bad_one_is_one_sentence(vendors: Path) -> None:
    result = run(vendors, "-m", "torchport.cli", "opt", "--list", "--target", "v_import")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: backend 'v_import' (pkg_v_import:backend, package pkg_v_import)")
