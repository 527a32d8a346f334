"""A random kernel as data: its text as a Triton function, and what it computes according to NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fuzzing.formats import Array, is_float, width
from fuzzing.kernel_blocks import BLOCKS, HELPERS, literal
from fuzzing.kernel_layout import Layout, Number
from fuzzing.kernel_ops import ELEMENTWISE
from fuzzing.values import Value, approximate

Environment = dict[int, Value]


@dataclass(frozen=True)
class Input:
    """A tensor argument that is only read: all its storage."""

    name: str
    dtype: str
    storage: Array


@dataclass(frozen=True)
class Body:
    arguments: tuple[int, ...]
    instructions: tuple[Instruction, ...]
    yields: tuple[int, ...]


@dataclass(frozen=True)
class Instruction:
    """op: a name of ELEMENTWISE or BLOCKS, "load", "gather_load", "again" (stored and loaded), "loop" or "if"."""

    op: str
    operands: tuple[int, ...]
    results: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    bodies: tuple[Body, ...] = ()


@dataclass(frozen=True)
class Output:
    """A value that is stored: at its layout, or, with `atomic`, at indices that another value has.

    early: right behind the instruction that gives the value, and not at the end. in_place: `name` is an input's, whose
    elements are replaced.
    """

    name: str
    value: int
    dtype: str
    layout: Layout
    atomic: str | None = None
    index: int | None = None
    early: bool = False
    in_place: bool = False


@dataclass(frozen=True)
class Program:
    seed: int
    grid: int
    inputs: tuple[Input, ...]
    instructions: tuple[Instruction, ...]
    outputs: tuple[Output, ...]

    def numbers(self) -> dict[str, int]:
        """Integer arguments that something uses, by name."""
        found: dict[str, int] = {}
        for instruction in walk(self.instructions):
            for value in instruction.attributes.values():
                for number in value.numbers() if isinstance(value, Layout) else [value]:
                    if isinstance(number, Number) and number.name:
                        found[number.name] = number.value
        for output in self.outputs:
            found |= {n.name: n.value for n in output.layout.numbers() if n.name}
        return found

    def used_inputs(self) -> list[Input]:
        names = {i.attributes.get("input") for i in walk(self.instructions)} | {o.name for o in self.outputs}
        return [i for i in self.inputs if i.name in names]

    def scratches(self) -> dict[str, tuple[str, int]]:
        """Buffers of instructions that store and load again: dtype and elements, by name."""
        return {
            i.attributes["scratch"]: (i.attributes["dtype"], i.attributes["size"] * self.grid)
            for i in walk(self.instructions)
            if i.op == "again"
        }

    def evaluate(self) -> list[Environment]:
        """All values of each program instance. Raises Unknown."""
        return [self._environment(pid) for pid in range(self.grid)]

    def _environment(self, pid: int) -> Environment:
        environment: Environment = {}
        inputs = {i.name: i for i in self.inputs}
        for instruction in self.instructions:
            evaluate(instruction, environment, inputs, pid)
        return environment

    def source(self) -> str:
        """The text of the kernel."""
        names = [i.name for i in self.used_inputs()] + list(self.scratches())
        names += [o.name for o in self.outputs if not o.in_place]
        lines: list[str] = []
        for instruction in self.instructions:
            lines += text(instruction)
            lines += [line for o in self.outputs if o.early and o.value in instruction.results for line in _store(o)]
        lines += [line for o in self.outputs if not o.early for line in _store(o)]
        used = [h for h in HELPERS.strip().split("\n\n") if h.split("def ")[1].split("(")[0] in "\n".join(lines)]
        head = f"@triton.jit\ndef kernel({', '.join([*names, *self.numbers()])}):\n"
        return "\n\n".join([*used, head + "".join(f"    {line}\n" for line in lines or ["pass"])])


def walk(instructions: Sequence[Instruction]) -> Iterator[Instruction]:
    """All instructions, those of bodies too."""
    for instruction in instructions:
        yield instruction
        for body in instruction.bodies:
            yield from walk(body.instructions)


def evaluate(instruction: Instruction, environment: Environment, inputs: dict[str, Input], pid: int) -> None:
    """Put the instruction's results into the environment."""
    op, attributes = instruction.op, instruction.attributes
    operands = [environment[i] for i in instruction.operands]
    if op in ELEMENTWISE:
        shape = np.broadcast_shapes(*(o.shape for o in operands))
        wide = [o.moved(lambda x: np.broadcast_to(x, shape)) for o in operands]
        results = [ELEMENTWISE[op].evaluate(operands[-1].dtype, *wide)]
    elif op == "load":
        results = [_loaded(inputs[attributes["input"]], attributes["layout"], attributes["other"], pid)]
    elif op == "gather_load":
        storage = inputs[attributes["input"]]
        index = (operands[0].exact & attributes["last"]).astype(np.int64)
        results = [Value(storage.dtype, storage.storage[index])]
    elif op == "again":
        layout: Layout = attributes["layout"]
        results = [operands[0].moved(lambda x: np.ravel(x)[layout.positions(0)])]
    elif op == "loop":
        (body,) = instruction.bodies
        inner = dict(environment)
        for step in range(attributes["begin"], attributes["end"].value, attributes["step"]):
            values = operands if step == attributes["begin"] else [inner[y] for y in body.yields]
            inner |= dict(zip(body.arguments, [*values, Value("int32", np.asarray(np.int32(step)))], strict=True))
            for nested in body.instructions:
                evaluate(nested, inner, inputs, pid)
        ran = attributes["end"].value > attributes["begin"]
        results = [inner[y] for y in body.yields] if ran else operands
    elif op == "if":
        body = instruction.bodies[0 if operands[0].exact else 1]
        inner = dict(environment)
        for nested in body.instructions:
            evaluate(nested, inner, inputs, pid)
        results = [inner[y] for y in body.yields]
    else:
        results = BLOCKS[op].evaluate(operands, {**attributes, "pid": pid})
    environment.update(zip(instruction.results, results, strict=True))


