"""Writes the code of one lane as WGSL (docs/webgpu.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchport_passes.analysis.provenance import SourceArguments

from torchport.errors import UnsupportedOperation
from torchport_simt.emitter import Emitter, Source
from torchport_simt.spelling import Spelling
from torchport_simt.wgsl.arrays import Array
from torchport_simt.wgsl.operations import expression
from torchport_simt.wgsl.roots import Roots
from torchport_simt.wgsl.statements import STATEMENTS
from torchport_simt.wgsl.types import WIDE, constant, signed, wtype, zero
from torchport_simt.wgsl.uniform import Uniform

__all__ = ["emit"]


def emit(module: Any, spelling: Spelling) -> Source:
    """Write the kernel of ``module``. Raises UnsupportedOperation for what has no WGSL form."""
    kernels = [op for op in module.body.operations if len(op.operation.regions[0].blocks)]
    return _WGSLEmitter(kernels[0], spelling, SourceArguments(module)).run()


class _WGSLEmitter(Emitter):
    """``globals``: declarations outside the function. ``scratch``: where each array in workgroup memory is."""

    def __init__(self, function: Any, spelling: Spelling, roots: SourceArguments) -> None:
        super().__init__(function, spelling)
        self.roots = Roots(roots, function)
        self.uniform = Uniform(function)
        self.globals: list[str] = []
        self.scratch: dict[Any, Array] = {}
        self.flags = 0
        self.buffers: dict[int, int] = {}

    def run(self) -> Source:
        fields = ["zero: u32", "base: u32", "groups: u32"]
        for i, (argument, text, _) in enumerate(self.parameter_kinds()):
            fields += self._parameter(i, argument, text)
        if self.asserts:
            self.line("var tp_alive = true;")
        self.block(self.function.regions[0].blocks[0])
        head = (
            f"@compute @workgroup_size(TP_LANES) fn {self.source.name}(@builtin(local_invocation_index) tp_lane: u32, "
            "@builtin(workgroup_id) tp_group: vec3<u32>, @builtin(num_workgroups) tp_groups: vec3<u32>) {"
        )
        structure = f"struct tp_Arguments {{ {', '.join(fields)} }}"
        self.source.text = "\n".join([structure, *self.globals, head, *self.lines, "}", ""])
        return self.source

    def _parameter(self, index: int, argument: Any, text: str) -> list[str]:
        """The fields of one argument in the uniform block; defines a variable with its value."""
        name, local = f"a{index}", self.name(argument)
        if text == "!llvm.ptr":
            self.buffers[index] = len(self.buffers)
            self.line(f"let {local} = tp_args.o{index};")
            return [f"o{index}: u32"]
        self.needs(argument.type)
        if text in ("f16", "bf16"):
            value = f"tp_f32_to_{text}(bitcast<f32>(tp_args.{name}))"
        elif text == "f32":
            value = f"bitcast<f32>(tp_args.{name})"
        elif text == "f64" or text in WIDE:
            pair = f"tp_u64_of(tp_args.{name}, tp_args.{name}h)"
            self.line(f"let {local} = {f'tp_as_f64({pair})' if text == 'f64' else pair};")
            return [f"{name}: u32", f"{name}h: u32"]
        else:
            value = f"(tp_args.{name} != 0u)" if text == "i1" else f"tp_args.{name}"
        self.line(f"let {local} = {value};")
        return [f"{name}: u32"]

    def buffer(self, op: Any) -> int:
        """The number of the buffer that an access is to, among the arguments that are buffers.

        Raises UnsupportedOperation if it may be several.
        """
        roots = self.roots.of(op.operands[0])
        if len(roots) != 1:
            raise UnsupportedOperation(
                op.name,
                "the pointer may point into one of several tensors; WebGPU has no addresses, so each access must be to "
                "one argument",
                location=str(op.location),
            )
        return self.buffers[roots.pop()]

    def declaration(self, type_: Any, name: str, text: str, constant: bool) -> str:
        return f"{'let' if constant else 'var'} {name}: {wtype(type_)} = {text};"

    def zero(self, type_: Any) -> str:
        return zero(type_)

    def statement(self, op: Any) -> Callable[[Any, Any], None] | None:
        return STATEMENTS.get(op.name)

    def expression(self, op: Any) -> str | None:
        if op.name == "arith.constant":
            return constant(op.attributes["value"], op.results[0].type)
        return expression(op, self.args(op))

    def condition(self, op: Any, text: str) -> str:
        """Where lanes wait for each other inside, a condition that WGSL's rules cannot prove to be the same in all."""
        return self._same(text) if self.uniform.unproven(op) else text

    def _same(self, text: str) -> str:
        """A boolean of lane 0 for all lanes: it is the same in all of them, which WGSL does not know."""
        self.count += 1
        name, flag = f"same{self.count}", "tp_flag"  # not u32, which is a type
        if not self.flags:
            self.globals.append(f"var<workgroup> {flag}: u32;")
            self.source.scratchpad += 4
        self.flags += 1
        self.line(f"workgroupBarrier(); if (tp_lane == 0u) {{ {flag} = u32({text}); }}")
        self.line(f"let {name} = workgroupUniformLoad(&{flag}) != 0u;")
        return name

    def loop(self, op: Any) -> None:
        low, high, step, *start = op.operands
        names = self.declare(op.results, [self.names[value] for value in start])
        block = op.regions[0].blocks[0]
        index, *carried = block.arguments
        plain = "unsignedCmp" in op.attributes
        self.count += 1
        i = f"at{self.count}"  # not i32, which is a type
        first, last, by = (self.names[value] for value in (low, high, step))
        if wtype(index.type) == "tp_u64":
            test = f"tp_{'u' if plain else 's'}less_u64({i}, {last})"
            head, following = f"var {i} = {first}", f"{i} = tp_add_u64({i}, {by})"
            value = i
        elif plain:
            head, test, following, value = f"var {i} = {first}", f"{i} < {last}", f"{i} += {by}", i
        else:
            head = f"var {i}: i32 = {signed(index.type, first)}"
            test, following = f"{i} < {signed(index.type, last)}", f"{i} += {signed(index.type, by)}"
            value = f"bitcast<u32>({i})"
        if self.uniform.unproven(op):
            self.line(f"for ({head}; ; {following}) {{")
            self.depth += 1
            self.line(f"if (!{self._same(test)}) {{ break; }}")
        else:
            self.line(f"for ({head}; {test}; {following}) {{")
            self.depth += 1
        self.define(index, value)
        self.names.update(zip(carried, names, strict=True))
        ended = self.block(block)
        self.assign(names, ended.operands)
        self.close()
