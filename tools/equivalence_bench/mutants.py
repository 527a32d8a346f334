"""Mutants of kernels: TTIR with one fault each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Mutant", "mutants"]

_VALUE = r"%[\w$.#-]+"
_BINARY = re.compile(rf"^(\s*)({_VALUE}) = (arith\.(?:addf|subf|mulf|divf)) ({_VALUE}), ({_VALUE}) (:.*|fastmath.*)$")
_EXTREME = re.compile(r"arith\.(max|min)(imumf|numf)")
_CONSTANT = re.compile(
    r"^(\s*%[\w$.#-]+ = arith\.constant (?:dense<)?)(-?\d\.\d+E?e?[+-]?\d*)(>? : (?:tensor<[\dx]*)?[a-z]*f\d+>?)$"
)
_COMPARISON = re.compile(rf"^(\s*)({_VALUE} = arith\.cmpi slt, {_VALUE}), ({_VALUE}) : (tensor<[\dx]+i32>|i32)$")
_AXIS = re.compile(r"axis = ([01]) : i32")
_SQUARE = re.compile(r"tensor<(\d+)x(\1)xf32>")
_LOOP = re.compile(r"scf\.for .*iter_args\((.*?)\) ->")
_FUNCTIONS = {
    "math.exp ": "math.exp2 ", "math.exp2 ": "math.exp ", "tp_rsqrt_f32": "tp_sqrt_f32", "tp_exp_f32": "tp_exp2_f32",
    "math.rsqrt ": "math.sqrt ", "tp_erf_f32": "tp_tanh_f32", "tp_tanh_f32": "tp_erf_f32", "math.sqrt ": "math.rsqrt ",
    "math.erf ": "math.tanh ", "math.log ": "math.log2 ", "math.cos ": "math.sin ", "math.sin ": "math.cos ",
    "tp_cos_f32": "tp_sin_f32", "tp_sin_f32": "tp_cos_f32",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A fault: its kind, the line that has it, and the whole text."""

    kind: str
    line: str
    ttir: str


def mutants(ttir: str) -> Iterator[Mutant]:
    """All mutants of a kernel. Some compute the same as before, and some are not valid TTIR."""
    lines = ttir.split("\n")
    carried = {name.strip() for found in _LOOP.finditer(ttir) for name in re.findall(rf"({_VALUE}) =", found[1])}
    for number, line in enumerate(lines):
        for kind, change in _CHANGES.items():
            for changed in change(line, lines[number:], carried):
                replaced = changed.split("\n")
                name, text = kind, [*lines[:number], *replaced, *lines[number + 1 :]]
                if kind == "a lost term" and _loses_carried(line, carried):
                    name = "a missing rescale" if "mulf" in line else "a lost sum"
                yield Mutant(name, line.strip(), "\n".join(text))


def _loses_carried(line: str, carried: set[str]) -> bool:
    found = _BINARY.match(line)
    return found is not None and bool({found[4], found[5]} & carried)


def _constants(line: str, rest: list[str], carried: set[str]) -> Iterator[str]:
    if found := _CONSTANT.match(line):
        yield f"{found[1]}{float(found[2]) * 1.25 + 0.125:e}{found[3]}"


def _swaps(line: str, rest: list[str], carried: set[str]) -> Iterator[str]:
    if (found := _BINARY.match(line)) and found[3] in ("arith.subf", "arith.divf") and found[4] != found[5]:
        yield f"{found[1]}{found[2]} = {found[3]} {found[5]}, {found[4]} {found[6]}"


_OTHER = {
    "arith.addf": "arith.subf",
    "arith.subf": "arith.addf",
    "arith.mulf": "arith.addf",
    "arith.divf": "arith.mulf",
}


def _operators(line: str, rest: list[str], carried: set[str]) -> Iterator[str]:
    if found := _BINARY.match(line):
        yield f"{found[1]}{found[2]} = {_OTHER[found[3]]} {found[4]}, {found[5]} {found[6]}"
    elif found := _EXTREME.search(line):
        yield line.replace(found[0], f"arith.{'min' if found[1] == 'max' else 'max'}{found[2]}")


def _lost_terms(line: str, rest: list[str], carried: set[str]) -> Iterator[str]:
    """The result is one of the operands: selected by a constant."""
    if found := _BINARY.match(line):
        kept = found[4] if found[4] in carried or found[5] not in carried else found[5]
        yield (
            f"{found[1]}%lost = arith.constant true\n"
            f"{found[1]}{found[2]} = arith.select %lost, {kept}, {kept} {found[6]}"
        )


def _short_masks(line: str, rest: list[str], carried: set[str]) -> Iterator[str]:
    if found := _COMPARISON.match(line):
        one = f"dense<1> : {found[4]}" if found[4].startswith("tensor") else f"1 : {found[4]}"
        yield (
            f"{found[1]}%short_one = arith.constant {one}\n"
            f"{found[1]}%short = arith.subi {found[3]}, %short_one : {found[4]}\n"
            f"{found[1]}{found[2]}, %short : {found[4]}"
        )


def _axes(line: str, rest: list[str], carried: set[str]) -> Iterator[str]:
    """A reduction of a square along its other axis."""
    if '"tt.reduce"' not in line or not (found := _AXIS.search(line)):
        return
    signature = next((one for one in rest if one.strip().startswith("})")), "")
    if _SQUARE.search(signature):
        # the result keeps its layout-free type: a square has as many rows as columns
        yield line.replace(found[0], f"axis = {1 - int(found[1])} : i32")


def _functions(line: str, rest: list[str], carried: set[str]) -> Iterator[str]:
    for old, new in _FUNCTIONS.items():
        if old in line:
            yield line.replace(old, new)


_CHANGES: dict[str, Callable[[str, list[str], set[str]], Iterator[str]]] = {
    "a constant": _constants,
    "operands swapped": _swaps,
    "another operator": _operators,
    "a lost term": _lost_terms,
    "a mask one short": _short_masks,
    "the wrong axis": _axes,
    "another function": _functions,
}
