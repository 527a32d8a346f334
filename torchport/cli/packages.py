"""Tries each package that torchport needs in its own process, for ``torchport doctor``.

A broken package may raise anything, hang, or end the process (an illegal instruction, a library that does not load).
Importing the large ones takes seconds. Where one lies as its distribution installed it, its main library is loaded
instead, and only if that fails is it imported, which says why.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["PROBES", "ProbeResult", "look"]

_LOAD = "import ctypes, sys; [ctypes.CDLL(library) for library in sys.argv[1:]]"
_TIMEOUT = 120.0  # seconds; importing torch from a cold disk can take tens

_HOST = (
    "dict(cpu=b.get_host_cpu_name(), triple=b.get_default_triple(), "
    "features=sorted(k for k, on in b.get_host_cpu_features().items() if on))"
)

# The code of each probe; it prints one JSON object.
PROBES: Mapping[str, str] = {
    "torch": "import torch; out = dict(version=torch.__version__, threads=torch.get_num_threads(), "
    "capability=torch.backends.cpu.get_cpu_capability(), cuda=torch.cuda.is_available())",
    "triton": "import triton; from triton.backends import backends; out = dict(version=triton.__version__, "
    "backends={name: bool(b.driver.is_active()) for name, b in backends.items()})",
    "mlir": "import mlir.ir, mlir.passmanager, mlir.dialects.llvm, importlib.metadata as m; mlir.ir.Context(); "
    "out = dict(version=next((d.version for d in m.distributions() if d.name == 'xtc-mlir-python-bindings'), 'found'))",
    "llvmlite": f"import llvmlite, llvmlite.binding as b; out = dict(version=llvmlite.__version__, host={_HOST})",
    "native": "import torchport.runtime._native as n; out = dict(version='built')",
    # The CPU's backend has imported llvmlite, unless it cannot be imported.
    "targets": "import sys; from torchport.cli.targets import rows; known = [r.summary for r in rows()]; "
    f"b = sys.modules.get('llvmlite.binding'); out = dict(version='', rows=known, host={_HOST} if b else None)",
}

# module -> its distribution, and the library that everything else in it needs, relative to the module
_LIBRARIES: Mapping[str, tuple[str, str]] = {
    "torch": ("torch", "lib/libtorch_cpu.so"),
    "triton": ("triton", "_C/libtriton.so"),
    "llvmlite": ("llvmlite", "binding/libllvmlite.so"),
    "mlir": ("xtc-mlir-python-bindings", f"_mlir_libs/_mlir{EXTENSION_SUFFIXES[0]}"),
}
_KNOWN_BACKENDS = {"triton", "torchport"}  # distributions whose Triton backends are never active at the same time


@dataclass(frozen=True)
class ProbeResult:
    """The result of one probe.

    version: the package's version; None if it cannot be imported.
    problem: the last line of its error; None if it works.
    missing: whether it is not installed.
    facts: further values that the probe prints.
    """

    version: str | None
    problem: str | None = None
    missing: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


def look(*, imports: bool = False) -> dict[str, ProbeResult]:
    """Run all probes at the same time; returns the results by name.

    imports: import every package, however long that takes.
    """
    found = {} if imports else {name: library for name in PROBES if (library := _library(name)) is not None}
    loading = _run("-S", "-c", _LOAD, *(str(file) for _, file in found.values()))
    running = {name: _start(code) for name, code in PROBES.items() if name not in found}
    results = {name: ProbeResult(version) for name, (version, _) in found.items()}
    if not _succeeds(loading):
        running |= {name: _start(PROBES[name]) for name in found}
    return results | {name: _finish(process) for name, process in running.items()}


def _library(module: str) -> tuple[str, Path] | None:
    """Version and main library of a package; None if only an import can tell whether the package works."""
    if module == "native":
        native = find_spec("torchport.runtime._native")
        return ("built", Path(native.origin)) if native is not None and native.origin is not None else None
    if module not in _LIBRARIES:
        return None
    name, library = _LIBRARIES[module]
    spec = find_spec(module)
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        return None
    folder = Path(str(installed.locate_file(module)))
    if spec is None or [Path(place).resolve() for place in spec.submodule_search_locations or ()] != [folder.resolve()]:
        return None  # another package of this name comes first on the path
    if module == "triton" and _foreign_backends():
        return None
    return (installed.version, folder / library) if (folder / library).is_file() else None


def _foreign_backends() -> bool:
    """Whether other packages have Triton backends: only Triton can say which are active."""
    owners = {point.dist.name if point.dist is not None else "" for point in entry_points(group="triton.backends")}
    return not owners <= _KNOWN_BACKENDS


def _succeeds(process: subprocess.Popen[str]) -> bool:
    try:
        process.communicate(timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return process.returncode == 0


def _start(code: str) -> subprocess.Popen[str]:
    return _run("-c", f"import json; {code}; print('\\n' + json.dumps(out))")


def _run(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def _finish(process: subprocess.Popen[str]) -> ProbeResult:
    try:
        out, err = process.communicate(timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return ProbeResult(None, f"did not answer within {_TIMEOUT:.0f} s")
    if process.returncode == 0:
        facts = json.loads(out.strip().splitlines()[-1])
        return ProbeResult(facts["version"], facts=facts)
    if process.returncode < 0:
        return ProbeResult(None, f"importing it killed the process (signal {-process.returncode})")
    last = (err.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
    return ProbeResult(None, last, missing=last.startswith("ModuleNotFoundError"))
