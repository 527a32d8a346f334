"""Lowers TTIR text to LLVM IR text."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchport.config import config
from torchport.errors import CompilationError, UnsupportedOperation
from torchport.pipeline import Pipeline, StageTime
from torchport_cpu.cost import cost_of
from torchport_cpu.host import HostInfo
from torchport_cpu.pipeline import passes

__all__ = ["Lowered", "context", "has_doubles", "lower_ttir", "operations_of", "signature_of"]

_KERNEL = re.compile(r"tt\.func public @([\w.$]+)\((.*?)\) attributes", re.DOTALL)
_OPERATION = re.compile(r"\b(tt\.\w+)")
_ARGUMENT = re.compile(r"%\w+: (!tt\.ptr<[^ {,]*>|[\w<>!.]+)")
_TYPES = {"f64": "fp64", "f32": "fp32", "f16": "fp16", "bf16": "bf16"}


@dataclass(frozen=True)
class Lowered:
    """A kernel as LLVM IR, and the facts that its launcher needs.

    llvm_ir: the text.
    name: the kernel's name.
    signature: Triton's spelling of the argument types, in order.
    cost: estimated nanoseconds of one program instance.
    serial: whether program instances must run in order on one thread.
    times: how long each pass took.
    sites: the checked memory operations (``torchport_passes.kernel.sanitize.Site``); none without the sanitizer.
    written: numbers of the arguments that the kernel writes; None if unknown. Found only for an emulated arithmetic.
    """

    llvm_ir: str
    name: str
    signature: list[str]
    cost: float
    serial: bool
    times: list[StageTime]
    sites: list[Any]
    written: list[int] | None = None


def signature_of(ttir: str) -> tuple[str, list[str]]:
    """Name and argument types of the kernel."""
    kernel = _KERNEL.search(ttir)
    if kernel is None:
        raise UnsupportedOperation("tt.func", "the module has no public kernel")
    types = []
    for text in _ARGUMENT.findall(kernel.group(2)):
        if text.startswith("!tt.ptr<"):
            pointee = text[len("!tt.ptr<") : -1]
            types.append("*" + _TYPES.get(pointee, pointee))
        else:
            types.append(_TYPES.get(text, text))
    return kernel.group(1), types


def operations_of(ttir: str) -> frozenset[str]:
    """Names of a kernel's ``tt`` operations."""
    return frozenset(_OPERATION.findall(ttir))


def has_doubles(ttir: str) -> bool:
    """Whether a kernel may hold values of float64."""
    return "f64" in ttir


_KERNELS_PER_CONTEXT = 100  # a context keeps every type and attribute it has seen
_threads = threading.local()


def context() -> Any:
    """This thread's MLIR context, kept because creating one takes milliseconds."""
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
    confined: bool = False,
    arithmetic: str = "",
    large: bool = True,
    bf16_pairs: bool = False,
    fused: bool = True,
) -> Lowered:
    """Lower one kernel.

    ttir: the kernel as Triton prints it, without locations.
    host: the CPU to lower for.
    observer: called with a pass's name and the module after each pass.
    sanitize: whether to check every memory access.
    confined: the option of that name.
    arithmetic, large, bf16_pairs: the options of these names (``CPUOptions``).
    fused: the option ``enable_fp_fusion``.

    Raises OptionError if ``arithmetic`` cannot be read, UnsupportedOperation if the CPU target cannot lower an
    operation, CompilationError if a pass breaks the IR; the last two name the kernel.
    """
    from mlir import ir
    from mlir.dialects import llvm
    from torchport_passes.arithmetic.algebra import Algebra
    from torchport_passes.arithmetic.passes_for import passes_for
    from torchport_passes.arithmetic.promote import Promote
    from torchport_passes.frontend.importer import LOOP_HINTS, NARROW_FLOATS, import_ttir
    from torchport_passes.ir.dialects.verify import verify
    from torchport_passes.kernel.mark_order import needs_order_in, written_arguments
    from torchport_passes.kernel.sanitize import sites_of

    name, signature = signature_of(ttir)
    before = passes_for(arithmetic)
    retyping = next((pass_ for pass_ in before if isinstance(pass_, (Algebra, Promote))), None)
    signature = signature if retyping is None else retyping.signature(signature)

    def run(every: bool) -> tuple[Any, Pipeline]:
        module = import_ttir(ttir, context(), keep_pointees=retyping is not None)
        if observer is not None:
            observer("import", module)
        seen = module.operation.attributes
        chosen = passes(
            host,
            sanitize=sanitize,
            confined=confined,
            narrow=NARROW_FLOATS in seen,
            loop_hints=LOOP_HINTS in seen,
            arithmetic=before,
            large=large,
            bf16_pairs=bf16_pairs,
            fused_sums=fused and has_doubles(ttir),
            present=operations_of(ttir),
        )
        pipeline = Pipeline(chosen, observer, verify if config().verifies else None, every=every)
        pipeline.run(module, kernel=name, source=ttir, folder=config().dumps_to if every else None)
        return module, pipeline

    try:
        try:
            module, pipeline = run(every=observer is not None or config().verifies)
        except UnsupportedOperation:
            raise
        except CompilationError:
            module, pipeline = run(every=True)  # the error is to name the pass after which the IR is wrong
        with module.context, ir.Location.unknown():
            text = llvm.translate_module_to_llvmir(module.operation)
    except UnsupportedOperation as error:
        if error.kernel is not None:
            raise
        raise UnsupportedOperation(error.operation, error.reason, kernel=name, location=error.location) from error
    return Lowered(
        text, name, signature, cost_of(module), needs_order_in(module), pipeline.times, sites_of(module),
        written_arguments(module),
    )  # fmt: skip
