"""LLVM's C API, for what compiles LLVM IR: parsing, passes by a list of one's own, code generation.

The library is the one that the MLIR bindings are linked with, so it is loaded already. llvmlite has an LLVM too, which
links objects here; it knows no list of passes, and the same passes take it half as long again.

Threads: a context, a module and a machine are used by one thread at a time. Calls release Python's lock.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from typing import Any

from torchport.errors import CompilationError
from torchport_cpu.host import HostInfo

__all__ = ["ASSEMBLY", "OBJECT", "compile_ir"]

ASSEMBLY, OBJECT = 0, 1  # LLVMCodeGenFileType
_DEFAULT, _PIC, _ANY_MODEL = 2, 2, 0  # LLVMCodeGenOptLevel, LLVMRelocMode, LLVMCodeModel
_RETURN_STATUS = 2  # LLVMVerifierFailureAction
_ERROR = 0  # LLVMDiagnosticSeverity
_TARGETS = {"x86_64": "X86", "aarch64": "AArch64", "arm64": "AArch64"}

_DIAGNOSTIC = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)
_SIGNATURES: dict[str, tuple[Any, ...]] = {  # result, arguments; texts that are to be freed are void pointers
    "LLVMContextCreate": (c_void_p,),
    "LLVMContextDispose": (None, c_void_p),
    "LLVMContextSetDiagnosticHandler": (None, c_void_p, _DIAGNOSTIC, c_void_p),
    "LLVMGetDiagInfoDescription": (c_void_p, c_void_p),
    "LLVMGetDiagInfoSeverity": (c_int, c_void_p),
    "LLVMCreateMemoryBufferWithMemoryRange": (c_void_p, c_char_p, c_size_t, c_char_p, c_int),
    "LLVMParseIRInContext": (c_int, c_void_p, c_void_p, POINTER(c_void_p), POINTER(c_void_p)),
    "LLVMVerifyModule": (c_int, c_void_p, c_int, POINTER(c_void_p)),
    "LLVMDisposeModule": (None, c_void_p),
    "LLVMSetTarget": (None, c_void_p, c_char_p),
    "LLVMSetModuleDataLayout": (None, c_void_p, c_void_p),
    "LLVMGetFirstFunction": (c_void_p, c_void_p),
    "LLVMGetNextFunction": (c_void_p, c_void_p),
    "LLVMIsDeclaration": (c_int, c_void_p),
    "LLVMGetValueName2": (c_void_p, c_void_p, POINTER(c_size_t)),
    "LLVMGetTargetFromTriple": (c_int, c_char_p, POINTER(c_void_p), POINTER(c_void_p)),
    "LLVMCreateTargetMachine": (c_void_p, c_void_p, c_char_p, c_char_p, c_char_p, c_int, c_int, c_int),
    "LLVMDisposeTargetMachine": (None, c_void_p),
    "LLVMCreateTargetDataLayout": (c_void_p, c_void_p),
    "LLVMDisposeTargetData": (None, c_void_p),
    "LLVMCreatePassBuilderOptions": (c_void_p,),
    "LLVMDisposePassBuilderOptions": (None, c_void_p),
    "LLVMRunPasses": (c_void_p, c_void_p, c_char_p, c_void_p, c_void_p),
    "LLVMGetErrorMessage": (c_void_p, c_void_p),
    "LLVMDisposeErrorMessage": (None, c_void_p),
    "LLVMTargetMachineEmitToMemoryBuffer": (
        c_int, c_void_p, c_void_p, c_int, POINTER(c_void_p), POINTER(c_void_p),
    ),
    "LLVMGetBufferStart": (c_void_p, c_void_p),
    "LLVMGetBufferSize": (c_size_t, c_void_p),
    "LLVMDisposeMemoryBuffer": (None, c_void_p),
    "LLVMDisposeMessage": (None, c_void_p),
}  # fmt: skip


@functools.cache
def _library() -> Any:
    """The functions of ``_SIGNATURES``, looked up in what the MLIR bindings depend on."""
    import mlir._mlir_libs._mlir as bindings

    library = ctypes.CDLL(bindings.__file__)
    try:
        for name, (result, *arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise CompilationError(f"the LLVM of the MLIR bindings lacks a part of its C API: {error}") from error
    return library


@functools.cache
def _initialise(architecture: str) -> None:
    for part in ("TargetInfo", "Target", "TargetMC", "AsmPrinter", "AsmParser"):
        getattr(_library(), f"LLVMInitialize{_TARGETS[architecture]}{part}")()


def _text(message: c_void_p) -> str:
    """A message of LLVM's, which is freed."""
    text = ctypes.string_at(message.value or b"").decode(errors="replace")
    _library().LLVMDisposeMessage(message)
    return text


_threads = threading.local()


@dataclass(frozen=True)
class _Machine:
    """A target machine, its data layout, and options of pass managers; freed with the thread that made them."""

    target: Any
    layout: Any
    options: Any


