"""Creation, indexing and shapes of blocks, 1-D to 5-D, against numpy: values only move, so every bit is compared."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_text import evaluate
from language_values import FLOATS, INTEGERS

FLOAT8 = {"float8e4nv": torch.float8_e4m3fn, "float8e5": torch.float8_e5m2}
DTYPES = {name: getattr(torch, name) for name in (*INTEGERS, *FLOATS)} | {"int1": torch.bool} | FLOAT8
SHAPES = [(64,), (1, 32), (8, 16), (4, 2, 8), (2, 4, 1, 8), (2, 4, 2, 8, 4)]


def filled(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Different values everywhere, as far as the dtype goes."""
    count = int(np.prod(shape))
    if dtype == torch.bool:
        return (torch.arange(count) * 7 % 5 < 2).reshape(shape)
    values = torch.from_numpy(np.random.default_rng(3).integers(0, 256, count * dtype.itemsize, dtype=np.uint8))
    return values.view(dtype).reshape(shape)


def bits(x: torch.Tensor) -> np.ndarray:
    """The elements' bytes as one more dimension."""
    return x.contiguous().view(torch.uint8).numpy().reshape(*x.shape, x.element_size())


def check(body: str, inputs: dict[str, torch.Tensor], wanted: dict[str, np.ndarray]) -> None:
    """``wanted``: bytes of each output, one dimension more than the output has."""
    dtype = next(iter(inputs.values())).dtype
    got = evaluate(body, inputs, {name: (value.shape[:-1], dtype) for name, value in wanted.items()})
    for (name, expected), one in zip(wanted.items(), got, strict=True):
        np.testing.assert_array_equal(bits(one), expected, err_msg=name)


@pytest.mark.parametrize("name", [*DTYPES, "float8e4b8", "float8e5b16"])
def test_full_zeros_and_casts_of_constants(name: str) -> None:
    dtype = DTYPES.get(name) or {"float8e4b8": torch.float8_e4m3fnuz, "float8e5b16": torch.float8_e5m2fnuz}[name]
    outputs = {"a": ((4, 8), dtype), "b": ((4, 8), dtype), "c": ((8,), dtype), "d": ((), dtype)}
    number = f"tl.full((4, 8), 1.5, tl.float32).to(tl.{name})" if "float" in name else f"tl.full((4, 8), 1, tl.{name})"
    body = (
        f"a = {number}\nb = tl.zeros((4, 8), tl.{name})\nc = tl.zeros_like(tl.full((8,), 3, tl.float32)).to(tl.{name})"
    )
    body += f"\nd = tl.full((), 1, tl.float32).to(tl.{name})"
    a, b, c, d = evaluate(body, {}, outputs)
    one = torch.tensor(1.5 if "float" in name else 1).to(dtype)
    assert np.array_equal(bits(a), np.broadcast_to(bits(one.reshape(1)), bits(a).shape))
    assert not bits(b).any() and not bits(c).any()
    assert np.array_equal(bits(d.reshape(1)), bits(torch.tensor([1.0]).to(dtype)))


@pytest.mark.parametrize("start, count", [(0, 1), (5, 1), (0, 8192), (7, 64)])
def test_arange(start: int, count: int) -> None:
    (got,) = evaluate(f"z = tl.arange({start}, {start + count})", {}, {"z": ((count,), torch.int32)})
    assert got.tolist() == list(range(start, start + count))


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_in_every_operation(name: str) -> None:
    """One kernel a dtype: what moves through registers, what goes through buffers, what crosses control flow."""
    x, y = filled((16, 16), DTYPES[name]).split(8)
    p, q = bits(x), bits(y)
    pairs = np.stack([p, q], axis=2)
    check(
        """
        trans = x.T
        reshaped = tl.reshape(x, (4, 32))
        joined = tl.join(x, y)
        mixed = tl.interleave(x, y)
        left, right = tl.split(tl.reshape(x, (8, 8, 2)))
        flipped = tl.flip(x, 0)
        mirrored = tl.flip(x, 1)
        both = tl.cat(x, y, dim=1)
        rows = tl.broadcast_to(tl.reshape(x, (1, 8, 16)), (2, 8, 16))
        picked = tl.gather(x, tl.arange(0, 16)[None, :] * 0 + (15 - tl.arange(0, 8))[:, None] % 16, 1)
        chosen = tl.where((tl.arange(0, 16) % 3 == 0)[None, :], x, y)
        """,
        {"x": x, "y": y},
        {
            "trans": p.transpose(1, 0, 2), "reshaped": p.reshape(4, 32, -1), "joined": pairs,
            "mixed": pairs.reshape(8, 32, -1), "left": p.reshape(8, 8, 2, -1)[:, :, 0],
            "right": p.reshape(8, 8, 2, -1)[:, :, 1], "flipped": p[::-1], "mirrored": p[:, ::-1],
            "both": np.concatenate([p, q], 1), "rows": np.stack([p, p]),
            "picked": np.stack([np.broadcast_to(p[i, 15 - i], (16, p.shape[-1])) for i in range(8)]),
            "chosen": np.where((np.arange(16) % 3 == 0)[None, :, None], p, q),
        },
    )  # fmt: skip


@pytest.mark.parametrize("order", [*itertools.permutations(range(3)), (3, 2, 1, 0), (1, 3, 0, 2), (0, 2, 1, 3),
                                   (4, 3, 2, 1, 0), (0, 3, 1, 4, 2), (2, 0, 4, 1, 3)])  # fmt: skip
