"""Computes nodes in numpy, each operation rounded as the kernel rounds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from torchport.numerics.trees.memory import NotFollowed
from torchport.numerics.trees.nodes import CONSTANT, LARGEST, LOAD, NONE, SMALLEST, Ids, Kind, Nodes

__all__ = ["Doubles", "apply", "compute", "needed"]

Doubles = npt.NDArray[np.float64]
_TORCH = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_NUMPY = {"f32": np.float32, "f64": np.float64}


def rounded(values: Doubles, type_: str) -> Doubles:
    """float64 values rounded once to a type (``f32``, ``bf16``), to nearest even."""
    if type_ == "f64":
        return values
    if type_ not in _TORCH:
        raise NotFollowed(f"values of {type_} are not computed")
    if type_ == "f32":
        with np.errstate(over="ignore"):
            return values.astype(np.float32).astype(np.float64)
    narrow = torch.from_numpy(to_odd(values)).to(_TORCH[type_])
    return narrow.double().numpy()


def to_odd(values: Doubles) -> Doubles:
    """float64 values as f32 ones in which the last bit says whether bits were lost: rounding these once more is right.

    (Boldo and Melquiond 2008.) PyTorch rounds float64 to halves by way of f32.
    """
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    lost = (near.astype(np.float64) != values) & np.isfinite(values) & np.isfinite(near)
    even = (near.view(np.uint32) & 1) == 0
    up = near.astype(np.float64) < values
    other = np.where(up, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf)))
    return np.where(lost & even, other, near).astype(np.float64)


def fused(a: Doubles, b: Doubles, c: Doubles, type_: str) -> Doubles:
    """a b + c rounded once to f32 or a shorter type: products of those are exact in float64.

    The sum is rounded to odd in float64 first, which is exact after the second rounding (Boldo and Melquiond 2008).
    """
    if type_ == "f64":
        raise NotFollowed("a fused operation of float64 is not computed")
    with np.errstate(all="ignore"):
        product = a * b
        total = product + c
        back = total - product
        error = (product - (total - back)) + (c - back)  # Knuth's two-sum
        lost = np.isfinite(total) & np.isfinite(error) & (error != 0)
        even = (total.view(np.uint64) & 1) == 0
        toward = np.where(error > 0, np.inf, -np.inf)
        total = np.where(lost & even, np.nextafter(total, toward), total)
    return rounded(total, type_)


_BINARY: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        "arith.addf": np.add,
        "arith.subf": np.subtract,
        "arith.mulf": np.multiply,
        "arith.divf": np.divide,
        "tt.precise_divf": np.divide,
    }
)
_EXACT: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "arith.negf": np.negative,
        "math.absf": np.abs,
        "math.floor": np.floor,
        "math.ceil": np.ceil,
        "arith.maximumf": np.maximum,
        "arith.minimumf": np.minimum,
        "arith.maxnumf": np.fmax,
        "arith.minnumf": np.fmin,
        LARGEST: lambda a, b: np.where((a > b) | np.isnan(a), a, b),
        SMALLEST: lambda a, b: np.where((a < b) | np.isnan(a), a, b),
        "arith.extf": lambda a: a,
        "arith.andi": lambda a, b: (a.astype(bool) & b.astype(bool)).astype(float),
        "arith.ori": lambda a, b: (a.astype(bool) | b.astype(bool)).astype(float),
        "arith.xori": lambda a, b: (a.astype(bool) ^ b.astype(bool)).astype(float),
        "arith.select": lambda c, a, b: np.where(c.astype(bool), a, b),
    }
)


def _predicate(number: int, a: Doubles, b: Doubles) -> Doubles:
    """``arith.cmpf``."""
    unordered = np.isnan(a) | np.isnan(b)
    tests = (
        np.zeros_like(unordered), a == b, a > b, a >= b, a < b, a <= b, (a != b) & ~unordered, ~unordered,
        (a == b) | unordered, ~(a <= b), ~(a < b), ~(a >= b), ~(a > b), a != b, unordered, np.ones_like(unordered),
    )  # fmt: skip
    return tests[number].astype(float)


def apply(kind: Kind, operands: list[Doubles], functions: Mapping[str, Callable[..., Doubles]]) -> Doubles:
    """One operation on float64 values that hold values of its types. Raises NotFollowed for one that is not known."""
    name = kind.name
    with np.errstate(all="ignore"):
        if name in _BINARY:
            if kind.type in _NUMPY:
                type_ = _NUMPY[kind.type]
                return np.asarray(_BINARY[name](*(one.astype(type_) for one in operands)), np.float64)
            return rounded(_BINARY[name](*operands), kind.type)
        if name == "math.fma":
            return fused(operands[0], operands[1], operands[2], kind.type)
        if name in ("math.sqrt", "tt.precise_sqrt") or kind.detail in ("tp_sqrt_f32", "tp_sqrt_f64"):
            return np.asarray(np.sqrt(operands[0].astype(_NUMPY[kind.type])), np.float64)
        if name in ("arith.truncf", "arith.sitofp", "arith.uitofp"):
            return rounded(operands[0], kind.type)
        if name == "arith.cmpf":
            return _predicate(int(kind.detail), *operands)
        if name == "pick":
            return operands[0 if kind.detail == "first" else 1]
        known = _EXACT.get(name) or functions.get(kind.detail if "extern" in name else name)
        if known is not None:
            return np.asarray(known(*operands), np.float64)
    raise NotFollowed(f"{name} of {kind.type} is not computed")


def needed(nodes: Nodes, roots: Ids) -> Ids:
    """The nodes that ``roots`` are computed from, ascending."""
    table, wanted = nodes.table(), np.zeros(nodes.count, bool)
    is_load = np.array([kind.name == LOAD for kind in nodes.kinds], bool)
    is_constant = np.array([kind.name == CONSTANT for kind in nodes.kinds], bool)
    front = np.unique(roots[roots != NONE])
    while len(front):
        wanted[front] = True
        rows = table[front]
        loads, constants = is_load[rows[:, 0]], is_constant[rows[:, 0]]
        operands = np.concatenate([rows[~loads & ~constants, 1:].ravel(), rows[loads, 3]])
        front = np.unique(operands[operands != NONE])
        front = front[~wanted[front]]
    return np.flatnonzero(wanted)


def compute(
    nodes: Nodes,
    roots: Ids,
    storages: Mapping[int, torch.Tensor],
    functions: Mapping[str, Callable[..., Doubles]] = MappingProxyType({}),
) -> Doubles:
    """Values of ``roots``, from what the launch was given. Each operation is rounded in its own type.

    ``storages``: 1-D, by number. ``functions``: what ``math.exp`` and others are that are not rounded once, by name
    (``math.exp``, or a library's ``tp_exp_f32``), of float64 values that hold values of the operation's type. Raises
    NotFollowed for an operation that is not known.
    """
    table, values = nodes.table(), np.full(nodes.count, np.nan)
    data = {number: storage.double().numpy() for number, storage in storages.items() if storage.is_floating_point()}
    wanted = needed(nodes, roots)
    level = np.zeros(nodes.count, np.int64)
    kinds = nodes.kinds
    for node in wanted.tolist():  # operands come first
        kind, *operands = table[node].tolist()
        name = kinds[kind].name
        if name == CONSTANT:
            continue
        used = operands[2:] if name == LOAD else operands
        level[node] = 1 + max((level[one] for one in used if one != NONE), default=0)
    for depth in range(int(level.max(initial=0)) + 1):
        here = wanted[level[wanted] == depth]
        for number in np.unique(table[here, 0]).tolist():
            kind, group = kinds[number], here[table[here, 0] == number]
            rows = table[group]
            if kind.name == CONSTANT:
                values[group] = np.asarray(nodes.constants)[rows[:, 1]]
            elif kind.name == LOAD and kind.detail:
                values[group] = values[rows[:, 3]]
            elif kind.name == LOAD:
                for storage in np.unique(rows[:, 1]).tolist():
                    part = rows[:, 1] == storage
                    values[group[part]] = data[storage][rows[part, 2]]
            else:
                operands = [values[column] for column in rows[:, 1:].T if column[0] != NONE]
                values[group] = apply(kind, operands, functions)
    return np.where(roots == NONE, np.nan, values[roots])
