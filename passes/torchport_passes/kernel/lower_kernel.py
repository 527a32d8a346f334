"""Gives a kernel the native calling convention, and lowers its scalar Triton operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlir import ir
from mlir.dialects import arith, func, llvm, scf

from torchport.errors import UnsupportedOperation
from torchport_passes.ir.atomics import atomic_scalar, guarded
from torchport_passes.ir.build import (
    byte_width,
    from_storage,
    if_else,
    is_pointer,
    offset_pointer,
    plain_load,
    storage_type,
    to_storage,
    zero_of,
)
from torchport_passes.ir.constants import Constants, declare
from torchport_passes.ir.elementwise import elementwise
from torchport_passes.ir.ops import constant_int, function_of, int_attribute, matching, terminator_of, text_attribute
from torchport_passes.ir.traits import ATOMICS, ELEMENTWISE, MASKS, PROGRAM_IDS
from torchport_passes.ir.types import Module, Op, Type, Value

__all__ = ["LowerKernel"]

_STACK_BYTES = 64 * 1024  # larger buffers are on the heap
_STACK_IN_ALL = 512 * 1024  # so are buffers beyond this sum: a thread has a few megabytes
_BUFFER_ALIGNMENT = 64
_FAIL = "torchport_assert_fail"
_SHORT = 100
"""Operations of a program that is inlined: a sum of a few rows has 36, a variance of a row 60."""
_STEPS = 16
"""Steps of the one loop that a program may have which is inlined: a row of 512 values in vectors of 32."""
_CALLED = frozenset({"scf.while", "llvm.call_intrinsic"})


@dataclass(frozen=True)
class LowerKernel:
    """Turn the kernel function into ``NAME(args, grid, begin, end)`` (docs/architecture.md, "The CPU kernel ABI").

    Takes IR without tensors. The kernel's body becomes the private function ``NAME.program`` of the arguments, the
    three program ids, the three grid sizes and their product; ``NAME`` reads the arguments from their slots and calls
    it for each program instance in ``[begin, end)``, or has a short one inlined. Scalar ``tt`` operations become arith
    and llvm ones, ``tp.buffer`` stack or heap memory.
    """

    name: ClassVar[str] = "lower-kernel"
    removes: ClassVar[frozenset[str]] = frozenset({"tp.buffer", "tp.programs", "tt."})

    def apply(self, module: Module) -> None:
        with module.context, ir.Location.unknown():
            functions = [f.operation for f in module.body.operations if f.operation.name == "func.func"]
            strings = Constants(module, "message")
            for function in functions:
                if len(function.regions[0].blocks) == 0:
                    continue
                public = "sym_visibility" not in function.attributes
                ids = _program_arguments(function) if public else []
                _Scalars(ids, strings).all_of(function)
                _buffers(module, function)
                if public:
                    _wrap(module, function)


def _i32() -> Type:
    return ir.IntegerType.get_signless(32)


def _program_arguments(function: Op) -> list[Value]:
    """Append arguments: six i32 for program ids and grid sizes in x, y, z, and an i64 for the number of programs."""
    entry = function.regions[0].blocks[0]
    ids = [entry.add_argument(_i32(), ir.Location.unknown()) for _ in range(6)]
    ids.append(entry.add_argument(ir.IntegerType.get_signless(64), ir.Location.unknown()))
    types = [a.type for a in entry.arguments]
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, []))
    if "arg_attrs" in function.attributes:
        del function.attributes["arg_attrs"]
    return ids


class _Scalars:
    """Lowers the scalar ``tt`` operations of a function. ``ids``: program ids and grid sizes, if it is a kernel."""

    def __init__(self, ids: list[Value], strings: Constants) -> None:
        self.ids = ids
        self.strings = strings

    def all_of(self, function: Op) -> None:
        """Lower the operations of a function, nested ones first."""
        for op in matching(function, lambda name: name.startswith(("tt.", "ub.", "tp.programs"))):
            with ir.InsertionPoint(op):
                results = self.lower(op)
            for old, new in zip(op.results, results, strict=True):
                old.replace_all_uses_with(new)
            op.erase()

    def lower(self, op: Op) -> list[Value]:
        """Emit what replaces an operation; returns the values of its results."""
        operands, name = list(op.operands), op.name
        if name in PROGRAM_IDS or name == "tp.programs":
            if not self.ids:
                raise UnsupportedOperation(name, "it is in a function that is not inlined")
            if name == "tp.programs":
                return [self.ids[6]]
            axis = int_attribute(op, "axis")
            return [self.ids[axis + (3 if name == "tt.get_num_programs" else 0)]]
        if name == "tt.addptr":
            return [offset_pointer(operands[0], operands[1], op)]
        if name == "tt.load":
            return [_load(op)]
        if name == "tt.store":
            _store(op)
            return []
        if name in ATOMICS:
            return [_atomic(op)]
        if name == "tt.assert":
            self.assertion(op)
            return []
        if name in ELEMENTWISE:
            return [elementwise(op, operands, op.results[0].type)]
        raise UnsupportedOperation(name, "the CPU target has no lowering for it")

    def assertion(self, op: Op) -> None:
        """Call the runtime if the condition is false."""
        message = text_attribute(op, "message")
        declare(self.strings.module, _FAIL, [ir.Type.parse("!llvm.ptr")], [])
        one = arith.ConstantOp(ir.IntegerType.get_signless(1), 1).result
        branch = scf.IfOp(arith.XOrIOp(op.operands[0], one).result)
        with ir.InsertionPoint(branch.then_block):
            func.CallOp([], _FAIL, [self.strings.text(message)])
            scf.YieldOp([])


def _load(op: Op) -> Value:
    type_ = op.results[0].type
    operands = list(op.operands)

    def load() -> Value:
        stored = type_ if is_pointer(type_) else storage_type(type_)
        value = plain_load(stored, operands[0], byte_width(stored), "volatile" in op.attributes)
        return from_storage(value, type_)

    if len(operands) == 1:
        return load()
    other = operands[2] if len(operands) > 2 else None
    return if_else(operands[1], type_, load, lambda: other if other is not None else zero_of(type_))


def _store(op: Op) -> None:
    operands = list(op.operands)
    value = operands[1] if is_pointer(operands[1].type) else to_storage(operands[1])
    bytes_ = byte_width(value.type)
    if len(operands) == 2:
        llvm.StoreOp(value, operands[0], alignment=bytes_)
        return
    branch = scf.IfOp(operands[2])
    with ir.InsertionPoint(branch.then_block):
        llvm.StoreOp(value, operands[0], alignment=bytes_)
        scf.YieldOp([])


def _atomic(op: Op) -> Value:
    operands = list(op.operands)
    count = MASKS[op.name]
    mask = operands[count] if len(operands) > count else None
    type_ = op.results[0].type
    kind = "all" if mask is None else "scalar"
    return guarded(kind, mask, type_, lambda: atomic_scalar(op, operands[0], operands[1:count]))


def _buffers(module: Module, function: Op) -> None:
    """``tp.buffer`` becomes stack memory, or part of a heap block that every return and failing assertion frees."""
    entry = function.regions[0].blocks[0]
    pointer, i64 = ir.Type.parse("!llvm.ptr"), ir.IntegerType.get_signless(64)
    stack = heap = 0
    places: list[tuple[Op, bool, int]] = []  # buffer, whether on the heap, offset there or else size
    for op in [o.operation for o in entry.operations if o.operation.name == "tp.buffer"]:
        element = ir.TypeAttr(op.attributes["element"]).value
        bytes_ = byte_width(element) * int_attribute(op, "count")
        padded = -(-bytes_ // _BUFFER_ALIGNMENT) * _BUFFER_ALIGNMENT
        if bytes_ <= _STACK_BYTES and stack + padded <= _STACK_IN_ALL:
            stack += padded
            places.append((op, False, bytes_))
        else:
            places.append((op, True, heap))
            heap += padded
    with ir.InsertionPoint.at_block_begin(entry):
        block = None
        if heap:
            declare(module, "aligned_alloc", [i64, i64], [pointer])
            declare(module, "free", [pointer], [])
            sizes = [arith.ConstantOp(i64, n).result for n in (_BUFFER_ALIGNMENT, heap)]
            block = func.CallOp([pointer], "aligned_alloc", sizes).result
        byte = ir.IntegerType.get_signless(8)
        memories = [
            llvm.GEPOp(pointer, block, [], [number], byte, 0).result if on_heap else _on_stack(number)
            for _, on_heap, number in places
        ]
    for (op, _, _), memory in zip(places, memories, strict=True):
        op.results[0].replace_all_uses_with(memory)
        op.erase()
    if block is not None:
        for inner in function.regions[0].blocks:
            last = terminator_of(inner)
            if last.name == "func.return":
                with ir.InsertionPoint(last):
                    func.CallOp([], "free", [block])
        for call in matching(module, "func.call".__eq__):
            if ir.FlatSymbolRefAttr(call.attributes["callee"]).value == _FAIL and function_of(call) == function:
                with ir.InsertionPoint(call):
                    func.CallOp([], "free", [block])  # the runtime leaves the kernel without a return


def _on_stack(size: int) -> Value:
    """Stack memory of ``size`` bytes.

    It has a marked lifetime, though no end: LLVM 22.1 merges vectors that are stored in memory without one, and puts
    the result before the last of them if they are not stored in order (llvm/llvm-project#189680).
    """
    pointer, i64, byte = ir.Type.parse("!llvm.ptr"), *(ir.IntegerType.get_signless(bits) for bits in (64, 8))
    memory = llvm.AllocaOp(pointer, arith.ConstantOp(i64, size).result, byte, alignment=_BUFFER_ALIGNMENT).result
    llvm.LifetimeStartOp(memory)
    return memory


def _wrap(module: Module, function: Op) -> None:
    """Add the exported function: it reads arguments from slots, and loops over program instances."""
    name = text_attribute(function, "sym_name")
    function.attributes["sym_name"] = ir.StringAttr.get(f"{name}.program")
    function.attributes["sym_visibility"] = ir.StringAttr.get("private")
    if _is_short(function):
        function.attributes["passthrough"] = ir.ArrayAttr.get([ir.StringAttr.get("alwaysinline")])
    function.attributes["llvm.linkage"] = ir.Attribute.parse("#llvm.linkage<internal>")
    pointer, i64, i32 = ir.Type.parse("!llvm.ptr"), ir.IntegerType.get_signless(64), _i32()
    types = [a.type for a in function.regions[0].blocks[0].arguments][:-7]
    with ir.InsertionPoint(module.body):
        wrapper = func.FuncOp(name, ([pointer, pointer, i64, i64], []))
    block = wrapper.add_entry_block()
    args, grid, begin, end = block.arguments
    with ir.InsertionPoint(block):
        values = []
        for i, type_ in enumerate(types):
            slot = llvm.GEPOp(pointer, args, [], [i], i64, 0).result
            if str(type_) == "i1":
                values.append(arith.TruncIOp(type_, plain_load(ir.IntegerType.get_signless(8), slot, 1)).result)
            else:
                values.append(plain_load(type_, slot, byte_width(type_)))
        sizes = [plain_load(i32, llvm.GEPOp(pointer, grid, [], [i], i32, 0).result, 4) for i in range(3)]
        x0, y0, z0 = _start(begin, sizes)
        one64, one, zero = (
            arith.ConstantOp(i64, 1).result,
            arith.ConstantOp(i32, 1).result,
            arith.ConstantOp(i32, 0).result,
        )
        width, height, depth = (arith.ExtUIOp(i64, size).result for size in sizes)
        programs = arith.MulIOp(arith.MulIOp(width, height).result, depth).result
        loop = scf.ForOp(begin, end, one64, [x0, y0, z0])
        with ir.InsertionPoint(loop.body):
            x, y, z = loop.inner_iter_args
            func.CallOp([], f"{name}.program", [*values, x, y, z, *sizes, programs])
            nx = arith.AddIOp(x, one).result
            row = arith.CmpIOp(arith.CmpIPredicate.eq, nx, sizes[0]).result
            ny = arith.AddIOp(y, arith.SelectOp(row, one, zero).result).result
            plane = arith.CmpIOp(arith.CmpIPredicate.eq, ny, sizes[1]).result
            nz = arith.AddIOp(z, arith.SelectOp(plane, one, zero).result).result
            scf.YieldOp([arith.SelectOp(row, zero, nx).result, arith.SelectOp(plane, zero, ny).result, nz])
        if any("nontemporal" in op.attributes for op in matching(function, "llvm.store".__eq__)):
            _order_stores()
        func.ReturnOp([])


def _is_short(function: Op) -> bool:
    """Whether a call takes as long as what is called: few operations, no loop but one of few steps.

    A variance of a row of 256 values takes 30 ns, a call 10. In others the constants of all loops would be kept in
    registers from one program to the next: products and layers of transformers were 1 to 4 % slower inlined.
    Intrinsics without an operation of their own are ``llvm.fake.use``, which keeps masked stores right
    (``masked_store``), and which LLVM's inlining drops (CloneFunction.cpp).
    """
    operations = matching(function, lambda _: True)
    if len(operations) > _SHORT or any(op.name in _CALLED for op in operations):
        return False
    loops = [op for op in operations if op.name == "scf.for"]
    return not loops or (len(loops) == 1 and _has_few_steps(loops[0]))


def _has_few_steps(loop: Op) -> bool:
    first, last, step = (constant_int(bound) for bound in list(loop.operands)[:3])
    return first is not None and last is not None and step is not None and last - first <= _STEPS * step


def _order_stores() -> None:
    """Let stores around the caches, which x86 does not order with others, come before whatever says they are done."""
    attributes = {
        "intrin": ir.StringAttr.get("llvm.x86.sse.sfence"),
        "op_bundle_sizes": ir.DenseI32ArrayAttr.get([]),
        "operandSegmentSizes": ir.DenseI32ArrayAttr.get([0, 0]),
    }
    ir.Operation.create("llvm.call_intrinsic", [], [], attributes)


def _start(begin: Value, sizes: list[Value]) -> tuple[Value, Value, Value]:
    """The program ids of the linear index ``begin``, in which x changes fastest."""
    i64, i32 = ir.IntegerType.get_signless(64), _i32()
    width, height = (arith.ExtUIOp(i64, s).result for s in sizes[:2])
    x, row = arith.RemUIOp(begin, width).result, arith.DivUIOp(begin, width).result
    y, z = arith.RemUIOp(row, height).result, arith.DivUIOp(row, height).result
    a, b, c = (arith.TruncIOp(i32, v).result for v in (x, y, z))
    return a, b, c
