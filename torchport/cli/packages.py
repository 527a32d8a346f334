"""Imports each package that torchport needs in its own process, for ``torchport doctor``.

A broken package may raise anything, hang, or end the process (an illegal instruction, a library that does not load).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PROBES", "ProbeResult", "look"]

_TIMEOUT = 120.0  # seconds; importing torch from a cold disk can take tens

# The code of each probe; it prints one JSON object.
PROBES: Mapping[str, str] = {
    "torch": "import torch; out = dict(version=torch.__version__, threads=torch.get_num_threads(), "
    "capability=torch.backends.cpu.get_cpu_capability(), cuda=torch.cuda.is_available())",
    "triton": "import triton; from triton.backends import backends; out = dict(version=triton.__version__, "
    "backends={name: bool(b.driver.is_active()) for name, b in backends.items()})",
    "mlir": "import mlir.ir, mlir.passmanager, mlir.dialects.llvm, importlib.metadata as m; mlir.ir.Context(); "
    "out = dict(version=next((d.version for d in m.distributions() if d.name == 'xtc-mlir-python-bindings'), 'found'))",
    "llvmlite": "import llvmlite, llvmlite.binding as b; out = dict(version=llvmlite.__version__, "
    "cpu=b.get_host_cpu_name(), triple=b.get_default_triple(), llvm='.'.join(map(str, b.llvm_version_info)), "
    "features=sorted(k for k, on in b.get_host_cpu_features().items() if on))",
    "native": "import torchport.runtime._native as n; out = dict(version='built')",
    "targets": "from torchport.cli.targets import rows; out = dict(version='', rows=[r.summary for r in rows()])",
}


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


def look() -> dict[str, ProbeResult]:
    """Run all probes at the same time; returns the results by name."""
    running = {name: _start(code) for name, code in PROBES.items()}
    return {name: _finish(process) for name, process in running.items()}


def _start(code: str) -> subprocess.Popen[str]:
    program = f"import json; {code}; print('\\n' + json.dumps(out))"
    return subprocess.Popen(
        [sys.executable, "-c", program],
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
