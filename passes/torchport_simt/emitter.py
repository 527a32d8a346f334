"""What writing the code of one lane is in every language: names, lines, blocks, loops and branches.

A language derives from ``Emitter`` and supplies how a variable is declared, a loop over numbers is headed, and the
statements and expressions of operations. C and WGSL write ``if``, ``else``, ``break`` and endless loops alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mlir import ir

from torchport.errors import UnsupportedOperation
from torchport_simt.spelling import Spelling

__all__ = ["Emitter", "Source"]


@dataclass
class Source:
    """A kernel in its language.

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


class Emitter:
    """Writes one kernel. Statements get it as ``out``."""

    def __init__(self, function: Any, spelling: Spelling) -> None:
        self.function = function
        self.spelling = spelling
        # With a prefix, as people name kernels `kernel`, which is a keyword of OpenCL C.
        self.source = Source("tpk_" + re.sub(r"\W", "_", ir.StringAttr(function.attributes["sym_name"]).value))
        self.lines: list[str] = []
        self.names: dict[Any, str] = {}
        self.depth = 1
        self.count = 0
        self.asserts = any(name in str(function) for name in ("tp.assert", "tt.assert"))

    def declaration(self, type_: Any, name: str, text: str, constant: bool) -> str:
        """The statement that declares a variable of the type of a value."""
        raise NotImplementedError

    def zero(self, type_: Any) -> str:
        """Zero, or the null pointer."""
        raise NotImplementedError

    def statement(self, op: Any) -> Callable[[Any, Any], None] | None:
        """What writes an operation that is no expression; None if it is one."""
        raise NotImplementedError

    def expression(self, op: Any) -> str | None:
        """The text of an operation with one result; None if the language has none."""
        raise NotImplementedError

    def loop(self, op: Any) -> None:
        """Write ``scf.for``."""
        raise NotImplementedError

    def parameter_kinds(self) -> list[tuple[Any, str, str]]:
        """Each parameter of the kernel with its type's name and, if it is a pointer, how it is accessed."""
        arguments = self.function.regions[0].blocks[0].arguments
        kinds = []
        for argument, each in zip(arguments, ir.ArrayAttr(self.function.attributes["arg_attrs"]), strict=True):
            attributes = ir.DictAttr(each)
            text = str(ir.TypeAttr(attributes["tp.type"]).value)
            access = str(ir.StringAttr(attributes["tp.access"]).value) if text == "!llvm.ptr" else ""
            self.source.access.append(access)
            kinds.append((argument, text, access))
        return kinds

    def name(self, value: Any) -> str:
        """A new name for a value."""
        self.count += 1
        self.names[value] = f"v{self.count}"
        return self.names[value]

    def line(self, text: str) -> None:
        """Write a line."""
        self.lines.append("  " * self.depth + text)

    def needs(self, type_: Any) -> None:
        """Note that the kernel computes with values of a type."""
        if "f64" in str(type_):
            self.source.features.add("fp64")

    def define(self, value: Any, text: str, constant: bool = True) -> None:
        """Declare a variable that holds a value."""
        self.needs(value.type)
        self.line(self.declaration(value.type, self.name(value), text, constant))

    def block(self, block: Any) -> Any:
        """Write a block's operations, except the last, which is returned."""
        *body, last = (op.operation for op in block.operations)
        for op in body:
            self.operation(op)
        return last

    def operation(self, op: Any) -> None:
        """Write an operation. Raises UnsupportedOperation if the language has no form of it."""
        control = _CONTROL.get(op.name)
        statement = control or self.statement(op)
        if statement is not None:
            statement(self, op)
            return
        if len(op.results) == 1:
            text = self.expression(op)
            if text is not None:
                if op.name == "arith.constant" and not isinstance(op.results[0].type, ir.VectorType):
                    self.needs(op.results[0].type)
                    self.names[op.results[0]] = text
                else:
                    self.define(op.results[0], text)
                return
        raise UnsupportedOperation(op.name, f"it has no form in {self.spelling.name}", location=str(op.location))

    def site(self, op: Any) -> int:
        """The number of an assertion, from 1: that of the first with its message."""
        message = str(ir.StringAttr(op.attributes["message"]).value)
        if message not in self.source.sites:
            self.source.sites.append(message)
        return self.source.sites.index(message) + 1

    def args(self, op: Any) -> list[str]:
        """The names of an operation's operands."""
        return [self.names[operand] for operand in op.operands]

    def guard(self, mask: str | None) -> str:
        """The condition of a memory access: its mask, and that no assertion of the lane has failed."""
        parts = [part for part in (mask, "tp_alive" if self.asserts else None) if part]
        return " && ".join(parts)

    def declare(self, values: Any, initial: list[str] | None = None) -> list[str]:
        """Declare variables for ``values``, to be assigned later."""
        names = []
        for i, value in enumerate(values):
            self.define(value, initial[i] if initial is not None else self.zero(value.type), constant=False)
            names.append(self.names[value])
        return names

    def assign(self, names: list[str], values: Any) -> None:
        """Assign ``values`` to variables in parallel: the new value of one may be the old value of another."""
        texts = [self.names[value] for value in values]
        if len(names) > 1:
            copies = []
            for value, text in zip(values, texts, strict=True):
                self.count += 1
                self.line(self.declaration(value.type, f"t{self.count}", text, constant=False))
                copies.append(f"t{self.count}")
            texts = copies
        for name, text in zip(names, texts, strict=True):
            self.line(f"{name} = {text};")

    def condition(self, op: Any, text: str) -> str:
        """What a branch or a loop tests, where ``text`` is its condition."""
        return text

    def close(self) -> None:
        """End a block."""
        self.depth -= 1
        self.line("}")

    def _while(self, op: Any) -> None:
        before, after = (region.blocks[0] for region in op.regions)
        names = self.declare(before.arguments, self.args(op))
        results = self.declare(op.results)
        self.line("for (;;) {")
        self.depth += 1
        condition = self.block(before)
        flag, *passed = condition.operands
        tested = self.condition(op, self.names[flag])
        go = f"go{self.count}"
        self.line(self.declaration(flag.type, go, tested, constant=True))
        self.assign(results, passed)
        self.line(f"if (!{go}) {{ break; }}")
        self.names.update(zip(after.arguments, results, strict=True))
        last = self.block(after)
        self.assign(names, last.operands)
        self.close()

    def _if(self, op: Any) -> None:
        names = self.declare(op.results)
        tested = self.condition(op, self.args(op)[0])
        for region, head in zip(op.regions, (f"if ({tested}) {{", "else {"), strict=True):
            if not len(region.blocks):
                continue
            self.line(head)
            self.depth += 1
            last = self.block(region.blocks[0])
            self.assign(names, last.operands)
            self.close()


_CONTROL: dict[str, Callable[[Emitter, Any], None]] = {
    "scf.for": lambda out, op: out.loop(op),
    "scf.while": Emitter._while,
    "scf.if": Emitter._if,
}
