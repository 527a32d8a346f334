"""Sources that differ: those of the user's Triton kernels and of custom operators."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torchport.numerics.programs.difference import Condition, Difference, unified
from torchport.numerics.programs.user_kernels import UserKernel, user_kernels
from torchport.numerics.runs.reader import Run

__all__ = ["compare_kernels", "compare_operators"]

_BLOCKS = re.compile(
    r"BLOCK|TILE|CHUNK|GROUP_(?:SIZE_)?[MNK]|SPLIT|UNROLL|^[XYZR]\d?BLOCK|num_warps|num_stages|num_ctas|STAGES|WARPS|^EVEN_",
    re.IGNORECASE,
)
"""Compile-time constants that say how work is divided, by what they are called everywhere."""


_KNOWN = ("aten", "prims", "torchport", "mkldnn", "quantized")
"""Libraries whose operators come with PyTorch or torchport."""


def compare_kernels(a: Run, b: Run) -> tuple[list[Difference], list[Condition], list[str]]:
    """The user's kernels: differences in source and in constants, sizes of blocks, and notes."""
    first, second = _by_function(a), _by_function(b)
    differences: list[Difference] = []
    conditions: list[Condition] = []
    notes: list[str] = []
    only_a = [name for name in first if name not in second]
    only_b = [name for name in second if name not in first]
    pairs = [(name, name) for name in first if name in second]
    if len(only_a) == len(only_b):  # called otherwise
        pairs += zip(only_a, only_b, strict=True)
    else:
        notes += [f"kernel {name} of the user's runs in A only" for name in only_a]
        notes += [f"kernel {name} of the user's runs in B only" for name in only_b]
    for one, other in pairs:
        differences += _compare(one, other, first[one], second[other], conditions)
    return differences, conditions, notes


def _by_function(run: Run) -> dict[str, list[UserKernel]]:
    found: dict[str, list[UserKernel]] = {}
    for kernel in user_kernels(run.kernels):
        found.setdefault(kernel.function, []).append(kernel)
    return found


def _compare(
    one: str, other: str, a: list[UserKernel], b: list[UserKernel], conditions: list[Condition]
) -> Iterator[Difference]:
    name = one if one == other else f"{one} / {other}"
    if {kernel.form for kernel in a} != {kernel.form for kernel in b}:
        new = [kernel for kernel in b if kernel.form not in {known.form for known in a}] or b
        old = [kernel for kernel in a if kernel.form not in {known.form for known in b}] or a
        diff = unified(old[0].text.splitlines(), new[0].text.splitlines())
        changed = sum(line[:1] in "+-" for line in diff)
        yield Difference("kernel", name, f"kernel {name} has another source: {changed} lines of it differ", diff)
    blocks: list[dict[str, str]] = [{}, {}]
    others: list[dict[str, str]] = [{}, {}]
    for side, kernels in enumerate((a, b)):
        for key in sorted({key for kernel in kernels for key in kernel.constants}):
            values = sorted({repr(kernel.constants.get(key)) for kernel in kernels})
            (blocks if _BLOCKS.search(key) else others)[side][key] = " ".join(values)
    if blocks[0] != blocks[1]:
        conditions.append(Condition(f"blocks of {name}", *(_listed(one) for one in blocks)))
    for key in sorted({*others[0], *others[1]}):
        values = [side.get(key, "nothing") for side in others]
        if values[0] != values[1]:
            text = f"kernel {name} is compiled with {key} = {values[1]} in B, {values[0]} in A"
            yield Difference("kernel", name, text)


def _listed(values: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def compare_operators(a: Run, b: Run) -> tuple[list[Difference], list[str]]:
    """Custom operators: differences in source, and notes on those whose implementation no recording knows."""
    differences = []
    notes = []
    first, second = (dict(run.info.get("operators") or {}) for run in (a, b))
    for name in sorted({*first, *second}):
        one, other = first.get(name), second.get(name)
        if one is None or other is None or one == other:
            continue
        for device in sorted({*one, *other}):
            texts = [_lines(side.get(device)) for side in (one, other)]
            if texts[0] != texts[1]:
                summary = f"operator {name} is implemented otherwise ({device})"
                differences.append(Difference("operator", name, summary, unified(*texts)))
    called = [{one for launch in run.launches if _is_custom(one := launch.operation or "aten.")} for run in (a, b)]
    unknown = sorted(name for name in called[0] & called[1] if name not in first or name not in second)
    if unknown:
        notes.append(f"how {', '.join(unknown)} is implemented was not recorded: only its results can be compared")
    return differences, notes


def _lines(text: Any) -> list[str]:
    """Lines of a source without blank ones and comments on lines of their own, but for values that were added."""
    lines = [line.rstrip() for line in str(text or "").splitlines()]
    return [line for line in lines if line and (not line.lstrip().startswith("#") or re.match(r"# \w+ = |# no ", line))]


def _is_custom(operation: str) -> bool:
    return operation.partition(".")[0] not in _KNOWN
