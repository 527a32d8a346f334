"""Runs a linked program as a Python function that is written for it."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torchport.errors import ArtifactError
from torchport.program import operators
from torchport.program.linking import Drop, Instruction, Linked, OtherMemory, link
from torchport.program.steps import Program

__all__ = ["Executor"]


class Executor:
    """A program that runs in this process.

    ``executor(tensors)`` takes a list of the inputs that change, empties it and returns the results in a list. Threads
    may call it at once, as far as the program writes none of its constants and ``kept`` is empty. ``run`` is the same,
    without a frame of Python in between.
    """

    def __init__(
        self,
        program: Program,
        kernels: Mapping[str, Callable[..., None]],
        constants: Mapping[str, Any] | None = None,
        kept: Collection[int] = (),
        namespaces: Collection[str] = operators.NAMESPACES,
        memory: OtherMemory | None = None,
    ) -> None:
        """Link ``program``.

        kernels: the launch of each kernel, by name.
        constants: inputs that are the same at each call, by name; the others are given at each call, in their order.
        kept: numbers of steps that allocate a buffer, which is allocated once and lives on between calls.
        namespaces: whose operators it may call.
        memory: how it computes where kernels have memory of their own; None where they run in the tensors' memory.

        Raises ArtifactError for a program that names an operation, operator, kernel or value that there is not.
        """
        linked = link(program, kernels, constants or {}, kept, namespaces, memory)
        self.inputs = linked.inputs
        self.run = _function(linked)

    def __call__(self, inputs: list[Any]) -> list[Any]:
        """Run the program. ``inputs``: one value for each of ``inputs``; what they are is not checked."""
        return self.run(inputs)


def _function(linked: Linked) -> Callable[[list[Any]], list[Any]]:
    """The program as a function. Names in its source are numbers of places and functions, nothing from the program."""
    scope: dict[str, Any] = {f"v{place}": linked.template[place] for place in linked.known}
    functions: dict[int, str] = {}
    for one in linked.code:
        if isinstance(one, Instruction) and id(one.function) not in functions:
            functions[id(one.function)] = name = f"f{len(functions)}"
            scope[name] = one.function
    body = [_unpacked(len(linked.inputs)), "inputs.clear()"]
    body += [_deleted(one) if isinstance(one, Drop) else _call(one, functions[id(one.function)]) for one in linked.code]
    body.append(f"return [{', '.join(f'v{place}' for place in linked.results)}]")
    source = "\n ".join(["def run(inputs):", *body])
    exec(compile(source, "<torchport program>", "exec"), scope)
    found: Callable[[list[Any]], list[Any]] = scope["run"]
    return found


def _unpacked(count: int) -> str:
    return f"[{', '.join(f'v{place}' for place in range(count))}] = inputs"


def _deleted(one: Drop) -> str:
    return f"del {', '.join(f'v{place}' for place in one.places)}"


def _call(one: Instruction, function: str) -> str:
    for name in one.keywords:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ArtifactError(f"a program passes an argument {name[:40]!r}")
    arguments = [f"v{place}" for place in one.operands]
    arguments += [f"{name}=v{place}" for name, place in one.keywords.items()]
    to = "" if one.to is None else f"v{one.to} = "
    return f"{to}{function}({', '.join(arguments)})"
