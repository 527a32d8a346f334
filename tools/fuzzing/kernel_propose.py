"""What a random kernel may do next: each function adds one construct to a generator, or nothing where none fits."""

from __future__ import annotations

import math
from collections.abc import Callable

from fuzzing.formats import DTYPES, INTEGERS, WIDE_FLOATS, is_float, sample, width
from fuzzing.kernel_control import branch, loop
from fuzzing.kernel_generate import Generator, elementwise, splat
from fuzzing.kernel_program import Input, Layout, Number


def _any(dtype: str, shape: tuple[int, ...]) -> bool:
    return True


def _block(dtype: str, shape: tuple[int, ...]) -> bool:
    return bool(shape)


def cast(g: Generator) -> None:
    value = g.pick(_any)
    if value is None:
        return
    source = g.types[value][0]
    target = g.random.choice(DTYPES)
    if target == source or ({source, target} & {"fp8e4nv", "fp8e5"} and not (is_float(source) and is_float(target))):
        return
    if (source.startswith("fp8") and target.startswith("fp8")) or {source[:3], target} >= {"fp8", "fp64"}:
        return
    if target.startswith("fp8") and source == "fp64":
        return
    g.add("cast", [value], dtype=target)


def bitcast(g: Generator) -> None:
    value = g.pick(lambda d, s: d != "int1" and not d.startswith("fp8"))
    if value is not None:
        source = g.types[value][0]
        same = [d for d in DTYPES if d not in ("int1", source) and width(d) == width(source) and d[:3] != "fp8"]
        if same:
            g.add("bitcast", [value], dtype=g.random.choice(same))


def new_load(g: Generator) -> None:
    shape = g.shape
    value = g.pick(_any)
    if value is not None and g.random.random() < 0.7:
        shape = g.types[value][1]
    g.load(g.random.choice(g.dtypes), shape)


def constant(g: Generator) -> None:
    value = g.pick(_any)
    if value is not None:
        splat(g, *g.types[value])


def arange(g: Generator) -> None:
    value = g.pick(lambda d, s: len(s) == 1 and s[0] > 0)
    if value is not None:
        start = g.random.choice((0, 0, 4))
        g.add("arange", start=start, end=start + g.types[value][1][0])


def program(g: Generator) -> None:
    g.add("program")


def reshape(g: Generator) -> None:
    value = g.pick(_block)
    if value is None:
        return
    left = math.prod(g.types[value][1])
    shape = []
    for _ in range(g.random.choice((1, 2, 2, 3, 4))):
        shape.append(2 ** g.random.randrange(left.bit_length()))
        left //= shape[-1]
    shape.insert(g.random.randrange(len(shape) + 1), left)
    if left == 1 and len(shape) > 1:
        shape.remove(1)
    g.add("reshape", [value], shape=tuple(shape))


def permute(g: Generator) -> None:
    value = g.pick(lambda d, s: len(s) > 1)
    if value is not None:
        order = list(range(len(g.types[value][1])))
        g.random.shuffle(order)
        g.add("permute", [value], order=tuple(order))


def expand(g: Generator) -> None:
    value = g.pick(lambda d, s: 0 < len(s) < 4)
    if value is not None:
        g.add("expand", [value], axis=g.random.randrange(len(g.types[value][1]) + 1))


def broadcast(g: Generator) -> None:
    value = g.pick(lambda d, s: 1 in s)
    if value is None:
        return
    shape = list(g.types[value][1])
    for axis, length in enumerate(shape):
        if length == 1 and math.prod(shape) <= 512:
            shape[axis] = g.random.choice((1, 2, 8, 4))
    g.add("broadcast", [value], shape=tuple(shape))


def flip(g: Generator) -> None:
    value = g.pick(lambda d, s: bool(s) and d != "int1" and d[:3] != "fp8")
    if value is not None:
        g.add("flip", [value], axis=g.random.randrange(len(g.types[value][1])))


def join(g: Generator) -> None:
    first = g.pick(lambda d, s: len(s) < 4)
    if first is not None:
        second = g.pick(lambda d, s: (d, s) == g.types[first])
        shape = g.types[first][1]
        op = g.random.choice(("join", "interleave") + ("cat",) * (len(shape) == 1)) if shape else "join"
        g.add(op, [first, second or first])


def split(g: Generator) -> None:
    value = g.pick(lambda d, s: len(s) > 0 and s[-1] == 2)
    if value is not None:
        g.add("split", [value], results=2)


def reduction(g: Generator) -> None:
    op = g.random.choice(("sum", "sum", "max", "min", "argmax", "argmin", "xor_sum"))

    def fits(dtype: str, shape: tuple[int, ...]) -> bool:
        numeric = dtype in INTEGERS or (op != "xor_sum" and dtype in WIDE_FLOATS) or (op == "sum" and dtype == "int1")
        return bool(shape) and numeric

    value = g.pick(fits)
    if value is None:
        return
    dtype, shape = g.types[value]
    axis: int | None = g.random.randrange(len(shape))
    if op in ("sum", "max", "min") and g.random.random() < 0.2:
        axis = None
    g.add(op, [value], axis=axis, dtype=dtype)