def _free(target: Any, layout: Any, options: Any) -> None:
    llvm = _library()
    llvm.LLVMDisposePassBuilderOptions(options)
    llvm.LLVMDisposeTargetData(layout)
    llvm.LLVMDisposeTargetMachine(target)


def _machine(host: HostInfo) -> _Machine:
    """This thread's machine for ``host``."""
    known: dict[HostInfo, _Machine] = _threads.__dict__.setdefault("machines", {})
    if host not in known:
        llvm = _library()
        _initialise(host.triple.split("-", 1)[0])
        target, message = c_void_p(), c_void_p()
        triple = host.triple.encode()
        if llvm.LLVMGetTargetFromTriple(triple, byref(target), byref(message)):
            raise CompilationError(f"LLVM has no target {host.triple}: {_text(message)}", stage="llir")
        machine = llvm.LLVMCreateTargetMachine(
            target, triple, host.cpu.encode(), host.features.encode(), _DEFAULT, _PIC, _ANY_MODEL
        )
        parts = machine, llvm.LLVMCreateTargetDataLayout(machine), llvm.LLVMCreatePassBuilderOptions()
        known[host] = _Machine(*parts)
        weakref.finalize(known[host], _free, *parts).atexit = False
    return known[host]


@contextmanager
def _context(errors: list[str]) -> Iterator[Any]:
    """A context for one module. LLVM would end the process on errors in code generation; they go to ``errors``."""
    llvm = _library()

    def note(information: int, _: int) -> None:
        if llvm.LLVMGetDiagInfoSeverity(information) == _ERROR:
            errors.append(_text(c_void_p(llvm.LLVMGetDiagInfoDescription(information))))

    handler = _DIAGNOSTIC(note)
    context = llvm.LLVMContextCreate()
    llvm.LLVMContextSetDiagnosticHandler(context, handler, None)
    try:
        yield context
    finally:
        llvm.LLVMContextDispose(context)


@contextmanager
def _parsed(llvm_ir: str, context: Any, host: HostInfo) -> Iterator[Any]:
    """A verified module for ``host``."""
    llvm = _library()
    text = llvm_ir.encode()
    module, message = c_void_p(), c_void_p()
    buffer = llvm.LLVMCreateMemoryBufferWithMemoryRange(text, len(text), b"kernel", 1)  # the parser frees it
    if llvm.LLVMParseIRInContext(context, buffer, byref(module), byref(message)):
        raise CompilationError(f"LLVM rejects the kernel's IR: {_text(message)}", stage="llir")
    try:
        llvm.LLVMSetTarget(module, host.triple.encode())
        llvm.LLVMSetModuleDataLayout(module, _machine(host).layout)
        bad = llvm.LLVMVerifyModule(module, _RETURN_STATUS, byref(message))
        reason = _text(message)
        if bad:
            raise CompilationError(f"LLVM rejects the kernel's IR: {reason}", stage="llir")
        yield module
    finally:
        llvm.LLVMDisposeModule(module)


def _declared(module: Any) -> list[str]:
    """The names of functions without a body, intrinsics apart, sorted."""
    llvm = _library()
    names = []
    function = llvm.LLVMGetFirstFunction(module)
    while function:
        if llvm.LLVMIsDeclaration(function):
            length = c_size_t()
            start = llvm.LLVMGetValueName2(function, byref(length))
            names.append(ctypes.string_at(start, length.value).decode())
        function = llvm.LLVMGetNextFunction(function)
    return sorted(name for name in names if not name.startswith("llvm."))


def compile_ir(llvm_ir: str, host: HostInfo, passes: str, kind: int) -> tuple[bytes, list[str]]:
    """Compile LLVM IR text for ``host``.

    passes: what runs before code generation, as LLVM's ``opt -passes`` takes it.
    kind: OBJECT, position-independent, or ASSEMBLY.

    Returns the code, and the names of the functions that are declared after the passes, without intrinsics.
    Raises CompilationError if LLVM rejects the IR or cannot compile it.
    """
    llvm = _library()
    machine = _machine(host)
    errors: list[str] = []
    with _context(errors) as context, _parsed(llvm_ir, context, host) as module:
        failure = llvm.LLVMRunPasses(module, passes.encode(), machine.target, machine.options)
        if failure:
            message = llvm.LLVMGetErrorMessage(failure)
            reason = ctypes.string_at(message).decode(errors="replace")
            llvm.LLVMDisposeErrorMessage(message)
            raise CompilationError(f"LLVM's passes cannot run: {reason}", stage="llir")
        declared = _declared(module)
        buffer, message = c_void_p(), c_void_p()
        if llvm.LLVMTargetMachineEmitToMemoryBuffer(machine.target, module, kind, byref(message), byref(buffer)):
            errors.append(_text(message))
            code = b""
        else:
            code = ctypes.string_at(llvm.LLVMGetBufferStart(buffer), llvm.LLVMGetBufferSize(buffer))
            llvm.LLVMDisposeMemoryBuffer(buffer)
    if errors:
        raise CompilationError(f"LLVM cannot compile the kernel: {'; '.join(errors)}", stage="llir")
    return code, declared