def test_permute(order: tuple[int, ...]) -> None:
    x = filled((2, 8, 4, 2, 16)[: len(order)], torch.int32)
    check(f"z = tl.permute(x, {order})\nw = tl.trans(x, {order}) + 0", {"x": x},
          dict.fromkeys("zw", bits(x.permute(order))))  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_reshapes_and_permutations_in_a_row(data: st.DataObject) -> None:
    """A block cut up and turned round twice: the order of elements is row-major everywhere."""

    def shape(total: int) -> tuple[int, ...]:
        rank = data.draw(st.integers(1, 5))
        cuts = sorted(data.draw(st.lists(st.integers(0, total), min_size=rank - 1, max_size=rank - 1)))
        return tuple(1 << (b - a) for a, b in itertools.pairwise([0, *cuts, total]))

    x = torch.arange(256, dtype=torch.int32)
    value, lines = x.numpy(), []
    for _ in range(2):
        new = shape(8)
        order = data.draw(st.permutations(range(len(new))))
        lines.append(f"x = tl.permute(tl.reshape(x, {list(new)}), {tuple(order)})")
        value = value.reshape(new).transpose(order)
    check("\n".join([*lines, "z = x"]), {"x": x}, {"z": bits(torch.from_numpy(value.copy()))})


@pytest.mark.parametrize("shape", SHAPES)
def test_flip_of_each_dimension(shape: tuple[int, ...]) -> None:
    x = filled(shape, torch.float32)
    axes = [*range(len(shape)), -1]
    body = "\n".join(f"z{i} = tl.flip(x, {axis})" for i, axis in enumerate(axes))
    wanted = {f"z{i}": bits(x.flip(axis)) for i, axis in enumerate(axes)}
    check(body, {"x": x}, wanted)


@pytest.mark.parametrize("count", [1, 2, 64, 8192])
def test_blocks_of_every_size(count: int) -> None:
    x, y = filled((2 * count,), torch.int16).split(count)
    p, q = bits(x), bits(y)
    body = "a = tl.cat(x, y, can_reorder=True)\nb = tl.interleave(x, y)\nc = tl.ravel(x[None, :, None])"
    wanted = {"a": np.concatenate([p, q]), "b": np.stack([p, q], 1).reshape(2 * count, -1), "c": p}
    if count > 1:  # Triton's own code of flip takes no single element
        body, wanted = body + "\nd = tl.flip(x, 0)", wanted | {"d": p[::-1]}
    check(body, {"x": x, "y": y}, wanted)


def test_indexing_adds_dimensions() -> None:
    x = filled((8,), torch.int64)
    p = bits(x)
    check(
        """
        a = x[:, None]
        b = x[None, :]
        c = x[None, :, None]
        d = tl.expand_dims(x, (0, 2))
        e = x[:, None] + x[None, :] * 0
        f = tl.max(x, 0)[None, None]
        g = tl.broadcast_to(x[:, None, None], (8, 2, 4))
        h, _ = tl.broadcast(x[None, :], tl.zeros((4, 8), tl.int64))
        """,
        {"x": x},
        {
            "a": p[:, None], "b": p[None], "c": p[None, :, None], "d": p[None, :, None],
            "e": np.broadcast_to(p[:, None], (8, 8, 8)), "f": bits(x.max().reshape(1, 1)),
            "g": np.broadcast_to(p[:, None, None], (8, 2, 4, 8)), "h": np.broadcast_to(p, (4, 8, 8)),
        },
    )  # fmt: skip


def test_join_and_split_of_scalars() -> None:
    x = torch.tensor([3, -5])
    got = evaluate(
        "a, b = tl.split(x)\nc = tl.join(b, a)\nd = tl.interleave(a, b)\ne = a - b", {"x": x},
        {"a": ((), torch.int64), "b": ((), torch.int64), "c": ((2,), torch.int64), "d": ((2,), torch.int64),
         "e": ((), torch.int64)},
    )  # fmt: skip
    assert [v.tolist() for v in got] == [3, -5, [-5, 3], [3, -5], 8]


def test_swizzle2d() -> None:
    """Groups of two rows are walked down their columns first."""
    body = "i, j = tl.swizzle2d(tl.arange(0, 8)[:, None], tl.arange(0, 4)[None, :], 8, 4, 2)\nz = i * 4 + j"
    (got,) = evaluate(body, {}, {"z": ((8, 4), torch.int32)})
    wanted = [(8 * (n // 8)) + (n % 8 % 2) * 4 + n % 8 // 2 for n in range(32)]
    assert got.flatten().tolist() == wanted


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("index", [torch.int8, torch.uint8, torch.int32, torch.int64])
def test_gather(index: torch.dtype, axis: int) -> None:
    """Indices of every width; the index block is longer or shorter along the axis than the source."""
    x = filled((4, 8, 16), torch.float32)
    wanted = {}
    inputs = {"x": x}
    for name, length in (("a", 2), ("b", 64)):
        shape = [length if d == axis else s for d, s in enumerate(x.shape)]
        inputs["i" + name] = torch.randint(0, x.shape[axis], shape).to(index)
        wanted[name] = bits(torch.gather(x, axis, inputs["i" + name].long()))
    check(f"a = tl.gather(x, ia, {axis})\nb = tl.gather(x, ib, {axis})", inputs, wanted)


def test_large_unsigned_index() -> None:
    x = torch.arange(256, dtype=torch.float32)
    (got,) = evaluate("z = tl.gather(x, i, 0)", {"x": x, "i": torch.arange(255, -1, -1).to(torch.uint8)},
                      {"z": ((256,), torch.float32)})  # fmt: skip
    assert torch.equal(got, x.flip(0))
