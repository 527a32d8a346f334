"""Compiles one elementwise operation to a native loop over numpy arrays, for accuracy tests and tools.

Development code: no kernel goes through it. It needs llvmlite, numpy and torch (whose libtorch_cpu has Sleef).
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["compile_elementwise", "host_vector_bits", "through_f64"]

_NUMPY = {"f16": "float16", "bf16": "uint16", "f32": "float32", "f64": "float64", "i1": "bool"}
_CONVERSIONS = (
    "builtin.module(convert-scf-to-cf,convert-vector-to-llvm,convert-math-to-llvm,convert-arith-to-llvm,"
    "convert-cf-to-llvm,convert-func-to-llvm,reconcile-unrealized-casts)"
)


def host_vector_bits() -> int:
    """The widest vector register of this machine, in bits."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return 512 if features.get("avx512f") else 256 if features.get("avx") else 128


def numpy_type(element: str) -> str:
    """The numpy type an MLIR element type is stored as (bf16 and fp8 as unsigned integers of their width)."""
    if element in _NUMPY:
        return _NUMPY[element]
    return "uint8" if element.startswith("f8") else "int" + element[1:]


def through_f64(module: Any) -> int:
    """Make f64 sums, rounded to f32, of what ``lower-math`` marked with ``tp.through_f64``. Returns how many there are.

    A product of two f32 is exact in f64, so the result is rounded twice, where a fused multiply-add rounds once.
    """
    from mlir import ir
    from mlir.dialects import arith

    from torchport_passes.ir.ops import matching

    marked = [op for op in matching(module, "math.fma".__eq__) if "tp.through_f64" in op.attributes]
    for op in marked:
        with module.context, ir.InsertionPoint(op), ir.Location.unknown():
            type_ = op.results[0].type
            wide = (
                ir.VectorType.get(type_.shape, ir.F64Type.get())
                if isinstance(type_, ir.VectorType)
                else ir.F64Type.get()
            )
            a, b, c = (arith.ExtFOp(wide, operand).result for operand in op.operands)
            total = arith.AddFOp(arith.MulFOp(a, b).result, c).result
            op.results[0].replace_all_uses_with(arith.TruncFOp(type_, total).result)
            op.erase()
    return len(marked)


def compile_elementwise(
    body: str,
    operands: Sequence[str],
    result: str,
    passes: Sequence[Any],
    lanes: int = 16,
    dump: Callable[[str], object] | None = None,
) -> Callable[..., Any]:
    """A function of numpy arrays of equal sizes, multiples of ``lanes``, that computes ``body`` on each element.

    ``body``: MLIR text that defines ``%r`` from ``%a``, ``%b``, ...; in it ``T0``, ``T1``, ... stand for the (vector)
    types of the operands, and ``R`` for that of the result.
    ``operands``, ``result``: element types (``f32``, ``bf16``, ``i64``).
    ``passes``: run in order.
    ``lanes``: 0 for scalar code.
    ``dump``: called with the LLVM IR, then with the assembly.
    """
    import numpy as np
    from mlir import ir
    from mlir.dialects import llvm
    from mlir.passmanager import PassManager

    context = ir.Context()
    context.allow_unregistered_dialects = True
    module = ir.Module.parse(_kernel(body, operands, result, lanes), context)
    for pass_ in passes:
        pass_.apply(module)
        module.operation.verify()
    with context:
        PassManager.parse(_CONVERSIONS).run(module.operation)
    engine, address = _jit(llvm.translate_module_to_llvmir(module.operation), dump)
    native = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(operands) + 1), ctypes.c_int64)(address)

    def run(*arrays: Any) -> Any:
        arrays = tuple(np.ascontiguousarray(a, numpy_type(t)) for a, t in zip(arrays, operands, strict=True))
        size = arrays[0].size
        if size % max(lanes, 1):
            raise ValueError(f"size {size} is not a multiple of {lanes} lanes")
        out = np.empty(arrays[0].shape, numpy_type(result))
        native(out.ctypes.data, *(a.ctypes.data for a in arrays), size)
        return out

    run.engine = engine  # type: ignore[attr-defined]  # the code lives as long as the function
    return run