def pairs(g: Generator) -> None:
    """Reductions and scans of two blocks at once."""
    function = g.random.choice(("first_largest", "sum_and_product", "largest_and_count", "affine"))
    scan = g.random.random() < 0.5 if function != "affine" else True
    first = g.pick(lambda d, s: d in ("int32", "int64", "uint32", "uint64") and bool(s))
    if first is not None:
        dtype, shape = g.types[first]
        second = g.pick(lambda d, s: (d, s) == (dtype, shape)) or first
        axis = g.random.randrange(len(shape))
        if function == "first_largest":
            second = g.pick(lambda d, s: d == dtype and s == shape) or first
        g.add("pairs", [first, second], results=2, function=function, scan=scan, axis=axis)


def scan(g: Generator) -> None:
    op = g.random.choice(("cumsum", "cumsum", "cumprod", "scan"))
    floats = () if op == "cumprod" else WIDE_FLOATS if op == "cumsum" else ("fp16", "fp32", "fp64")
    value = g.pick(lambda d, s: bool(s) and d in (*INTEGERS, *floats))
    if value is None:
        return
    dtype, shape = g.types[value]
    function = "larger" if is_float(dtype) else g.random.choice(("larger", "exclusive_or"))
    g.add(op, [value], axis=g.random.randrange(len(shape)), reverse=g.random.random() < 0.4, function=function)


def sort(g: Generator) -> None:
    value = g.pick(lambda d, s: bool(s) and s[-1] <= 256 and d in (*INTEGERS, *WIDE_FLOATS))
    if value is None:
        return
    length = g.types[value][1][-1]
    if g.random.random() < 0.6:
        g.add("sort", [value], descending=g.random.random() < 0.5)
    elif length > 1:
        g.add("topk", [value], k=2 ** g.random.randrange(length.bit_length() - 1), dtype=g.types[value][0])


def gather(g: Generator) -> None:
    value = g.pick(lambda d, s: bool(s) and d != "int1" and d[:3] != "fp8")
    if value is None:
        return
    shape = g.types[value][1]
    axis = g.random.randrange(len(shape))
    rest = [n for a, n in enumerate(shape) if a != axis]
    index = g.pick(
        lambda d, s: d in INTEGERS and len(s) == len(shape) and [n for a, n in enumerate(s) if a != axis] == rest
    )
    if index is not None:
        last = min(shape[axis], 128 if width(g.types[index][0]) == 8 else shape[axis]) - 1
        g.add("gather", [value, index], axis=axis, last=last)


def gather_load(g: Generator) -> None:
    """A load at indices that are a value."""
    index = g.pick(lambda d, s: d in INTEGERS)
    if index is None:
        return
    name, dtype = f"x{len(g.inputs)}", g.random.choice(g.dtypes)
    size = g.random.choice((2, 16, 128))
    g.inputs.append(Input(name, dtype, sample(g.data, dtype, (size,), "edge")))
    g.add("gather_load", [index], input=name, last=size - 1)


def again(g: Generator) -> None:
    """A value is stored and loaded again, its elements in another order."""
    value = g.pick(_block)
    if value is None:
        return
    dtype, shape = g.types[value]
    if not all(e[value].is_exact for e in g.environments):
        return
    size = math.prod(shape)

    def contiguous(order: list[int]) -> Layout:
        strides, extent = [0] * len(order), 1
        for axis in reversed(order):
            strides[axis], extent = extent, extent * shape[axis]
        return Layout(shape, tuple(map(g.number, strides)), Number(size), 0, (None,) * len(shape), size)

    order = list(range(len(shape)))
    g.random.shuffle(order)
    written, read = contiguous(list(range(len(shape)))), contiguous(order)
    if len(shape) == 1:
        read = Layout(shape, (g.number(-1),), Number(size), size - 1, (None,), size)
    name = f"s{g.id()}"
    g.add("again", [value], scratch=name, dtype=dtype, size=size, layout=read, written=written)


def histogram(g: Generator) -> None:
    value = g.pick(lambda d, s: len(s) == 1 and d in ("int32", "uint32", "int64") and s[0] >= 8)
    if value is not None:
        g.add("histogram", [value], bins=g.random.choice((8, 16, 32)))


def dot(g: Generator) -> None:
    dtype = g.random.choice(("fp16", "bf16", "fp32", "int8", "fp64"))
    m, n, k = (g.random.choice((16, 16, 32, 64)) for _ in range(3))
    k = max(k, 32) if dtype == "int8" else k
    kind = g.random.choice(("plain", "small", "bits"))
    a = g.pick(lambda d, s: d == dtype and len(s) == 2 and min(s) >= 16 and max(s) <= 64)
    if a is None or g.random.random() < 0.5:
        a = g.load(dtype, (m, k), kind)
    m, k = g.types[a][1]
    operands = [a, g.load(dtype, (k, n), kind)]
    if g.random.random() < 0.5:
        total = {"int8": "int32", "fp64": "fp64"}.get(dtype, "fp32")
        operands.append(g.load(total, (m, n), "small"))
    g.add("dot", operands, dtype=dtype)


CONSTRUCTS: dict[Callable[[Generator], object], float] = {
    elementwise: 24, cast: 4, bitcast: 0.7, new_load: 1.5, constant: 0.5, arange: 0.5, program: 0.3, reshape: 2,
    permute: 2, expand: 1, broadcast: 1.5, flip: 0.5, join: 1, split: 1, reduction: 4, pairs: 1, scan: 1.5, sort: 0.6,
    gather: 1, gather_load: 1, again: 1, histogram: 0.4, dot: 0.6, loop: 1.5, branch: 0.8,
}  # fmt: skip


def propose(g: Generator) -> None:
    """Try to add one construct, at random."""
    (construct,) = g.random.choices(list(CONSTRUCTS), list(CONSTRUCTS.values()))
    construct(g)
