"""Programs that are simpler by one step than a given one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from fuzzing.graph_program import Program


def smaller(program: Program) -> Iterator[Program]:
    """Fewer lines, results and inputs, plainer inputs, smaller sizes; a program with a missing name is not tried."""
    count = len(program.lines)
    for size in (count // 2, count // 4, 1):
        for begin in range(count - size, -1, -max(size, 1)):
            if size:
                yield from _complete(replace(program, lines=program.lines[:begin] + program.lines[begin + size :]))
    for result in program.results:
        if len(program.results) > 1:
            yield replace(program, results=tuple(r for r in program.results if r != result))
    text = " ".join([*program.lines, *program.results])
    used = tuple(i for i in program.inputs if re.search(rf"\b{i.name}\b", text))
    if len(used) < len(program.inputs):
        yield replace(program, inputs=used)
    for number, given in enumerate(program.inputs):
        for simpler in (
            replace(given, layout="plain"), replace(given, kind="small"), replace(given, kind="normal"),
            replace(given, growing=False), replace(given, grad=False), replace(given, dtype="float32"),
        ):  # fmt: skip
            if simpler != given and not (given.kind == "small" and simpler.kind == "normal"):
                yield replace(program, inputs=(*program.inputs[:number], simpler, *program.inputs[number + 1 :]))
    if program.calls > 1:
        yield replace(program, calls=1)
    if program.dynamic is not False:
        yield replace(program, dynamic=False)
    for number, line in enumerate(program.lines):
        if copy := re.fullmatch(r"(\w+) = .*?\b([vx]\d+)\b.*", line):  # a result becomes one of its operands
            plain = f"{copy[1]} = {copy[2]}"
            if plain != line:
                yield replace(program, lines=(*program.lines[:number], plain, *program.lines[number + 1 :]))


def _complete(program: Program) -> Iterator[Program]:
    """The program, with results that are still there, if no line uses a name that is not."""
    names = {i.name for i in program.inputs}
    for line in program.lines:
        right = line.split(" = ", 1)[-1] if re.match(r"[\w, ]+ = ", line) else line
        if not set(re.findall(r"\b[vx]\d+\b", right)) <= names:
            return
        if right is not line:
            names |= set(re.findall(r"\bv\d+\b", line.split(" = ", 1)[0]))
    results = tuple(r for r in program.results if r in names)
    yield replace(program, results=results or (program.inputs[0].name and (program.inputs[0].name,)))
