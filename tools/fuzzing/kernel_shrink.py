"""Kernels that are simpler by one step than a given one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fuzzing.kernel_layout import Layout, Number
from fuzzing.kernel_program import Input, Instruction, Output, Program
from fuzzing.values import Unknown


def smaller(program: Program) -> Iterator[Program]:
    """Fewer outputs, values loaded instead of computed, plain layouts, shorter loops, one program instance."""
    for output in program.outputs:
        if len(program.outputs) > 1:
            yield live(replace(program, outputs=(output,)))
    for output in program.outputs:
        if len(program.outputs) > 1:
            yield live(replace(program, outputs=tuple(o for o in program.outputs if o != output)))
    if program.grid > 1:
        yield replace(program, grid=1)
    for number, output in enumerate(program.outputs):
        if output.early:
            yield replace(program, outputs=_with(program.outputs, number, replace(output, early=False)))
    for number, instruction in reversed(list(enumerate(program.instructions))):
        for simpler in _simpler(program, number, instruction):
            yield live(simpler)
    for number, output in enumerate(program.outputs):
        plain = _plain(output.layout)
        if output.atomic is None and not output.in_place and plain != output.layout:
            simple = replace(output, layout=replace(plain, size=plain.size * program.grid))
            yield replace(program, outputs=_with(program.outputs, number, simple))


def _with(outputs: tuple[Output, ...], number: int, output: Output) -> tuple[Output, ...]:
    return (*outputs[:number], output, *outputs[number + 1 :])


def live(program: Program) -> Program:
    """Without instructions and inputs that no output needs."""
    needed = {o.value for o in program.outputs} | {o.index for o in program.outputs if o.index is not None}
    kept: list[Instruction] = []
    for instruction in reversed(program.instructions):
        if needed & set(instruction.results):
            kept.append(instruction)
            needed |= _uses(instruction)
    return replace(program, instructions=tuple(reversed(kept)))


def _uses(instruction: Instruction) -> set[int]:
    used = set(instruction.operands)
    for body in instruction.bodies:
        used |= set(body.yields)
        for nested in body.instructions:
            used |= _uses(nested)
    return used


def _simpler(program: Program, number: int, instruction: Instruction) -> Iterator[Program]:
    before, after = program.instructions[:number], program.instructions[number + 1 :]

    def instead(*new: Instruction, inputs: tuple[Input, ...] = ()) -> Program:
        return replace(program, instructions=(*before, *new, *after), inputs=(*program.inputs, *inputs))

    if instruction.op == "load":
        plain = _plain(instruction.attributes["layout"])
        if plain != instruction.attributes["layout"]:
            yield from _loaded(program, instruction, instead)
        return
    if instruction.op not in ("full", "arange", "program"):
        yield from _loaded(program, instruction, instead)
    if instruction.op == "loop":
        (body,) = instruction.bodies
        about = instruction.attributes
        for trips in (1, 2):
            shorter = {**about, "begin": 0, "end": Number(trips), "step": 1, "kind": "range"}
            if shorter != about:
                yield instead(replace(instruction, attributes=shorter))
        for index in range(len(body.yields)):
            yields = tuple(body.arguments[i] if i == index else y for i, y in enumerate(body.yields))
            if yields != body.yields:
                yield instead(replace(instruction, bodies=(replace(body, yields=yields),)))
    for place, body in enumerate(instruction.bodies):
        used = set(body.yields).union(*map(_uses, body.instructions))
        rest = tuple(i for i in body.instructions if used & set(i.results))
        if len(rest) < len(body.instructions):
            bodies = [*instruction.bodies]
            bodies[place] = replace(body, instructions=rest)
            yield instead(replace(instruction, bodies=tuple(bodies)))


def _loaded(program: Program, instruction: Instruction, instead: object) -> Iterator[Program]:
    """The instruction's results come from memory."""
    assert callable(instead)
    try:
        environments = program.evaluate()
    except Unknown:
        return
    loads, inputs = [], []
    for result in instruction.results:
        values = [e[result] for e in environments]
        if not all(v.is_exact for v in values):
            return
        name = f"y{result}"
        inputs.append(Input(name, values[0].dtype, np.concatenate([np.ravel(v.data) for v in values])))
        layout = _plain(Layout(values[0].shape, (), Number(0), 0, (), 0))
        loads.append(Instruction("load", (), (result,), {"input": name, "layout": layout, "other": 0}))
    yield instead(*loads, inputs=tuple(inputs))


def _plain(layout: Layout) -> Layout:
    """Contiguous, without a mask and without arguments."""
    size = math.prod(layout.shape)
    strides = [Number(math.prod(layout.shape[axis + 1 :])) for axis in range(len(layout.shape))]
    return Layout(layout.shape, tuple(strides), Number(size), 0, (None,) * len(layout.shape), size)
