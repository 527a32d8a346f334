"""Operations of Triton on whole blocks: shapes, reductions, scans, sorts, gathers, products."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuzzing.formats import Array, in_language
from fuzzing.kernel_ops import cast
from fuzzing.kernel_reference import (
    COMBINE,
    Attributes,
    argument,
    bitcast,
    dot,
    extreme,
    full,
    histogram,
    in_order,
    pairs,
    running_product,
    scanned,
    summed,
)
from fuzzing.values import Value


@dataclass(frozen=True)
class Block:
    """text: of the right-hand side, from the operands' names and the attributes; several results have commas between.

    evaluate: the results' values."""

    text: Callable[[list[str], Attributes], str]
    evaluate: Callable[[list[Value], Attributes], list[Value]]


HELPERS = """
@triton.jit
def first_largest(a, i, b, j):
    take = (a > b) | ((a == b) & (i < j))
    return tl.where(take, a, b), tl.where(take, i, j)

@triton.jit
def sum_and_product(a, p, b, q):
    return a + b, p * q

@triton.jit
def largest_and_count(a, m, b, n):
    return tl.where(a > b, a, b), tl.where(a == b, m + n, tl.where(a > b, m, n))

@triton.jit
def affine(a, b, c, d):
    return a * c, b * c + d

@triton.jit
def larger(a, b):
    return tl.where(a > b, a, b)

@triton.jit
def exclusive_or(a, b):
    return a ^ b
"""


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def _tree(operands: list[Value], attributes: Attributes) -> list[Value]:
    return pairs(operands, attributes["axis"], COMBINE[attributes["function"]], attributes["scan"])


def _one(evaluate: Callable[[Value, Attributes], Value]) -> Callable[[list[Value], Attributes], list[Value]]:
    return lambda operands, attributes: [evaluate(operands[0], attributes)]


def _same_kind(value: Value, attributes: Attributes) -> Value:
    """A move of elements by NumPy's function in the attributes."""
    return value.moved(MOVES[attributes["move"]](attributes))


MOVES: dict[str, Callable[[Attributes], Callable[[Array], Array]]] = {
    "reshape": lambda at: lambda x: np.reshape(x, at["shape"]),
    "permute": lambda at: lambda x: np.transpose(x, at["order"]),
    "expand": lambda at: lambda x: np.expand_dims(x, at["axis"]),
    "broadcast": lambda at: lambda x: np.broadcast_to(x, at["shape"]),
    "flip": lambda at: lambda x: np.flip(x, at["axis"]),
}


def _moving(name: str, text: Callable[[list[str], Attributes], str]) -> Block:
    return Block(text, lambda operands, attributes: [operands[0].moved(MOVES[name](attributes))])


def _joined(a: Value, b: Value, join: Callable[[list[Array]], Array]) -> Value:
    error = None if a.error is None and b.error is None else join([a.errors, b.errors])
    return Value(a.dtype, join([a.data, b.data]), error)


def _interleave(arrays: list[Array]) -> Array:
    stacked = np.stack(arrays, -1)
    return stacked.reshape(*stacked.shape[:-2], -1)


