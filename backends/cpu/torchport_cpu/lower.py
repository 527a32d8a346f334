"""TTIR text to LLVM IR text."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchport.errors import UnsupportedOperation
from torchport.pipeline import Pipeline, StageTime
from torchport_cpu.cost import program_cost
from torchport_cpu.host import HostInfo
from torchport_cpu.pipeline import passes

__all__ = ["Lowered", "lower_ttir"]

_KERNEL = re.compile(r"tt\.func public @([\w.$]+)\((.*?)\) attributes", re.DOTALL)
_ARGUMENT = re.compile(r"%\w+: (!tt\.ptr<[^ {,]*>|[\w<>!.]+)")
_TYPES = {"f64": "fp64", "f32": "fp32", "f16": "fp16", "bf16": "bf16"}


@dataclass(frozen=True)
class Lowered:
    """A kernel as LLVM IR, and what its launcher has to know.

    ``signature``: Triton's spelling of the argument types in order. ``cost``: estimated nanoseconds of one program
    instance. ``serial``: program instances must run in order on one thread. ``sites``: the memory operations that are
    checked (``torchport_passes.kernel.sanitize.Site``), none without the sanitizer. ``written``: the arguments that the
    kernel writes to, None where that is not known; nobody asks for it of a kernel in its own arithmetic.
    """

    llvm_ir: str
    name: str
    signature: list[str]
    cost: float
    serial: bool
    times: list[StageTime]
    sites: list[Any]
    written: list[int] | None = None


def _signature(ttir: str) -> tuple[str, list[str]]:
    """Name and argument types of the kernel."""
    found = _KERNEL.search(ttir)
    if found is None:
        raise UnsupportedOperation("tt.func", "the module has no public kernel")
    types = []
    for text in _ARGUMENT.findall(found.group(2)):
        if text.startswith("!tt.ptr<"):
            pointee = text[len("!tt.ptr<") : -1]
            types.append("*" + _TYPES.get(pointee, pointee))
        else:
            types.append(_TYPES.get(text, text))
    return found.group(1), types


_KERNELS_PER_CONTEXT = 100  # a context keeps every type and attribute it has seen
_threads = threading.local()


def _context() -> Any:
    """This thread's MLIR context: making one costs milliseconds."""
    from torchport_passes.frontend.importer import new_context

    used = getattr(_threads, "used", _KERNELS_PER_CONTEXT)
    if used >= _KERNELS_PER_CONTEXT:
        _threads.context, used = new_context(), 0
    _threads.used = used + 1
    return _threads.context


def lower_ttir(
    ttir: str,
    host: HostInfo,
    observer: Callable[[str, Any], None] | None = None,
    *,
    sanitize: bool = False,
    arithmetic: str = "",
) -> Lowered:
    """Lower one kernel.

    ``ttir``: as Triton prints it, without locations. ``observer(pass name, module)`` sees the IR after each pass.
    ``sanitize``: check every memory access. ``arithmetic``: the option of that name.
    Raises OptionError for an ``arithmetic`` that cannot be read, UnsupportedOperation for what the CPU target cannot
    lower, CompilationError when a pass breaks the IR; the last two name the kernel.
    """
    from mlir import ir
    from mlir.dialects import llvm
    from torchport_passes.arithmetic.passes_for import passes_for
    from torchport_passes.frontend.importer import import_ttir
    from torchport_passes.ir.atomics import needs_order
    from torchport_passes.kernel.sanitize import sites_of

    name, signature = _signature(ttir)
    before = passes_for(arithmetic)
    promotes = any(one.name == "promote" for one in before)
    facts: dict[str, Any] = {"sites": []}

    def watch(stage: str, module: Any) -> None:
        if stage == "form-nests":
            facts["cost"] = program_cost(module)
        elif stage == "promote":
            facts["serial"] = _any_operation(module, needs_order)
        elif stage == "sanitize":
            facts["sites"] = sites_of(module)
        if observer is not None:
            observer(stage, module)

    try:
        module = import_ttir(ttir, _context(), keep_pointees=promotes)
        if observer is not None:
            observer("import", module)
        facts["serial"] = _any_operation(module, needs_order)
        facts["written"] = _written(module) if before else None
        narrow = any(word in ttir for word in ("bf16", "f8E", "tt.dot_scaled"))
        hints = "llvm.loop_annotation" in ttir
        pipeline = Pipeline(passes(host, sanitize=sanitize, narrow=narrow, loop_hints=hints, arithmetic=before), watch)
        pipeline.run(module, kernel=name)
        with module.context, ir.Location.unknown():
            text = llvm.translate_module_to_llvmir(module.operation)
    except UnsupportedOperation as error:
        if error.kernel is not None:
            raise
        raise UnsupportedOperation(error.operation, error.reason, kernel=name, location=error.location) from error
    cost, serial, sites, written = (facts[name] for name in ("cost", "serial", "sites", "written"))
    return Lowered(text, name, signature, cost, serial, pipeline.times, sites, written)


def _written(module: Any) -> list[int] | None:
    """The kernel's arguments that stores and atomics may go to, None where they may go anywhere."""
    from torchport_passes.analysis.provenance import Roots
    from torchport_passes.ir.ops import matching

    roots = Roots(module)
    writes = matching(module, lambda name: name == "tt.store" or name.startswith("tt.atomic"))
    found = [roots.of(op.operands[0]) for op in writes]
    return None if None in found else sorted({index for one in found for index in one or ()})


def _any_operation(module: Any, test: Callable[[Any], bool]) -> bool:
    from mlir import ir

    found = []

    def visit(op: Any) -> Any:
        if test(op.operation):
            found.append(op)
            return ir.WalkResult.INTERRUPT
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return bool(found)
