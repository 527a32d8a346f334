"""Loops and branches of random kernels."""

from __future__ import annotations

from fuzzing.formats import INTEGERS, WIDE_FLOATS
from fuzzing.kernel_generate import Generator, elementwise
from fuzzing.kernel_layout import Number
from fuzzing.kernel_program import Body, Instruction


def loop(g: Generator) -> None:
    """A loop that carries one to three values through elementwise operations."""
    first = g.pick(lambda d, s: d in (*INTEGERS, *WIDE_FLOATS))
    if first is None:
        return
    shape = g.types[first][1]
    initial = [first]
    for _ in range(g.random.choice((0, 0, 1, 2))):
        initial.append(g.pick(lambda d, s: s == shape and d != "int1" and d[:3] != "fp8") or first)
    outer = g.types, g.environments, g.main
    arguments = [g.id() for _ in initial] + [g.id()]
    inside = [dict(e) for e in g.environments]
    for pid, environment in enumerate(inside):
        environment |= {a: g.environments[pid][i] for a, i in zip(arguments, initial, strict=False)}
    g.types = dict(g.types) | {a: g.types[i] for a, i in zip(arguments, initial, strict=False)}
    g.environments, g.main = inside, []
    for _ in range(g.random.choice((1, 2, 4, 6))):
        elementwise(g, shape)
    yields = []
    for argument in arguments[:-1]:
        kind = g.types[argument]
        made = [r for i in g.main for r in i.results if g.types[r] == kind]
        yields.append(g.random.choice(made) if made else argument)
    body = Body(tuple(arguments), tuple(g.main), tuple(yields))
    g.types, g.environments, g.main = outer
    kind = g.random.choice(("range", "range", "tl.range", "tl.static_range", "while"))
    begin, step = g.random.choice((0, 0, 1)), g.random.choice((1, 1, 2))
    trips = g.random.choice((0, 1, 2, 3, 5, 8))
    end = begin + trips * step - (step - 1 if trips else 0)
    results = tuple(g.id() for _ in initial)
    bound = Number(end) if kind == "tl.static_range" else g.number(end)
    about = {"begin": begin, "end": bound, "step": step, "kind": kind}
    g.append(Instruction("loop", tuple(initial), results, about, (body,)))


def branch(g: Generator) -> None:
    """An if with values from both sides."""
    condition = g.pick(lambda d, s: d == "int1" and s == ())
    if condition is None:
        program_id, other = g.add("program"), g.add("full", shape=(), dtype="int32", value=g.random.choice((0, 1)))
        assert program_id and other
        found = g.add(g.random.choice(("equal", "less")), [*program_id, *other], dtype="int32")
        assert found
        condition = found[0]
    first = g.pick(lambda d, s: d in (*INTEGERS, *WIDE_FLOATS))
    if first is None or not all(e[condition].is_exact for e in g.environments):
        return
    bodies = []
    for _ in range(2):
        outer = g.types, g.environments, g.main
        g.types, g.environments, g.main = dict(g.types), [dict(e) for e in g.environments], []
        for _ in range(g.random.choice((0, 1, 2))):
            elementwise(g, outer[0][first][1])
        made = [r for i in g.main for r in i.results if g.types[r] == outer[0][first]]
        bodies.append(Body((), tuple(g.main), (g.random.choice([first, *made]),)))
        g.types, g.environments, g.main = outer
    g.append(Instruction("if", (condition,), (g.id(),), {}, tuple(bodies)))
