"""Compiles LLVM IR to an object file, and links object files into this process.

Threads: each function here works on its own module. llvmlite, which links, holds one lock around every call.
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
from torchport_cpu.llvm_library import ASSEMBLY, OBJECT, compile_ir

__all__ = ["LoadedKernel", "emit_assembly", "emit_object", "load"]

# torchport's passes have already vectorised and chosen the loops. What is left: values that are computed twice or in
# every turn of a loop, short loops of a few constant turns, and what the ranges of program numbers decide, which
# instcombine before and after sccp finds. Of O1, which took 1.8 times as long, this leaves out passes that change
# nothing here, a third and fourth instcombine, and canonical induction variables (indvars): code generation reduces the
# strength of what it finds, in the same time. Kernels are as fast without them (0.98 to 1.02 in the geometric mean);
# without sccp some were slower by 15 %. What is inlined, lower-kernel marks.
_PASSES = (
    "always-inline,function(early-cse<memssa>,simplifycfg,reassociate,loop-mssa(loop-rotate,licm),instcombine<no-verify-fixpoint>,"
    "loop(loop-unroll-full),sroa,sccp,instcombine<no-verify-fixpoint>,simplifycfg)"
)

_library_names = itertools.count()


def emit_object(llvm_ir: str, host: HostInfo) -> tuple[bytes, list[str]]:
    """Compile LLVM IR text for ``host`` to a position-independent object.

    Returns the object and the names of the external functions that the IR declares; library calls that LLVM itself
    adds, such as memcpy, are not listed. Raises CompilationError if LLVM rejects the IR.
    """
    return compile_ir(llvm_ir, host, _PASSES, OBJECT)


def emit_assembly(llvm_ir: str, host: HostInfo) -> str:
    """The output of ``emit_object`` as assembly text, for reading."""
    return compile_ir(llvm_ir, host, _PASSES, ASSEMBLY)[0].decode()


class LoadedKernel:
    """A kernel in memory, its function at ``address``. Its code is freed with the last reference to this object."""

    def __init__(self, jit: Any, tracker: Any, address: int) -> None:
        self.address = address
        self._jit = jit  # freed after the tracker, at interpreter exit too; racing first calls may each create one
        self._tracker = tracker

    def __del__(self) -> None:
        self._tracker = None


@functools.cache
def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


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