def _loaded(source: Input, layout: Layout, other: Any, pid: int) -> Value:
    inside = layout.inside()
    data = source.storage[np.where(inside, layout.positions(pid), 0)]
    outside = (
        approximate(source.dtype, np.asarray(float(other)), np.asarray(0.0)).data if is_float(source.dtype) else other
    )
    return Value(source.dtype, np.where(inside, data, np.asarray(outside, data.dtype)))


def text(instruction: Instruction) -> list[str]:
    """The lines of one instruction."""
    op, attributes = instruction.op, instruction.attributes
    names = [f"v{i}" for i in instruction.operands]
    left = ", ".join(f"v{i}" for i in instruction.results)
    if op in ELEMENTWISE:
        right = ELEMENTWISE[op].text.format(*names, bits=width(attributes["dtype"]) - 1)
        return [f"{left} = {right}"]
    if op == "load":
        return [f"{left} = {_load(attributes)}"]
    if op == "gather_load":
        return [f"{left} = tl.load({attributes['input']} + ({names[0]} & {attributes['last']}))"]
    if op == "again":
        scratch, layout = attributes["scratch"], attributes["layout"]
        return [
            f"tl.store({attributes['written'].address(scratch)}, {names[0]})",
            "tl.debug_barrier()",
            f"{left} = tl.load({layout.address(scratch)})",
        ]
    if op == "loop":
        return _loop(instruction, names, left)
    if op == "if":
        lines = [f"if {names[0]}:"]
        for body, between in zip(instruction.bodies, ("else:", None), strict=True):
            inner = [line for nested in body.instructions for line in text(nested)]
            inner.append(f"{left} = {', '.join(f'v{y}' for y in body.yields)}")
            lines += ["    " + line for line in inner] + [between] * (between is not None)
        return lines
    return [f"{left} = {BLOCKS[op].text(names, attributes)}"]


def _load(attributes: dict[str, Any]) -> str:
    layout: Layout = attributes["layout"]
    masked = any(n is not None for n in layout.limits)
    if layout.block_pointer:
        check = f", boundary_check={layout.checked()}, padding_option='zero'" if masked else ""
        return f"tl.load({layout.pointer(attributes['input'])}{check})"
    mask = f", mask={layout.mask()}, other={literal(attributes['other'])}" if masked else ""
    return f"tl.load({layout.address(attributes['input'])}{mask})"


def _loop(instruction: Instruction, names: list[str], left: str) -> list[str]:
    (body,) = instruction.bodies
    attributes = instruction.attributes
    carried = ", ".join(f"v{a}" for a in body.arguments[:-1])
    inner = [line for nested in body.instructions for line in text(nested)]
    inner.append(f"{carried} = {', '.join(f'v{y}' for y in body.yields)}")
    counter = f"v{body.arguments[-1]}"
    bounds = f"{attributes['begin']}, {attributes['end']}, {attributes['step']}"
    lines = [f"{carried} = {', '.join(names)}"]
    if attributes["kind"] == "while":
        inner.append(f"{counter} += {attributes['step']}")
        lines += [
            f"{counter} = tl.full((), {attributes['begin']}, tl.int32)",
            f"while {counter} < {attributes['end']}:",
        ]
    else:
        lines.append(f"for {counter} in {attributes['kind']}({bounds}):")
    return lines + ["    " + line for line in inner] + [f"{left} = {carried}"]


def _store(output: Output) -> list[str]:
    layout, value = output.layout, f"v{output.value}"
    masked = any(n is not None for n in layout.limits)
    if output.atomic is not None:
        at = f"{output.name} + tl.program_id(0) * {layout.step} + (v{output.index} & {layout.size - 1})"
        return [f"tl.atomic_{output.atomic}({at}, {value})"]
    if layout.block_pointer:
        check = f", boundary_check={layout.checked()}" if masked else ""
        return [f"tl.store({layout.pointer(output.name)}, {value}{check})"]
    return [f"tl.store({layout.address(output.name)}, {value}" + (f", mask={layout.mask()}" if masked else "") + ")"]