BLOCKS: dict[str, Block] = {
    "reshape": _moving("reshape", lambda n, at: f"tl.reshape({n[0]}, {_shape(at['shape'])})"),
    "permute": _moving("permute", lambda n, at: f"tl.permute({n[0]}, {_shape(at['order'])})"),
    "expand": _moving("expand", lambda n, at: f"tl.expand_dims({n[0]}, {at['axis']})"),
    "broadcast": _moving("broadcast", lambda n, at: f"tl.broadcast_to({n[0]}, {_shape(at['shape'])})"),
    "flip": _moving("flip", lambda n, at: f"tl.flip({n[0]}, {at['axis']})"),
    "join": Block(
        lambda n, at: f"tl.join({n[0]}, {n[1]})", lambda v, at: [_joined(v[0], v[1], lambda a: np.stack(a, -1))]
    ),
    "interleave": Block(
        lambda n, at: f"tl.interleave({n[0]}, {n[1]})", lambda v, at: [_joined(v[0], v[1], _interleave)]
    ),
    "cat": Block(
        lambda n, at: f"tl.cat({n[0]}, {n[1]}, can_reorder=True)",
        lambda v, at: [_joined(v[0], v[1], np.concatenate)],
    ),
    "split": Block(
        lambda n, at: f"tl.split({n[0]})",
        lambda v, at: [v[0].moved(lambda x: x[..., 0]), v[0].moved(lambda x: x[..., 1])],
    ),
    "cast": Block(lambda n, at: f"{n[0]}.to({in_language(at['dtype'])})", _one(lambda v, at: cast(v, at["dtype"]))),
    "bitcast": Block(
        lambda n, at: f"{n[0]}.to({in_language(at['dtype'])}, bitcast=True)",
        _one(lambda v, at: bitcast(v, at["dtype"])),
    ),
    "sum": Block(lambda n, at: f"tl.sum({n[0]}, {at['axis']})", _one(lambda v, at: summed(v, at["axis"]))),
    "max": Block(
        lambda n, at: f"tl.max({n[0]}, {at['axis']}).to({in_language(at['dtype'])})",
        _one(lambda v, at: extreme(v, at["axis"], True)),
    ),
    "min": Block(
        lambda n, at: f"tl.min({n[0]}, {at['axis']}).to({in_language(at['dtype'])})",
        _one(lambda v, at: extreme(v, at["axis"], False)),
    ),
    "argmax": Block(
        lambda n, at: f"tl.argmax({n[0]}, {at['axis']})", _one(lambda v, at: argument(v, at["axis"], True))
    ),
    "argmin": Block(
        lambda n, at: f"tl.argmin({n[0]}, {at['axis']})", _one(lambda v, at: argument(v, at["axis"], False))
    ),
    "xor_sum": Block(
        lambda n, at: f"tl.xor_sum({n[0]}, {at['axis']})",
        _one(lambda v, at: Value(v.dtype, np.asarray(np.bitwise_xor.reduce(v.exact, at["axis"])))),
    ),
    "pairs": Block(
        lambda n, at: (
            f"tl.{'associative_scan' if at['scan'] else 'reduce'}(({n[0]}, {n[1]}), {at['axis']}, {at['function']})"
        ),
        _tree,
    ),
    "cumsum": Block(
        lambda n, at: f"tl.cumsum({n[0]}, {at['axis']}, reverse={at['reverse']})",
        _one(lambda v, at: summed(v, at["axis"], True, at["reverse"])),
    ),
    "cumprod": Block(
        lambda n, at: f"tl.cumprod({n[0]}, {at['axis']}, reverse={at['reverse']})",
        _one(lambda v, at: running_product(v, at["axis"], at["reverse"])),
    ),
    "scan": Block(
        lambda n, at: f"tl.associative_scan({n[0]}, {at['axis']}, {at['function']}, reverse={at['reverse']})",
        _one(lambda v, at: scanned(v, at["axis"], at["function"], at["reverse"])),
    ),
    "sort": Block(
        lambda n, at: f"tl.sort({n[0]}, descending={at['descending']})",
        _one(lambda v, at: in_order(v, at["descending"], None)),
    ),
    "topk": Block(  # it goes through tl.max, which widens
        lambda n, at: f"tl.topk({n[0]}, {at['k']}).to({in_language(at['dtype'])})",
        _one(lambda v, at: in_order(v, True, at["k"])),
    ),
    "gather": Block(
        lambda n, at: f"tl.gather({n[0]}, {n[1]} & {at['last']}, {at['axis']})",
        lambda v, at: [
            v[0].moved(lambda x: np.take_along_axis(x, (v[1].exact & at["last"]).astype(np.int64), at["axis"]))
        ],
    ),
    "histogram": Block(
        lambda n, at: f"tl.histogram({n[0]}, {at['bins']})", _one(lambda v, at: histogram(v, at["bins"]))
    ),
    "dot": Block(
        lambda n, at: f"tl.dot({', '.join(n)}, input_precision='ieee'{_out(at)})",
        lambda v, at: [dot(v[0], v[1], v[2] if len(v) == 3 else None)],
    ),
    "full": Block(
        lambda n, at: f"tl.full({_shape(at['shape'])}, {literal(at['value'])}, {in_language(at['dtype'])})",
        lambda v, at: [full(at)],
    ),
    "arange": Block(
        lambda n, at: f"tl.arange({at['start']}, {at['end']})",
        lambda v, at: [Value("int32", np.arange(at["start"], at["end"], dtype=np.int32))],
    ),
    "program": Block(lambda n, at: "tl.program_id(0)", lambda v, at: [Value("int32", np.asarray(np.int32(at["pid"])))]),
}


def _out(attributes: Attributes) -> str:
    dtype = attributes["dtype"]
    return ", out_dtype=tl.int32" if dtype == "int8" else ", out_dtype=tl.float64" if dtype == "fp64" else ""


def literal(value: Any) -> str:
    """A number as a Triton program writes it."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)
