"""Compiles LLVM IR to an object file, and links object files into this process.

Threads: llvmlite holds one lock around every call into LLVM, and each function here works on its own module.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import llvmlite.binding as llvm

from torchport.errors import CompilationError
from torchport.runtime.launcher import KERNEL_FUNCTIONS
from torchport.runtime.symbols import find_symbol
from torchport_cpu.elf import undefined_symbols
from torchport_cpu.host import HostInfo

__all__ = ["LoadedKernel", "emit_assembly", "emit_object", "load"]

# LLVM's function simplification at O1: SSA, common subexpressions, loop-invariant code. torchport's passes have
# already vectorised and chosen the loops, so the rest of O2 (inlining, vectorisation, interprocedural work) takes three
# times as long and made no kernel faster. Without any passes some reductions were 10 % slower.
_SIMPLIFY = 1
_SELECT = 2

_library_names = itertools.count()


@functools.cache
def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@functools.lru_cache(maxsize=8)
def _target_machine(host: HostInfo) -> Any:
    _initialise()
    return llvm.Target.from_triple(host.triple).create_target_machine(
        cpu=host.cpu, features=host.features, opt=_SELECT, reloc="pic", codemodel="default"
    )


def _optimised(llvm_ir: str, host: HostInfo) -> Any:
    machine = _target_machine(host)
    try:
        module = llvm.parse_assembly(llvm_ir)
        module.triple = host.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise CompilationError(f"LLVM rejects the kernel's IR: {error}", stage="llir") from error
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=_SIMPLIFY))
    simplify = builder.getFunctionPassManager()
    for function in module.functions:
        if not function.is_declaration:
            simplify.run(function, builder)
    return module


def emit_object(llvm_ir: str, host: HostInfo) -> tuple[bytes, list[str]]:
    """Compile LLVM IR text for ``host`` to a position-independent object.

    Returns the object and the names of the external functions that the IR declares; library calls that LLVM itself
    adds, such as memcpy, are not listed. Raises CompilationError if LLVM rejects the IR.
    """
    module = _optimised(llvm_ir, host)
    imports = sorted(f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm."))
    return _target_machine(host).emit_object(module), imports


def emit_assembly(llvm_ir: str, host: HostInfo) -> str:
    """The output of ``emit_object`` as assembly text, for reading."""
    return str(_target_machine(host).emit_assembly(_optimised(llvm_ir, host)))


class LoadedKernel:
    """A kernel in memory, its function at ``address``. Its code is freed with the last reference to this object."""

    def __init__(self, jit: Any, tracker: Any, address: int) -> None:
        self.address = address
        self._jit = jit  # freed after the tracker, at interpreter exit too; racing first calls may each create one
        self._tracker = tracker

    def __del__(self) -> None:
        self._tracker = None


@functools.cache
def _jit() -> Any:
    _initialise()
    return llvm.create_lljit_compiler(use_jit_link=True)  # 0.2 ms per object; RuntimeDyld takes 0.5 ms


def _missing(image: bytes, imports: list[str]) -> list[str]:
    """The undefined symbols of an object that are neither in ``imports`` nor in this process."""
    _initialise()
    return [s for s in undefined_symbols(image) if s not in imports and llvm.address_of_symbol(s) is None]


def load(image: bytes, name: str, imports: list[str]) -> LoadedKernel:
    """Link an object into this process and find its function ``name``.

    ``imports`` are resolved in torch's libraries (Sleef), libm and libc; functions that LLVM added, in this process.
    Raises CompilationError naming the symbols that are missing (those that LLVM added: on ELF platforms only).
    """
    library = llvm.JITLibraryBuilder().add_object_img(image).add_current_process().export_symbol(name)
    for symbol in imports:
        address = KERNEL_FUNCTIONS.get(symbol) or find_symbol(symbol)
        if address is None:
            raise CompilationError(
                f"kernel {name} needs the function {symbol}, which this build of torch does not have",
                kernel=name,
                stage="load",
            )
        library.import_symbol(symbol, address)
    jit = _jit()
    try:
        tracker = library.link(jit, f"{name}.{next(_library_names)}")
    except RuntimeError as error:
        missing = _missing(image, imports)
        reason = f"LLVM calls {', '.join(missing)}, which no library of this process has" if missing else error
        raise CompilationError(f"kernel {name} cannot be loaded: {reason}", kernel=name, stage="load") from error
    return LoadedKernel(jit, tracker, tracker[name])