def _kernel(body: str, operands: Sequence[str], result: str, lanes: int) -> str:
    """The loop around ``body`` as MLIR text."""

    def shaped(element: str) -> str:
        return f"vector<{lanes}x{element}>" if lanes else element

    # A vector of i1 is packed in memory: store bytes.
    stored = "i8" if result == "i1" else result
    for index in range(len(operands) - 1, -1, -1):
        body = body.replace(f"T{index}", shaped(operands[index]))
    body = body.replace("R", shaped(result))
    if result == "i1":
        body += f"\n%r8 = arith.extui %r : {shaped('i1')} to {shaped('i8')}"
    names = "abcdefgh"
    pointers = "".join(f", %p{n}: !llvm.ptr" for n in names[: len(operands)])
    loads = ""
    for n, element in zip(names, operands, strict=False):
        loads += f"%q{n} = llvm.getelementptr %p{n}[%i] : (!llvm.ptr, i64) -> !llvm.ptr, {_memory(element)}\n"
        loads += _load(f"%{n}", f"%q{n}", element, shaped)
    return f"""
    func.func @kernel(%out: !llvm.ptr{pointers}, %n: i64) {{
      %zero = arith.constant 0 : i64
      %step = arith.constant {max(lanes, 1)} : i64
      scf.for %i = %zero to %n step %step : i64 {{
        {loads}
        {body}
        %qr = llvm.getelementptr %out[%i] : (!llvm.ptr, i64) -> !llvm.ptr, {_memory(stored)}
        {_store("%r8" if result == "i1" else "%r", stored, shaped)}
      }}
      return
    }}"""


def _memory(element: str) -> str:
    return "i8" if element.startswith("f8") else element


def _load(name: str, pointer: str, element: str, shaped: Callable[[str], str]) -> str:
    memory = _memory(element)
    if memory == element:
        return f"{name} = llvm.load {pointer} {{alignment = 1 : i64}} : !llvm.ptr -> {shaped(element)}\n"
    return (
        f"{name}m = llvm.load {pointer} {{alignment = 1 : i64}} : !llvm.ptr -> {shaped(memory)}\n"
        f"{name} = arith.bitcast {name}m : {shaped(memory)} to {shaped(element)}\n"
    )


def _store(name: str, element: str, shaped: Callable[[str], str]) -> str:
    memory = _memory(element)
    if memory == element:
        return f"llvm.store {name}, %qr {{alignment = 1 : i64}} : {shaped(element)}, !llvm.ptr"
    return (
        f"%rm = arith.bitcast {name} : {shaped(element)} to {shaped(memory)}\n"
        f"llvm.store %rm, %qr {{alignment = 1 : i64}} : {shaped(memory)}, !llvm.ptr"
    )


def _jit(ir_text: str, dump: Callable[[str], object] | None) -> tuple[Any, int]:
    import torch
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    features = binding.get_host_cpu_features().flatten()
    machine = target.create_target_machine(cpu=binding.get_host_cpu_name(), features=features, opt=3)
    module = binding.parse_assembly(ir_text)
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    binding.create_pass_builder(machine, options).getModulePassManager().run(
        module, binding.create_pass_builder(machine, options)
    )
    if dump is not None:
        dump(str(module))
        dump(machine.emit_assembly(module))
    sleef = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    for function in module.functions:
        if function.is_declaration and not function.name.startswith("llvm."):
            library = sleef if function.name.startswith("Sleef_") else libm
            binding.add_symbol(function.name, ctypes.cast(getattr(library, function.name), ctypes.c_void_p).value)
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine, engine.get_function_address("kernel")
