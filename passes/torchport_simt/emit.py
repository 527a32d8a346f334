"""The code of one lane, as ``distribute`` and the passes behind it leave it, as C with macros (docs/simt.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mlir import ir
from torchport_passes._ops import matching

from torchport.errors import UnsupportedOperation
from torchport_simt.operations import expression
from torchport_simt.spelling import Spelling
from torchport_simt.types import constant, ctype, signed, suffix, zero

__all__ = ["Source", "emit"]

_ATOMICS = {
    "exch": "xchg", "add": "add", "fadd": "fadd", "and": "and", "or": "or", "xor": "xor", "max": "max", "min": "min",
    "umax": "umax", "umin": "umin",
}  # fmt: skip


@dataclass
class Source:
    """A kernel as C. ``access``: ``r``, ``w``, ``rw`` of each argument, empty for scalars. ``sites``: messages of its
    assertions. ``features``: what it needs of the language. ``scratchpad``: bytes.
    """

    name: str
    text: str = ""
    access: list[str] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    features: set[str] = field(default_factory=set)
    scratchpad: int = 0


def emit(module: Any, spelling: Spelling) -> Source:
    """Write the kernel of ``module``. Raises UnsupportedOperation for an operation or function that has no C form."""
    kernels = [op for op in module.body.operations if len(op.operation.regions[0].blocks)]
    return _Emitter(kernels[0], spelling).run()


class _Emitter:
    def __init__(self, function: Any, spelling: Spelling) -> None:
        self.function = function
        self.spelling = spelling
        # With a prefix: `kernel` is a name that people give to kernels, and a word of OpenCL C.
        self.source = Source("tpk_" + re.sub(r"\W", "_", ir.StringAttr(function.attributes["sym_name"]).value))
        self.lines: list[str] = []
        self.names: dict[Any, str] = {}
        self.depth = 1
        self.count = 0
        self.asserts = any(name in str(function) for name in ("tp.assert", "tt.assert"))

    def run(self) -> Source:
        block = self.function.regions[0].blocks[0]
        parameters = [self._parameter(i, argument) for i, argument in enumerate(block.arguments)]
        if self.asserts:
            parameters.append("TP_GLOBAL tp_i32 *tp_status")
            self._line("tp_bool tp_alive = 1;")
        self._block(block)
        head = f"TP_KERNEL({self.source.name})({', '.join(parameters) or 'TP_NO_PARAMETERS'} TP_PARAMETERS) {{"
        self.source.text = "\n".join([head, *self.lines, "}", ""])
        return self.source

    def _parameter(self, index: int, argument: Any) -> str:
        """One argument's parameters; its value is a local variable."""
        attributes = ir.DictAttr(ir.ArrayAttr(self.function.attributes["arg_attrs"])[index])
        name, text = f"a{index}", str(ir.TypeAttr(attributes["tp.type"]).value)
        local = self._name(argument)
        if text == "!llvm.ptr":
            self.source.access.append(str(ir.StringAttr(attributes["tp.access"]).value))
            self._line(f"TP_GLOBAL tp_u8 *const {local} = {name} + o{index};")
            return f"TP_GLOBAL tp_u8 *{name}, tp_u64 o{index}"
        self.source.access.append("")
        kind = ctype(argument.type)
        if text in ("f16", "bf16"):
            self._line(f"const tp_u16 {local} = tp_f32_to_{text}({name});")
            return f"float {name}"
        self._needs(argument.type)
        self._line(f"const {kind} {local} = ({kind}){name};")
        return f"{kind if text.startswith('f') else 'tp_i8' if text == 'i1' else signed(argument.type)} {name}"

    def _name(self, value: Any) -> str:
        self.count += 1
        self.names[value] = f"v{self.count}"
        return self.names[value]

    def _line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def _needs(self, type_: Any) -> None:
        if str(type_) == "f64":
            self.source.features.add("fp64")

    def _define(self, value: Any, text: str, constant_: bool = True) -> None:
        self._needs(value.type)
        kind = ctype(value.type)
        qualifier = "const " if constant_ and "*" not in kind else ""
        self._line(f"{qualifier}{kind} {'const ' if constant_ and '*' in kind else ''}{self._name(value)} = {text};")

    def _block(self, block: Any) -> Any:
        """Every operation of a block but the last, which is returned."""
        *body, last = (op.operation for op in block.operations)
        for op in body:
            self._operation(op)
        return last

    def _operation(self, op: Any) -> None:
        statement = _STATEMENTS.get(op.name)
        if statement is not None:
            statement(self, op)
            return
        if len(op.results) == 1:
            if op.name == "arith.constant":
                self._needs(op.results[0].type)
                self.names[op.results[0]] = f"({constant(op.attributes['value'], op.results[0].type)})"
                return
            text = expression(op, [self.names[operand] for operand in op.operands])
            if text is not None:
                self._define(op.results[0], text)
                return
        raise UnsupportedOperation(op.name, f"it has no form in {self.spelling.name}", location=str(op.location))

    def _args(self, op: Any) -> list[str]:
        return [self.names[operand] for operand in op.operands]

    def _guard(self, mask: str | None) -> str:
        """The condition of a memory access: its mask, and that no assertion of the lane has failed."""
        parts = [part for part in (mask, "tp_alive" if self.asserts else None) if part]
        return " && ".join(parts)

    def _load(self, op: Any) -> None:
        pointer, *rest = self._args(op)
        type_ = op.results[0].type
        if str(type_) == "!llvm.ptr":
            raise UnsupportedOperation(op.name, "pointers in the memory of a device; pass tensors as arguments")
        volatile = "volatile " if "volatile" in op.attributes else ""
        stored = "tp_u8" if str(type_) == "i1" else ctype(type_)
        value = f"*(const {volatile}TP_GLOBAL {stored} *){pointer}"
        if str(type_) == "i1":
            value = f"({value} != 0)"
        guard = self._guard(rest[0] if rest else None)
        other = rest[1] if len(rest) > 1 else zero(type_)
        self._define(op.results[0], f"{guard} ? {value} : {other}" if guard else value)

    def _store(self, op: Any) -> None:
        pointer, value, *mask = self._args(op)
        type_ = op.operands[1].type
        if str(type_) == "!llvm.ptr":
            raise UnsupportedOperation(op.name, "pointers in the memory of a device; pass tensors as arguments")
        stored = "tp_u8" if str(type_) == "i1" else ctype(type_)
        guard = self._guard(mask[0] if mask else None)
        self._line(f"{f'if ({guard}) ' if guard else ''}*(TP_GLOBAL {stored} *){pointer} = {value};")

    def _atomic(self, op: Any) -> None:
        args = self._args(op)
        mask = args.pop() if ir.BoolAttr(op.attributes["masked"]).value else None
        type_ = ir.TypeAttr(op.attributes["element"]).value
        kind = suffix(type_)
        if kind.endswith("64"):
            self.source.features.add("int64_atomics")
        guard = self._guard(mask)
        if op.name == "tt.atomic_cas":
            call = self._compare_and_swap(op, type_, args)
        else:
            what = _ATOMICS[str(ir.StringAttr(op.attributes["rmw"]).value)]
            call = self._read_modify_write(op, what, type_, args)
        self._define(op.results[0], f"{guard} ? {call} : {zero(type_)}" if guard else call)

    def _read_modify_write(self, op: Any, what: str, type_: Any, args: list[str]) -> str:
        pointer, value = args
        kind = suffix(type_)
        if what == "xchg" and kind in ("f32", "f64"):
            bits = f"u{kind[1:]}"
            swapped = f"tp_atomic_xchg_{bits}((TP_GLOBAL tp_{bits} *){pointer}, tp_as_{bits}({value}))"
            return f"tp_as_{kind}({swapped})"
        floats = what == "fadd" and kind in ("f32", "f64", "f16", "bf16")
        if not floats and kind not in ("u32", "u64"):
            raise UnsupportedOperation(op.name, f"an atomic {what} of {type_}", location=str(op.location))
        return f"tp_atomic_{what}_{kind}((TP_GLOBAL {ctype(type_)} *){pointer}, {value})"

    def _compare_and_swap(self, op: Any, type_: Any, args: list[str]) -> str:
        """Bits are compared: floats as the integers of their size."""
        pointer, expected, value = args
        text = str(type_)
        if text in ("f32", "f64"):
            bits = f"u{text[1:]}"
            old, new = f"tp_as_{bits}({expected})", f"tp_as_{bits}({value})"
            swapped = f"tp_cas_tp_{bits}((TP_GLOBAL tp_{bits} *){pointer}, {old}, {new})"
            return f"tp_as_{text}({swapped})"
        if ctype(type_) == "tp_u16":
            return f"tp_cas_u16((TP_GLOBAL tp_u16 *){pointer}, {expected}, {value})"
        if text not in ("i32", "i64"):
            raise UnsupportedOperation(op.name, f"a compare and swap of {type_}", location=str(op.location))
        return f"tp_cas_{ctype(type_)}((TP_GLOBAL {ctype(type_)} *){pointer}, {expected}, {value})"

    def _scratch(self, op: Any) -> None:
        count = ir.IntegerAttr(op.attributes["count"]).value
        element = ir.TypeAttr(op.attributes["element"]).value
        kind = ctype(element)
        sizes = {"tp_bool": 1, "tp_u8": 1, "tp_u16": 2, "tp_u32": 4, "float": 4}
        self._needs(element)
        stored = "tp_u8" if kind == "tp_bool" else kind
        if "offset" not in op.attributes:
            self.source.scratchpad += count * sizes.get(kind, 8)
            self._line(f"TP_SCRATCHPAD {stored} {self._name(op.results[0])}[{count}];")
            return
        if not self.source.scratchpad:
            self.source.scratchpad = ir.IntegerAttr(self.function.attributes["tp.scratch_bytes"]).value
            self._line(f"TP_SCRATCHPAD tp_u64 scratch[{self.source.scratchpad // 8}];")
        pointer = f"TP_SCRATCHPAD_POINTER {stored} *"
        start = ir.IntegerAttr(op.attributes["offset"]).value // 8
        self._line(f"{pointer}const {self._name(op.results[0])} = ({pointer})(scratch + {start});")

    def _scratch_load(self, op: Any) -> None:
        buffer, index = self._args(op)
        self._define(op.results[0], f"{buffer}[{index}]")

    def _scratch_store(self, op: Any) -> None:
        value, buffer, index, *mask = self._args(op)
        self._line(f"{f'if ({mask[0]}) ' if mask else ''}{buffer}[{index}] = {value};")

    def _scratch_count(self, op: Any) -> None:
        buffer, index, mask = self._args(op)
        self._line(f"if ({mask}) TP_SCRATCHPAD_COUNT({buffer} + {index});")

    def _barrier(self, op: Any) -> None:
        everything = ir.StringAttr(op.attributes["memory"]).value == "all"
        self._line("TP_BARRIER_ALL;" if everything else "TP_BARRIER_SCRATCHPAD;")

    def _assert(self, op: Any) -> None:
        message = str(ir.StringAttr(op.attributes["message"]).value)
        if message not in self.source.sites:
            self.source.sites.append(message)
        number = self.source.sites.index(message) + 1
        self._line(f"if (!{self._args(op)[0]}) {{ if (tp_alive) *tp_status = {number}; tp_alive = 0; }}")

    def _nothing(self, op: Any) -> None:
        """What is said to the optimiser only."""

    def _print(self, op: Any) -> None:
        if _waits_in_loop(op):
            raise UnsupportedOperation(
                "tl.device_print",
                "it stands in a loop in which lanes wait for each other, where drivers are known to crash; print after "
                "the loop",
            )
        self.source.features.add("printf")
        index, mask, *value = self._args(op)
        prefix = str(ir.StringAttr(op.attributes["prefix"]).value).replace("%", "%%")
        prefix = prefix.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        shape = list(ir.DenseI64ArrayAttr(op.attributes["shape"]))
        arguments: list[str] = []
        places: list[str] = []
        stride = 1
        for size in reversed(shape):
            places.insert(0, f"%{len(str(size - 1))}d")
            arguments.insert(0, f"(int)({index} / {stride}u % {size}u)")
            stride *= size
        text = f"pid (%d, %d, %d){prefix}"
        if value:
            shown, argument = self._printed(op, value[0])
            operand = ir.IntegerAttr(op.attributes["operand"]).value
            which = f"(operand {operand}) " if operand >= 0 else ""
            text = f"pid (%d, %d, %d) idx ({', '.join(places)}){prefix}{which}{shown}"
            arguments.append(argument)
        groups = [f"(int)TP_GROUP({axis})" for axis in range(3)]
        self._line(f'if ({mask}) TP_PRINT("{text}\\n", {", ".join([*groups, *arguments])});')

    def _printed(self, op: Any, value: str) -> tuple[str, str]:
        type_ = op.operands[2].type
        text = str(type_)
        if ir.BoolAttr(op.attributes["hex"]).value and text.startswith("i"):
            return f"0x%0{max(1, int(text[1:]) // 4)}lx", f"(tp_u64){value}"
        if text == "!llvm.ptr":
            return "0x%lx", f"(tp_u64){value}"
        if text.startswith("i"):
            is_signed = ir.BoolAttr(op.attributes["signed"]).value and text != "i1"
            return ("%ld", f"(tp_i64)({signed(type_)}){value}") if is_signed else ("%lu", f"(tp_u64){value}")
        return "%f", value

    def _call(self, op: Any) -> None:
        symbol = str(ir.FlatSymbolRefAttr(op.attributes["callee"]).value)
        type_ = op.results[0].type
        stem = symbol.removesuffix("f") if str(type_) == "f32" else symbol
        name = self.spelling.function(stem)
        if name is None:
            raise UnsupportedOperation(stem, f"{self.spelling.name} has no such function")
        self._define(op.results[0], f"{name}({', '.join(self._args(op))})")

    def _extended(self, op: Any) -> None:
        a, b = self._args(op)
        low, high = op.results
        kind = ctype(low.type)
        self._define(low, f"({kind})({a} * {b})")
        sign = "s" if op.name == "arith.mulsi_extended" else ""
        self._define(high, f"({kind})tp_{sign}mulhi_{suffix(low.type)}({a}, {b})")

    def _declare(self, values: Any, initial: list[str] | None = None) -> list[str]:
        """Variables for ``values``, which are assigned later."""
        names = []
        for i, value in enumerate(values):
            self._define(value, initial[i] if initial is not None else zero(value.type), constant_=False)
            names.append(self.names[value])
        return names

    def _assign(self, names: list[str], values: Any) -> None:
        """``values`` into variables, all at once: one may be another's new value."""
        texts = [self.names[value] for value in values]
        if len(names) > 1:
            kept = []
            for value, text in zip(values, texts, strict=True):
                self.count += 1
                self._line(f"{ctype(value.type)} t{self.count} = {text};")
                kept.append(f"t{self.count}")
            texts = kept
        for name, text in zip(names, texts, strict=True):
            self._line(f"{name} = {text};")

    def _for(self, op: Any) -> None:
        low, high, step, *start = op.operands
        names = self._declare(op.results, [self.names[value] for value in start])
        block = op.regions[0].blocks[0]
        index, *carried = block.arguments
        plain = "unsignedCmp" in op.attributes
        kind = ctype(index.type) if plain else signed(index.type)
        self.count += 1
        i = f"i{self.count}"
        bounds = [f"({kind}){self.names[value]}" for value in (low, high, step)]
        self._line(f"for ({kind} {i} = {bounds[0]}; {i} < {bounds[1]}; {i} += {bounds[2]}) {{")
        self.depth += 1
        self._define(index, f"({ctype(index.type)}){i}")
        self.names.update(zip(carried, names, strict=True))
        last = self._block(block)
        self._assign(names, last.operands)
        self._close()

    def _while(self, op: Any) -> None:
        before, after = (region.blocks[0] for region in op.regions)
        names = self._declare(before.arguments, self._args(op))
        results = self._declare(op.results)
        self._line("for (;;) {")
        self.depth += 1
        condition = self._block(before)
        flag, *passed = condition.operands
        self._line(f"const tp_bool go{self.count} = {self.names[flag]};")
        go = f"go{self.count}"
        self._assign(results, passed)
        self._line(f"if (!{go}) break;")
        self.names.update(zip(after.arguments, results, strict=True))
        last = self._block(after)
        self._assign(names, last.operands)
        self._close()

    def _if(self, op: Any) -> None:
        names = self._declare(op.results)
        for region, head in zip(op.regions, (f"if ({self._args(op)[0]}) {{", "else {"), strict=True):
            if not len(region.blocks):
                continue
            self._line(head)
            self.depth += 1
            last = self._block(region.blocks[0])
            self._assign(names, last.operands)
            self._close()

    def _close(self) -> None:
        self.depth -= 1
        self._line("}")


def _waits_in_loop(op: Any) -> bool:
    """Whether an operation is in a loop that has a barrier in it, too."""
    while op.name != "func.func":
        if op.name in ("scf.for", "scf.while") and matching(op, "tp.barrier".__eq__):
            return True
        op = op.parent.operation
    return False


_STATEMENTS: dict[str, Callable[[_Emitter, Any], None]] = {
    "tt.load": _Emitter._load, "tt.store": _Emitter._store, "tt.atomic_rmw": _Emitter._atomic,
    "tt.atomic_cas": _Emitter._atomic, "tp.scratch": _Emitter._scratch, "tp.scratch_load": _Emitter._scratch_load,
    "tp.scratch_store": _Emitter._scratch_store, "tp.scratch_count": _Emitter._scratch_count,
    "tp.barrier": _Emitter._barrier, "tp.assert": _Emitter._assert, "tt.assert": _Emitter._assert,
    "tp.print": _Emitter._print, "func.call": _Emitter._call, "arith.mului_extended": _Emitter._extended,
    "arith.mulsi_extended": _Emitter._extended, "scf.for": _Emitter._for, "scf.while": _Emitter._while,
    "scf.if": _Emitter._if, "llvm.intr.assume": _Emitter._nothing,
}  # fmt: skip
