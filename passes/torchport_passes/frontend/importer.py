"""Imports Triton IR into upstream MLIR.

Triton's own bindings print ``tt`` operations in their pretty syntax only, and the upstream parser knows no ``tt``
dialect. Everything else in TTIR (``arith``, ``math``, ``scf``, ``cf``) is upstream already. So each ``tt`` line is
rewritten into MLIR's generic form, and the rest is left as it is.

What changes on the way in:

* ``tt.func``/``tt.return``/``tt.call`` become ``func.func``/``return``/``call``;
* ``!tt.ptr<T>`` becomes ``!llvm.ptr``; ``tt.addptr`` keeps the pointee's size as ``elem_bytes``;
* operations that Triton prints with keywords get them as attributes (``axis``, ``order``, ``rmw``, ``mask`` ...).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torchport.errors import UnsupportedOperation

__all__ = ["LOOP_HINTS", "NARROW_FLOATS", "import_ttir", "new_context", "to_generic"]

NARROW_FLOATS, LOOP_HINTS = "tp.narrow_floats", "tp.loop_hints"
_NOTED = {NARROW_FLOATS: ("bf16", "f8E", "tt.dot_scaled"), LOOP_HINTS: ("llvm.loop_annotation",)}

_POINTER = re.compile(r"!tt\.ptr<((?:[^<>]|<[^<>]*>)*)>")
_ATTRIBUTES = re.compile(r"\{[^{}]*\}")
_LINE = re.compile(r"^(\s*)((?:%[\w:]+(?:, %\w+)*) = )?tt\.([\w.]+)(.*)$")
_VALUE = re.compile(r"%[\w$.#-]+")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_CALL = re.compile(r"tt\.call @([\w.$]+|\"[^\"]*\")\((.*)\) :")
_BARRIER = re.compile(r"^\s*(?:gpu|ttg)\.barrier\b")

_BYTES = {"f64": 8, "i64": 8, "f32": 4, "i32": 4, "f16": 2, "bf16": 2, "i16": 2}


def _pointee(type_text: str) -> str:
    """The type that a pointer, or a tensor of pointers, points to."""
    found = _POINTER.search(type_text)
    if found is None:
        raise UnsupportedOperation("tt.addptr", f"cannot read the pointer type {type_text!r}")
    return found.group(1)


def _pointee_bytes(type_text: str) -> int:
    """The size in bytes of the type that a pointer, or a tensor of pointers, points to; one for booleans and fp8."""
    pointee = _pointee(type_text)
    return 8 if pointee.startswith("!tt.ptr") else _BYTES.get(pointee, 1)


def _split_types(text: str) -> list[str]:
    """``(T, T), T`` at the top level of angle brackets and parentheses."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        if c in "<([":
            depth += 1
        elif c in ">)]" and not (c == ">" and i > 0 and text[i - 1] == "-"):
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    parts.append(text[start:].strip())
    return [p for p in parts if p]


def _with_elements(tensor: str, element: str) -> str:
    """The same shape with another element type."""
    found = re.match(r"tensor<((?:\d+x)*)", tensor)
    return f"tensor<{found.group(1)}{element}>" if found else element


class _Line:
    """One pretty-printed operation, taken apart: ``result = tt.name body : signature``."""

    def __init__(self, name: str, rest: str, keep_pointees: bool = False) -> None:
        self.name = name
        self.keep_pointees = keep_pointees
        self.text = '""'  # a message, kept apart from the body, as it may contain anything
        if name in ("assert", "print") and (message := _STRING.search(rest)):
            self.text = message.group(0)
            rest = rest.replace(self.text, "", 1)
        body, _, signature = rest.rpartition(" : ")
        if not _:
            body, signature = rest, ""
        self.signature = signature.strip()
        found = _ATTRIBUTES.search(body)
        self.attributes = found.group(0)[1:-1].strip() if found else ""
        self.body = body.replace(found.group(0), "") if found else body
        self.values = _VALUE.findall(self.body)

    def op(self, operands: list[str], operand_types: list[str], results: str, *extra: str) -> str:
        attributes = ", ".join(a for a in (self.attributes, *extra) if a)
        braces = f" {{{attributes}}}" if attributes else ""
        return f'"tt.{self.name}"({", ".join(operands)}){braces} : ({", ".join(operand_types)}) -> {results}'


def _arrow(line: _Line) -> str:
    """``tt.x %a, %b {..} : (T, T) -> T`` and ``: T -> T``."""
    left, _, right = line.signature.partition(" -> ")
    left = left.strip()
    types = _split_types(left[1:-1] if left.startswith("(") else left)
    if len(types) == 1 and len(line.values) > 1:  # tt.join prints the type of one of its two equal operands
        types = types * len(line.values)
    if line.name == "bitcast" and line.keep_pointees and _POINTER.search(left):
        pointees = ", ".join(_POINTER.sub("!llvm.ptr", _pointee(type_)) for type_ in (left, right))
        return line.op(line.values, types, right.strip(), f"pointees = [{pointees}]")
    if line.name == "histogram" and len(types) > 1:  # the second operand is a mask
        types[1] = _with_elements(types[0], "i1")
    return line.op(line.values, types, right.strip() if right.strip() else "()", *_keywords(line))


def _keywords(line: _Line) -> list[str]:
    """Words Triton prints outside the attribute dictionary, as attributes."""
    words = []
    if found := re.search(r"rounding = (\w+)", line.body):
        words.append(f'rounding = "{found.group(1)}"')
    if line.name == "reshape" and "allow_reorder" in line.body:
        words.append("allow_reorder")
    return words


def _same(line: _Line) -> str:
    """``tt.x %a, %b : T``: every operand and the result have one type."""
    extra = []
    if found := re.search(r"propagateNan = (\w+)", line.body):
        extra.append(f'propagate_nan = "{found.group(1)}"')
    return line.op(line.values, [line.signature] * len(line.values), line.signature, *extra)


def _source(line: _Line) -> str:
    """No operands: ``tt.make_range {..} : T``, ``tt.get_program_id x : i32``."""
    axis = re.search(r"\b([xyz])\b", line.body)
    return line.op([], [], line.signature, f"axis = {'xyz'.index(axis.group(1))} : i32" if axis else "")


def _addptr(line: _Line) -> str:
    types = _split_types(line.signature)
    pointee = _POINTER.sub("!llvm.ptr", _pointee(types[0]))
    kept = f"pointee = {pointee}" if line.keep_pointees else ""
    return line.op(line.values, types, types[0], f"elem_bytes = {_pointee_bytes(types[0])} : i64", kept)


def _load(line: _Line) -> str:
    if "boundaryCheck" in line.attributes and "array<i32>" not in line.attributes:
        raise UnsupportedOperation("tt.load", "block pointers must be rewritten before import")
    pointer = line.signature
    found = _POINTER.search(pointer)
    if found is None:
        raise UnsupportedOperation("tt.load", f"cannot read the type {pointer!r}")
    pointee = found.group(1)
    value = _with_elements(pointer, pointee)
    types = [pointer, _with_elements(pointer, "i1"), value][: len(line.values)]
    volatile = "isVolatile = true" in line.attributes
    second = "cacheModifier = cg" in line.body
    line.attributes = ""  # other hints about caches have no meaning on a CPU
    words = ["volatile"] * volatile + ["second_cache"] * second
    return line.op(line.values, types, value, ", ".join(words))


def _store(line: _Line) -> str:
    found = _POINTER.search(line.signature)
    if found is None:
        raise UnsupportedOperation("tt.store", f"cannot read the type {line.signature!r}")
    pointee = found.group(1)
    types = [line.signature, _with_elements(line.signature, pointee), _with_elements(line.signature, "i1")]
    line.attributes = ""
    return line.op(line.values, types[: len(line.values)], "()")


def _atomic(line: _Line) -> str:
    words = [w.strip() for w in line.body.split("%", 1)[0].split(",") if w.strip()]
    kind = f'rmw = "{words[0]}"' if line.name == "atomic_rmw" else ""
    left, _, right = line.signature.partition(" -> ")
    return line.op(line.values, _split_types(left.strip()[1:-1]), right.strip(), kind, f'sem = "{words[-2]}"')


def _dot(line: _Line) -> str:
    left, _, result = line.signature.partition(" -> ")
    types = [t.strip() for t in left.split(" * ")]
    precision = re.search(r"inputPrecision = (\w+)", line.body)
    extra = f'input_precision = "{precision.group(1) if precision else "ieee"}"'
    return line.op(line.values, [*types, result.strip()], result.strip(), extra)


def _dot_scaled(line: _Line) -> str:
    """``tt.dot_scaled %a scale %s, %b scale %t, %c lhs = e2m1 rhs = e4m3 {..} : T, T * T, T -> T``; scales optional."""
    left, _, result = line.signature.partition(" -> ")
    types = [t for side in left.split(" * ") for t in _split_types(side)]
    a, b, c = line.body.split(",")
    operands = ["a", *(["a_scale"] if " scale " in a else []), "b", *(["b_scale"] if " scale " in b else []), "c"]
    formats = [f'{name} = "{found.group(1)}"' for name in ("lhs", "rhs") if (found := re.search(rf"{name} = (\w+)", c))]
    names = ", ".join(f'"{name}"' for name in operands)
    return line.op(line.values, [*types, result.strip()], result.strip(), f"operands = [{names}]", *formats)


def _message(line: _Line) -> str:
    """``tt.assert %c, "text" : T``."""
    return line.op(line.values, [line.signature] * len(line.values), "()", f"message = {line.text}")


def _print(line: _Line) -> str:
    """``tt.print " text: " {hex = .., isSigned = ..} : %a, %b : T, T``: one operation for each value printed.

    Narrow floating-point values are printed as f32. ``operand`` is -1 if there is one value or none.
    """
    prefix = f"prefix = {line.text}"
    is_hex = "true" if "hex = true" in line.attributes else "false"
    signs = re.search(r"isSigned = array<i32: ([\d, ]+)>", line.attributes)
    line.attributes = ""
    if not line.values:
        return line.op([], [], "()", prefix, "operand = -1 : i64")
    lines, values = [], line.values
    signed = signs.group(1).split(", ") if signs else ["1"] * len(values)
    for i, (value, type_, sign) in enumerate(zip(values, _split_types(line.signature), signed, strict=True)):
        narrow = re.search(r"(?:^|x)(?:b?f16|f8\w+)>?$", type_)
        if narrow and is_hex == "false":
            wide = f"%printed{i}_{value[1:].replace('#', '_')}"
            to = _with_elements(type_, "f32")
            lines.append(f"{wide} = arith.extf {value} : {type_} to {to}")
            value, type_ = wide, to
        operand = i if len(values) > 1 else -1
        extra = (
            prefix,
            f"hex = {is_hex}",
            f"signed = {'true' if sign == '1' else 'false'}",
            f"operand = {operand} : i64",
        )
        lines.append(line.op([value], [type_], "()", *extra))
    return "\n".join(lines)


def _asm(line: _Line) -> str:
    raise UnsupportedOperation(
        "tt.elementwise_inline_asm",
        "inline assembly is written for one kind of GPU; give the kernel a branch without it for other targets",
    )


def _return(line: _Line) -> str:
    return f"return{' ' + ', '.join(line.values) + ' : ' + line.signature if line.values else ''}"


def _region_return(line: _Line) -> str:
    return line.op(line.values, _split_types(line.signature), "()")


_FORMS: dict[str, Callable[[_Line], str]] = {
    **dict.fromkeys(("splat", "broadcast", "expand_dims", "reshape", "trans", "bitcast", "int_to_ptr",
                     "ptr_to_int", "fp_to_fp", "join", "cat", "histogram", "gather", "extern_elementwise"), _arrow),
    **dict.fromkeys(("clampf", "mulhiui", "precise_sqrt", "precise_divf"), _same),
    **dict.fromkeys(("make_range", "get_program_id", "get_num_programs"), _source),
    **dict.fromkeys(("reduce.return", "scan.return", "map_elementwise.return"), _region_return),
    "addptr": _addptr, "load": _load, "store": _store, "atomic_rmw": _atomic, "atomic_cas": _atomic, "dot": _dot,
    "dot_scaled": _dot_scaled,
    "assert": _message, "print": _print, "return": _return, "elementwise_inline_asm": _asm,
}  # fmt: skip


def _split(line: _Line) -> str:
    source, _, result = line.signature.partition(" -> ")
    return line.op(line.values, [source.strip()], f"({result.strip()}, {result.strip()})")


_FORMS["split"] = _split


def _unsplat(line: _Line) -> str:
    """``tt.unsplat %x : tensor<1xT>``: its one element."""
    element = re.sub(r"^tensor<(?:\d+x)*|>$", "", line.signature)
    return line.op(line.values, [line.signature], element)


_FORMS["unsplat"] = _unsplat


def to_generic(ttir: str, *, keep_barriers: bool = False, keep_pointees: bool = False) -> str:
    """TTIR as Triton prints it, rewritten so that the upstream MLIR parser reads it.

    ``keep_barriers``, ``keep_pointees``: see ``import_ttir``.
    Raises UnsupportedOperation for an unknown ``tt`` operation.
    """
    lines = []
    for text in ttir.splitlines():
        if _BARRIER.match(text):
            if keep_barriers:  # else they go: the operations of a program instance run in order
                lines.append('"tp.barrier"() {memory = "all"} : () -> ()')
            continue
        if "tt." in text:
            text = _generic_line(text, keep_pointees)
        lines.append(text)
    return "\n".join(lines)


def _generic_line(text: str, keep_pointees: bool) -> str:
    """One line of TTIR that holds an operation or type of ``tt``, in generic form."""
    if "tt.func" in text:
        text = re.sub(r"tt\.func (public|private)?", r"func.func \1", text).replace("func.func public", "func.func")
        text = re.sub(r"attributes \{noinline = \w+\}", "", text)
    elif "tt.call" in text:
        # generic as well: a registered call would look for its function from inside tt.reduce, and find none
        text = _CALL.sub(r'"tt.call"(\2) {callee = @\1} :', text)
    elif found := _LINE.match(text):
        indent, result, name, rest = found.groups()
        form = _FORMS.get(name)
        if form is None:
            raise UnsupportedOperation(f"tt.{name}", "the importer does not know this operation")
        text = f"{indent}{result or ''}{form(_Line(name, rest, keep_pointees))}"
    while "!tt.ptr<" in text:
        text = _POINTER.sub("!llvm.ptr", text)
    return text


def new_context() -> Any:
    """A context for torchport's passes: unregistered dialects allowed, no threads of its own (kernels are small)."""
    from mlir import ir

    context = ir.Context()
    context.allow_unregistered_dialects = True
    context.enable_multithreading(False)
    return context


def import_ttir(ttir: str, context: Any = None, *, keep_barriers: bool = False, keep_pointees: bool = False) -> Any:
    """Parse TTIR text into an upstream ``mlir.ir.Module``.

    ``ttir``: one module as Triton prints it, block pointers and tensor descriptors already rewritten.
    ``keep_barriers``: barriers become ``tp.barrier``; otherwise they go, as one thread runs all of a program instance.
    ``keep_pointees``: ``tt.addptr`` says its pointee type, and a ``tt.bitcast`` of pointers both of its ``pointees``.
    The module says whether it may hold floats that become integers later (``NARROW_FLOATS``) and annotated loops
    (``LOOP_HINTS``): the passes for them are left out otherwise.
    Raises UnsupportedOperation for operations with no import form, CompilationError when the result does not parse.
    """
    from mlir import ir

    from torchport.errors import CompilationError
    from torchport_passes.ir import dialects

    dialects.register()
    context = context or new_context()
    generic = to_generic(ttir, keep_barriers=keep_barriers, keep_pointees=keep_pointees)
    try:
        module = ir.Module.parse(generic, context)
    except ir.MLIRError as error:
        raise CompilationError(f"the imported TTIR does not parse: {error}", stage="import") from error
    with context:
        for attribute, words in _NOTED.items():
            if any(word in ttir for word in words):
                module.operation.attributes[attribute] = ir.UnitAttr.get()
    return module
