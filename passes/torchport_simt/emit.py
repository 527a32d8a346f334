"""Writes the code of one lane as C with macros (docs/simt.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlir import ir
from torchport_passes.ir.ops import matching

from torchport_simt.emitter import Emitter, Source
from torchport_simt.operations import expression
from torchport_simt.spelling import Spelling
from torchport_simt.statements import STATEMENTS
from torchport_simt.types import constant, ctype, signed, zero
from torchport_simt.vector_operations import element, vector_expression

__all__ = ["emit"]


def emit(module: Any, spelling: Spelling) -> Source:
    """Write the kernel of ``module``. Raises UnsupportedOperation for an operation or function without a C form."""
    kernels = [op for op in module.body.operations if len(op.operation.regions[0].blocks)]
    return _CEmitter(kernels[0], spelling).run()


class _CEmitter(Emitter):
    def __init__(self, function: Any, spelling: Spelling) -> None:
        super().__init__(function, spelling)
        self.source.width = _width(function)

    def run(self) -> Source:
        parameters = [self._parameter(i, *kind) for i, kind in enumerate(self.parameter_kinds())]
        if self.asserts:
            parameters.append("TP_GLOBAL tp_i32 *tp_status")
            self.line("tp_bool tp_alive = 1;")
        self.block(self.function.regions[0].blocks[0])
        head = f"TP_KERNEL({self.source.name})({', '.join(parameters) or 'TP_NO_PARAMETERS'} TP_PARAMETERS) {{"
        self.source.text = "\n".join([head, *self.lines, "}", ""])
        return self.source

    def _parameter(self, index: int, argument: Any, text: str, access: str) -> str:
        """The parameters of one argument; defines a local variable with its value."""
        name, local = f"a{index}", self.name(argument)
        if text == "!llvm.ptr":
            self.line(f"TP_GLOBAL tp_u8 *const {local} = {name} + o{index};")
            return f"TP_GLOBAL tp_u8 *{name}, tp_u64 o{index}"
        kind = ctype(argument.type)
        if text in ("f16", "bf16"):
            self.line(f"const tp_u16 {local} = tp_f32_to_{text}({name});")
            return f"float {name}"
        self.needs(argument.type)
        self.line(f"const {kind} {local} = ({kind}){name};")
        return f"{kind if text.startswith('f') else 'tp_i8' if text == 'i1' else signed(argument.type)} {name}"

    def declaration(self, type_: Any, name: str, text: str, constant: bool) -> str:
        kind = ctype(type_)
        if "*" in kind:
            return f"{kind} {'const ' if constant else ''}{name} = {text};"
        return f"{'const ' if constant else ''}{kind} {name} = {text};"

    def zero(self, type_: Any) -> str:
        return zero(type_)

    def statement(self, op: Any) -> Callable[[Any, Any], None] | None:
        return STATEMENTS.get(op.name)

    def expression(self, op: Any) -> str | None:
        if any(isinstance(value.type, ir.VectorType) for value in (*op.results, *op.operands)):
            return vector_expression(op, self.args(op))
        if op.name == "arith.constant":
            return f"({constant(op.attributes['value'], op.results[0].type)})"
        return expression(op, self.args(op))

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

    def loop(self, op: Any) -> None:
        low, high, step, *start = op.operands
        names = self.declare(op.results, [self.names[value] for value in start])
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
        last = self.block(block)
        self.assign(names, last.operands)
        self.close()


def _width(function: Any) -> int:
    """The number of elements of a function's vectors."""
    widths = {
        int(result.type.shape[0])
        for op in matching(function, lambda name: True)
        for result in op.results
        if isinstance(result.type, ir.VectorType)
    }
    return widths.pop() if widths else 0
