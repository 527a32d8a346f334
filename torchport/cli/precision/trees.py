"""``torchport trees`` and ``torchport invariant``: in which order a Triton kernel adds, and rows of other batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from torchport.cli.model import load_function
from torchport.errors import OptionError
from torchport.numerics.algebra.launch import AlgebraLaunch
from torchport.target import Target

__all__ = ["invariant", "trees"]

_SHOWN = 8


def trees(kernel: str, target: str, elements: list[str], *, as_json: bool) -> int:
    """Print the summation trees of a kernel (``FILE.py:FUNCTION``). Returns the exit status: 2 if they are not known.

    ``elements``: ``NAME[PLACE]`` each; none for one tree of each kind. Raises OptionError and CompilationError.
    """
    from torchport.numerics.trees.memory import NotFollowed
    from torchport.precision.trees import kernel_trees

    try:
        parsed = Target.parse(target)
        launch = _launch(kernel, load_function(kernel)(), parsed)
        found = kernel_trees(launch, [_element(one) for one in elements], parsed)
    except NotFollowed as error:
        print(json.dumps({"not_followed": str(error)}) if as_json else f"NOT FOLLOWED: {error}")
        return 2
    if as_json:
        print(json.dumps([one.as_json() for one in found], indent=1))
        return 0
    if not found:
        print("the kernel writes no floats that it computes")
    for one in found[:_SHOWN]:
        alike = "" if one.elements == 1 else f", and {one.elements - 1} more in the same order"
        print("\n".join([f"{one.argument}[{one.element}]{alike}:", *("  " + line for line in one.lines())]))
    if len(found) > _SHOWN:
        print(f"and {len(found) - _SHOWN} more kinds of elements")
    return 0


def _launch(name: str, made: Any, target: Target) -> AlgebraLaunch:
    """The launch that a user's function returned. Raises OptionError if it is none."""
    from torchport.precision.equal import launch_of

    function, grid, arguments = made if isinstance(made, tuple) and len(made) == 3 else (None, None, None)
    if not hasattr(function, "params") or not isinstance(arguments, Mapping):
        raise OptionError(f"{name} must return (kernel, grid, arguments): a @triton.jit function, and a dict by name")
    return launch_of(function, grid, arguments, target=target)


def invariant(kernel: str, target: str, *, as_json: bool) -> int:
    """Print whether rows of a kernel (``FILE.py:FUNCTION``) depend on their batch. Returns the exit status.

    ``FUNCTION(rows)``: the launch for so many rows. Raises OptionError and CompilationError.
    """
    from torchport.numerics.trees.invariance import CERTIFIED, DEPENDS, invariance

    made: Callable[[int], Any] = load_function(kernel)
    parsed = Target.parse(target)

    def launch(rows: int) -> AlgebraLaunch:
        return _launch(kernel, made(rows), parsed)

    found = invariance(launch, parsed)
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
    elif found.verdict != CERTIFIED:
        print(f"{found.verdict}: {found.reason}")
    else:
        sizes = ", ".join(map(str, found.sizes))
        what = "batches of every size" if found.every_size else f"batches of {sizes} rows"
        print(f"CERTIFIED for {what}: {found.rows} rows are computed in one order, from their own data")
        if found.reason:
            print(f"  not for every size: {found.reason}")
    return {CERTIFIED: 0, DEPENDS: 1}.get(found.verdict, 2)


def _element(text: str) -> tuple[str, int]:
    name, bracket, rest = text.partition("[")
    if not bracket or not rest.endswith("]") or not rest[:-1].isdigit():
        raise OptionError(f"{text!r} is no element: NAME[PLACE], as y[0]")
    return name, int(rest[:-1])
