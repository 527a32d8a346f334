"""Writes the code of one lane as C with macros (docs/simt.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mlir import ir
from torchport_passes.ir.ops import matching

from torchport.errors import UnsupportedOperation
from torchport_simt.operations import expression
from torchport_simt.spelling import Spelling
from torchport_simt.statements import STATEMENTS
from torchport_simt.types import constant, ctype, signed, zero
from torchport_simt.vector_operations import element, vector_expression

__all__ = ["Source", "emit"]


@dataclass
class Source:
    """A kernel as C.

    name: the function's name.
    text: its source.
    access: ``r``, ``w``, ``rw`` of each argument; empty for scalars.
    sites: messages of its assertions.
    features: what it needs of the language.
    scratchpad: bytes of local memory.
    width: elements of its vectors; 0 if it has none.
    """

    name: str
    text: str = ""
    access: list[str] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    features: set[str] = field(default_factory=set)
    scratchpad: int = 0
    width: int = 0


def emit(module: Any, spelling: Spelling) -> Source:
    """Write the kernel of ``module``. Raises UnsupportedOperation for an operation or function without a C form."""
    kernels = [op for op in module.body.operations if len(op.operation.regions[0].blocks)]
    return _Emitter(kernels[0], spelling).run()


class _Emitter:
    def __init__(self, function: Any, spelling: Spelling) -> None:
        self.function = function
        self.spelling = spelling
        # With a prefix, as people name kernels `kernel`, which is a keyword of OpenCL C.
        self.source = Source("tpk_" + re.sub(r"\W", "_", ir.StringAttr(function.attributes["sym_name"]).value))
        self.lines: list[str] = []
        self.names: dict[Any, str] = {}
        self.depth = 1
        self.count = 0
        self.source.width = _width(function)
        self.asserts = any(name in str(function) for name in ("tp.assert", "tt.assert"))

    def run(self) -> Source:
        block = self.function.regions[0].blocks[0]
        parameters = [self._parameter(i, argument) for i, argument in enumerate(block.arguments)]
        if self.asserts:
            parameters.append("TP_GLOBAL tp_i32 *tp_status")
            self.line("tp_bool tp_alive = 1;")
        self._block(block)
        head = f"TP_KERNEL({self.source.name})({', '.join(parameters) or 'TP_NO_PARAMETERS'} TP_PARAMETERS) {{"
        self.source.text = "\n".join([head, *self.lines, "}", ""])
        return self.source

    def _parameter(self, index: int, argument: Any) -> str:
        """The parameters of one argument; defines a local variable with its value."""
        attributes = ir.DictAttr(ir.ArrayAttr(self.function.attributes["arg_attrs"])[index])
        name, text = f"a{index}", str(ir.TypeAttr(attributes["tp.type"]).value)
        local = self.name(argument)
        if text == "!llvm.ptr":
            self.source.access.append(str(ir.StringAttr(attributes["tp.access"]).value))
            self.line(f"TP_GLOBAL tp_u8 *const {local} = {name} + o{index};")
            return f"TP_GLOBAL tp_u8 *{name}, tp_u64 o{index}"
        self.source.access.append("")
        kind = ctype(argument.type)
        if text in ("f16", "bf16"):
            self.line(f"const tp_u16 {local} = tp_f32_to_{text}({name});")
            return f"float {name}"
        self.needs(argument.type)
        self.line(f"const {kind} {local} = ({kind}){name};")
        return f"{kind if text.startswith('f') else 'tp_i8' if text == 'i1' else signed(argument.type)} {name}"

    def name(self, value: Any) -> str:
        self.count += 1
        self.names[value] = f"v{self.count}"
        return self.names[value]

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def needs(self, type_: Any) -> None:
        if "f64" in str(type_):
            self.source.features.add("fp64")

    def define(self, value: Any, text: str, constant_: bool = True) -> None:
        self.needs(value.type)
        kind = ctype(value.type)
        qualifier = "const " if constant_ and "*" not in kind else ""
        self.line(f"{qualifier}{kind} {'const ' if constant_ and '*' in kind else ''}{self.name(value)} = {text};")

    def _block(self, block: Any) -> Any:
        """Write a block's operations, except the last, which is returned."""
        *body, last = (op.operation for op in block.operations)
        for op in body:
            self._operation(op)
        return last

    def _operation(self, op: Any) -> None:
        statement = _CONTROL.get(op.name) or STATEMENTS.get(op.name)
        if statement is not None:
            statement(self, op)
            return
        if len(op.results) == 1:
            if any(isinstance(value.type, ir.VectorType) for value in (*op.results, *op.operands)):
                text = vector_expression(op, self.args(op))
                if text is not None:
                    self.define(op.results[0], text)
                    return
            elif op.name == "arith.constant":
                self.needs(op.results[0].type)
                self.names[op.results[0]] = f"({constant(op.attributes['value'], op.results[0].type)})"
                return
            elif (text := expression(op, self.args(op))) is not None:
                self.define(op.results[0], text)
                return
        raise UnsupportedOperation(op.name, f"it has no form in {self.spelling.name}", location=str(op.location))

    def args(self, op: Any) -> list[str]:
        return [self.names[operand] for operand in op.operands]

    def each(self, op: Any) -> list[list[str]]:
        """The arguments of an operation on scalars; of one on vectors, those of each element."""
        args = self.args(op)
        if not any(isinstance(value.type, ir.VectorType) for value in (*op.results, *op.operands)):
            return [args]
        pairs = list(zip(args, (value.type for value in op.operands), strict=True))
        return [[element(arg, type_, lane) for arg, type_ in pairs] for lane in range(self.source.width)]

    def define_each(self, value: Any, texts: list[str]) -> None:
        """Define a scalar by one expression, a vector by those of its elements."""
        if isinstance(value.type, ir.VectorType):
            texts = [f"-({text})" for text in texts] if str(value.type.element_type) == "i1" else texts
            self.define(value, f"({ctype(value.type)})({', '.join(texts)})")
        else:
            self.define(value, texts[0])

    def guard(self, mask: str | None) -> str:
        """The condition of a memory access: its mask, and that no assertion of the lane has failed."""
        parts = [part for part in (mask, "tp_alive" if self.asserts else None) if part]
        return " && ".join(parts)

    def _declare(self, values: Any, initial: list[str] | None = None) -> list[str]:
        """Declare variables for ``values``, to be assigned later."""
        names = []
        for i, value in enumerate(values):
            self.define(value, initial[i] if initial is not None else zero(value.type), constant_=False)
            names.append(self.names[value])
        return names

    def _assign(self, names: list[str], values: Any) -> None:
        """Assign ``values`` to variables in parallel: the new value of one may be the old value of another."""
        texts = [self.names[value] for value in values]
        if len(names) > 1:
            copies = []
            for value, text in zip(values, texts, strict=True):
                self.count += 1
                self.line(f"{ctype(value.type)} t{self.count} = {text};")
                copies.append(f"t{self.count}")
            texts = copies
        for name, text in zip(names, texts, strict=True):
            self.line(f"{name} = {text};")

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
        self.line(f"for ({kind} {i} = {bounds[0]}; {i} < {bounds[1]}; {i} += {bounds[2]}) {{")
        self.depth += 1
        self.define(index, f"({ctype(index.type)}){i}")
        self.names.update(zip(carried, names, strict=True))
        last = self._block(block)
        self._assign(names, last.operands)
        self._close()

    def _while(self, op: Any) -> None:
        before, after = (region.blocks[0] for region in op.regions)
        names = self._declare(before.arguments, self.args(op))
        results = self._declare(op.results)
        self.line("for (;;) {")
        self.depth += 1
        condition = self._block(before)
        flag, *passed = condition.operands
        self.line(f"const tp_bool go{self.count} = {self.names[flag]};")
        go = f"go{self.count}"
        self._assign(results, passed)
        self.line(f"if (!{go}) break;")
        self.names.update(zip(after.arguments, results, strict=True))
        last = self._block(after)
        self._assign(names, last.operands)
        self._close()

    def _if(self, op: Any) -> None:
        names = self._declare(op.results)
        for region, head in zip(op.regions, (f"if ({self.args(op)[0]}) {{", "else {"), strict=True):
            if not len(region.blocks):
                continue
            self.line(head)
            self.depth += 1
            last = self._block(region.blocks[0])
            self._assign(names, last.operands)
            self._close()

    def _close(self) -> None:
        self.depth -= 1
        self.line("}")


def _width(function: Any) -> int:
    """The number of elements of a function's vectors."""
    widths = {
        int(result.type.shape[0])
        for op in matching(function, lambda name: True)
        for result in op.results
        if isinstance(result.type, ir.VectorType)
    }
    return widths.pop() if widths else 0


_CONTROL: dict[str, Callable[[_Emitter, Any], None]] = {
    "scf.for": _Emitter._for,
    "scf.while": _Emitter._while,
    "scf.if": _Emitter._if,
}
