"""TTIR to linalg."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torchport_passes.frontend.importer import import_ttir

from torchport.errors import CompilationError, UnsupportedOperation
from torchport_linalg.analysis.buffers import Buffers, is_pointer
from torchport_linalg.assertions import assertion
from torchport_linalg.control import CONTROL, carried, plain
from torchport_linalg.generic import Body, elementwise, filled
from torchport_linalg.kernel import Argument, Kernel
from torchport_linalg.lanes import LANES
from torchport_linalg.memory import MEMORY
from torchport_linalg.prepare import prepare
from torchport_linalg.products import dot
from torchport_linalg.profiles import Profile
from torchport_linalg.scalars import SCALARS, element_of
from torchport_linalg.scaled import dot_scaled
from torchport_linalg.shapes import SHAPES
from torchport_linalg.text import Pointer, Value

__all__ = ["Exported", "export"]

_KERNEL = re.compile(r"tt\.func public @([\w.$]+|\"[^\"]+\")\((.*)$", re.MULTILINE)
_ARGUMENT = re.compile(r"%[\w.$-]+: (!tt\.ptr<(?:[^<>]|<[^<>]*>)*>|[\w]+)")
_AXES = 3


@dataclass(frozen=True)
class Exported:
    """A kernel as linalg.

    text: the module.
    name: of its function.
    arguments: the kernel's arguments, in order, before the six numbers of the grid.
    accesses: how many accesses of each operation have which reason to be unstructured; an empty reason: structured.
    externals: functions of C's library that it calls.
    """

    text: str
    name: str
    arguments: tuple[Argument, ...]
    accesses: Mapping[tuple[str, str], int]
    externals: tuple[str, ...]


def export(ttir: str, profile: Profile) -> Exported:
    """Write a kernel in a profile's convention.

    ``ttir``: a module as Triton prints it, without locations.
    Raises UnsupportedOperation, with operation, reason and place, for what has no form in it.
    """
    found = _KERNEL.search(ttir)
    if found is None:
        raise CompilationError("the TTIR has no kernel", stage="export")
    name = found.group(1).strip('"')
    module = import_ttir(ttir, keep_pointees=True)
    arguments = [_argument(text) for text in _ARGUMENT.findall(found.group(2))]
    with module.context:
        block = prepare(module).regions[0].blocks[0]
        x = Kernel(arguments, profile, Buffers(block), _write)
        for number, (argument, declared) in enumerate(zip(block.arguments, x.arguments, strict=True)):
            if declared.pointer:
                x.set(argument, Pointer(frozenset([number])))
            else:
                x.set(argument, Value(f"%arg{number + profile.leading}", declared.element))
        _write(x, block)
    x.w.op("return", effect=True)
    x.w.block.prune(set())
    return Exported(_module(x, name), name, x.arguments, Counter(x.notes), tuple(sorted(x.w.declared)))


def _argument(text: str) -> Argument:
    return Argument(text[len("!tt.ptr<") : -1], True) if text.startswith("!tt.ptr<") else Argument(text, False)


def _write(x: Kernel, block: Any) -> None:
    """Write the operations of a block but its terminator."""
    *operations, _ = (op.operation for op in block.operations)
    for op in operations:
        try:
            _one(x, op)
        except UnsupportedOperation as error:
            place = error.location or str(op.location)
            raise UnsupportedOperation(error.operation, error.reason, location=place) from error


def _one(x: Kernel, op: Any) -> None:
    if op.name in CONTROL:
        CONTROL[op.name](x, op, _write)
    elif any(is_pointer(v) for v in (*op.operands, *op.results)) and op.name in _POINTERS:
        _POINTERS[op.name](x, op)
    elif op.name in SCALARS:
        rule = SCALARS[op.name]
        inputs = [x.get(value) for value in op.operands]
        elements = [element_of(result.type) for result in op.results]
        made = elementwise(x.w, inputs, elements, lambda w, args: rule(w, op, args))
        for result, value in zip(op.results, made, strict=True):
            x.set(result, value)
    elif op.name in _TABLE:
        _TABLE[op.name](x, op)
    else:
        raise UnsupportedOperation(op.name, "it has no form in linalg yet")


def _program(*, count: bool) -> Callable[[Kernel, Any], None]:
    def rule(x: Kernel, op: Any) -> None:
        from mlir import ir

        x.set(op.results[0], x.program(int(ir.IntegerAttr(op.attributes["axis"]).value), count=count))

    return rule


def _poison(x: Kernel, op: Any) -> None:
    """A value that nobody reads: a path that does not define it."""
    result = op.results[0]
    element, shape = element_of(result.type), x.shape(result)
    if element == "!llvm.ptr":
        x.set(result, Pointer(frozenset(), None, shape))
        return
    zero = x.w.zero(element)
    x.set(result, zero if shape is None else filled(x.w, zero, shape))


def _hint(x: Kernel, op: Any) -> None:
    """``tl.assume`` computes nothing, and linalg has no word for it."""


def _cast_pointer(x: Kernel, op: Any) -> None:
    x.set(op.results[0], x.pointer(op.operands[0]))


def _choose_pointer(x: Kernel, op: Any) -> None:
    """``arith.select`` of pointers: of their offsets, and of memrefs where they are of different arguments."""
    condition, result = x.get(op.operands[0]), op.results[0]
    sides = [plain(x, value, result) for value in list(op.operands)[1:]]
    if len(sides[0]) > 1 and condition.shape is not None:
        raise UnsupportedOperation("arith.select", "its lanes choose between pointers to different arguments")
    pairs = [[condition, *pair] for pair in zip(*sides, strict=True)]
    x.set(result, carried(x, result, [elementwise(x.w, p, [p[1].element], _select(op))[0] for p in pairs]))


def _select(op: Any) -> Body:
    return lambda w, values: SCALARS["arith.select"](w, op, values)


_POINTERS: Mapping[str, Callable[[Kernel, Any], None]] = MappingProxyType(
    {"tt.bitcast": _cast_pointer, "arith.select": _choose_pointer}
)
_TABLE: Mapping[str, Callable[[Kernel, Any], None]] = MappingProxyType(
    {
        **SHAPES,
        **MEMORY,
        **LANES,
        "tt.assert": assertion,
        "tt.dot": dot,
        "tt.dot_scaled": dot_scaled,
        "tt.get_program_id": _program(count=False),
        "tt.get_num_programs": _program(count=True),
        "ub.poison": _poison,
        "llvm.intr.assume": _hint,
    }
)


def _module(x: Kernel, name: str) -> str:
    """The text around the kernel's operations."""
    profile = x.profile
    parameters = ["memref<?xi8>"] * profile.leading
    for number, argument in enumerate(x.arguments):
        if not argument.pointer:
            parameters.append(argument.element)
            continue
        attributes = ""
        if profile.argument:
            attributes = f" {{{profile.argument.format(kind=1 if number in x.written else 0)}}}"
        # A pointer to pointers that nobody follows is a buffer of bytes.
        opaque = argument.element.startswith("!")
        parameters.append(profile.buffer("i8" if opaque else x.element(number)) + attributes)
    parameters += ["i32"] * (2 * _AXES)
    signature = ", ".join(f"%arg{i}: {text}" for i, text in enumerate(parameters))
    text = "\n".join(x.w.block.lines("    "))
    mix = "mix" if "linalg.matmul" in text or "linalg.batch_matmul" in text else "aiv"
    attributes = f" attributes {{{profile.function.format(mix=mix)}}}" if profile.function else ""
    symbol = name if re.fullmatch(r"[\w.$]+", name) else f'"{name}"'
    declared = "".join(f"  func.func private @{f}{type_}\n" for f, type_ in sorted(x.w.declared.items()))
    return f"module {{\n{declared}  func.func @{symbol}({signature}){attributes} {{\n{text}\n  }}\n}}\n"


def accesses(exported: Sequence[Exported]) -> Counter[tuple[str, str]]:
    """The verdicts of several kernels together."""
    total: Counter[tuple[str, str]] = Counter()
    for one in exported:
        total.update(one.accesses)
    return total
