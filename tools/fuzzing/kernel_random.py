"""A random kernel from one integer: what is computed, and which values are stored where."""

from __future__ import annotations

from fuzzing.formats import INTEGERS
from fuzzing.kernel_generate import Generator
from fuzzing.kernel_layout import Layout, Number
from fuzzing.kernel_program import Output, Program
from fuzzing.kernel_propose import propose


def random_program(seed: int) -> Program:
    """The program of a seed."""
    g = Generator(seed)
    for _ in range(g.random.choice((1, 2, 2, 3))):
        g.load(g.random.choice(g.dtypes), g.shape)
    wanted = g.random.choice((2, 4, 6, 8, 12, 16))
    for _ in range(wanted * 6):
        if len(g.main) >= wanted + len(g.inputs):
            break
        propose(g)
    return Program(seed, g.grid, tuple(g.inputs), tuple(g.main), tuple(_outputs(g)))


def _outputs(g: Generator) -> list[Output]:
    used = {o for i in g.main for o in i.operands}
    leaves = [i for i in g.types if i not in used]
    rest = [i for i in g.types if i in used]
    chosen = leaves[-5:] + g.random.sample(rest, min(len(rest), g.random.choice((0, 1, 2))))
    outputs = []
    for number, value in enumerate(chosen):
        dtype, shape = g.types[value]
        early = g.random.random() < 0.5
        outputs.append(Output(f"o{number}", value, dtype, g.layout(dtype, shape, False), early=early))
    if g.random.random() < 0.3:
        outputs += _in_place(g)
    atomic = _atomic(g, len(chosen))
    return outputs + [atomic] * (atomic is not None)


def _atomic(g: Generator, number: int) -> Output | None:
    """Now and then, one of the values goes to memory by an atomic operation."""
    if g.random.random() > 0.15:
        return None
    value = g.pick(lambda d, s: d in ("int32", "int64", "uint32", "uint64") and bool(s))
    if value is None:
        return None
    dtype, shape = g.types[value]
    index = g.pick(lambda d, s: d in INTEGERS and s == shape)
    if index is None or not all(e[index].is_exact and e[value].is_exact for e in g.environments):
        return None
    size = g.random.choice((1, 8, 64))
    step = Number(size if g.random.random() < 0.5 else 0)
    layout = Layout((), (), step, 0, (), size, False)
    operation = g.random.choice(("add", "max", "min", "and", "or", "xor"))
    return Output(f"o{number}", value, dtype, layout, operation, index)


def _in_place(g: Generator) -> list[Output]:
    """One of the inputs' blocks is replaced by a value, behind everything that was loaded."""
    for instruction in g.main:
        if instruction.op == "load":
            layout: Layout = instruction.attributes["layout"]
            dtype, shape = g.types[instruction.results[0]]
            value = g.pick(lambda d, s: (d, s) == (dtype, shape))  # noqa: B023 - called at once
            distinct = all(n.value for n in layout.strides) and (layout.step.value or g.grid == 1)
            if value is not None and distinct:
                return [Output(instruction.attributes["input"], value, dtype, layout, in_place=True)]
    return []
