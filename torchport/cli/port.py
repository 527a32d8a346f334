"""``torchport port`` and ``torchport build``: a model's kernels on targets that need not be here."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torchport.errors import OptionError
from torchport.offline import Artifact, capture, compile_kernel, write
from torchport.offline.manifest import describe, write_whole
from torchport.plugin import backend_for
from torchport.runtime import events
from torchport.target import Target

__all__ = ["build", "port"]


def port(model: str, targets: str, json_file: Path | None) -> int:
    """Compile every kernel of ``model`` (``FILE.py:FUNCTION``) for every target, and show what came of it.

    Returns 0 when every kernel compiled on every target.
    """
    artifacts, fallbacks = _compiled(model, targets)
    _show(artifacts, fallbacks)
    if json_file is not None:
        content = {**_about(model, fallbacks), "kernels": [describe(a) for a in artifacts]}
        write_whole(json_file, (json.dumps(content, indent=1) + "\n").encode())
    return int(any(artifact.error for artifact in artifacts))


def build(model: str, targets: str, output: Path) -> int:
    """``port``, with the machine code and its manifest written to the folder ``output``."""
    artifacts, fallbacks = _compiled(model, targets)
    _show(artifacts, fallbacks)
    manifest = write(output, artifacts, _about(model, fallbacks))
    print(f"{sum(bool(artifact.binary) for artifact in artifacts)} binaries, listed in {manifest}")
    return int(any(artifact.error for artifact in artifacts))


def _compiled(model: str, targets: str) -> tuple[list[Artifact], list[events.Fallback]]:
    from rich.console import Console
    from rich.progress import Progress

    chosen = [Target.parse(text) for text in targets.split(",")]
    for target in chosen:
        backend_for(target).compiler(target)  # an unknown target is found before the work begins
    module, inputs = _load(model)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("capturing the model", total=None)
        kernels, fallbacks = capture(module, inputs)
        progress.update(task, description="compiling kernels", total=len(kernels) * len(chosen))
        artifacts = []
        for kernel in kernels:
            for target in chosen:
                artifacts.append(compile_kernel(kernel, target))
                progress.advance(task)
    return artifacts, fallbacks


def _load(model: str) -> tuple[Any, Sequence[Any]]:
    """What FUNCTION of FILE.py returns: a module or function, and a tuple of its inputs. Raises OptionError."""
    file, _, name = model.rpartition(":")
    path = Path(file)
    if not file or not path.is_file():
        raise OptionError(f"{model!r} names no file; expected FILE.py:FUNCTION, such as models/bert.py:make")
    function = getattr(_import(path), name, None)
    if not callable(function):
        raise OptionError(f"{path} has no function {name!r}")
    made = function()
    if not (isinstance(made, tuple) and len(made) == 2 and callable(made[0]) and isinstance(made[1], (tuple, list))):
        raise OptionError(f"{model} must return (model, inputs): a module or function, and a tuple of its inputs")
    return made[0], made[1]


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _about(model: str, fallbacks: Sequence[events.Fallback]) -> dict[str, Any]:
    """The model, the environment and what is no kernel, as JSON values."""
    import torch
    import triton

    import torchport

    return {
        "model": model, "torchport": torchport.__version__, "torch": torch.__version__, "triton": triton.__version__,
        "python": platform.python_version(), "machine": platform.machine(),
        "fallbacks": [str(fallback) for fallback in fallbacks],
    }  # fmt: skip


def _show(artifacts: Sequence[Artifact], fallbacks: Sequence[events.Fallback]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    targets = list(dict.fromkeys(artifact.target for artifact in artifacts))
    table = Table("kernel", caption=_LEGEND, caption_justify="left")
    for target in targets:
        table.add_column(target, justify="right", no_wrap=True)
    cells: dict[str, dict[str, str]] = {}
    for artifact in artifacts:
        cells.setdefault(artifact.kernel, {})[artifact.target] = _cell(artifact)
    for kernel, row in cells.items():
        table.add_row(escape(_short(kernel)), *(row.get(target, "") for target in targets))
    console.print(table)
    for artifact in artifacts:
        if artifact.error:
            console.print(f"[red]{escape(artifact.kernel)}[/red] on {artifact.target}: {escape(artifact.error)}")
        for limit in artifact.limits:
            console.print(f"[yellow]{escape(artifact.kernel)}[/yellow] on {artifact.target}: {escape(limit)}")
    for fallback in fallbacks:
        console.print(f"not a kernel: {escape(str(fallback))}")
    failed = sum(bool(artifact.error) for artifact in artifacts)
    compiled = len(artifacts) - failed
    console.print(f"{len(cells)} kernels on {len(targets)} targets: {compiled} compiled, {failed} failed")


def _short(kernel: str) -> str:
    """A kernel's name in a column's width: the end tells kernels apart."""
    name = kernel.removeprefix("triton_")
    return name if len(name) <= _WIDTH else f"{name[: _WIDTH // 2]}…{name[-(_WIDTH // 2) + 1 :]}"


_WIDTH = 22
_LEGEND = "K: KiB of machine code; r: registers of a lane; s: bytes of scratchpad; spill: bytes of spilled registers"


def _cell(artifact: Artifact) -> str:
    """Size of the code, and what it takes of the chip where that is known (_LEGEND)."""
    if artifact.error:
        return "[red]failed[/red]"
    used = artifact.resources
    parts = [f"{len(artifact.binary) / 1024:.0f}K"]
    if used.registers is not None:
        parts.append(f"{used.registers}r")
    if used.scratchpad_bytes:
        parts.append(f"{used.scratchpad_bytes}s")
    if used.spill_bytes:
        parts.append(f"[yellow]{used.spill_bytes} spill[/yellow]")
    return " ".join(parts)
