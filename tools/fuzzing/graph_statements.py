"""Lines that a random PyTorch program may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fuzzing.graph_generate import Generator
from fuzzing.graph_texts import (
    COMPLEX,
    EXACT,
    IMAGES,
    IN_PLACE,
    INDEXED,
    INTEGER,
    MOVES,
    POOLS,
    REDUCE_EXACT,
    REDUCE_SMOOTH,
    ROUND,
    SMOOTH,
)

CASTS = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "int8", "bool", "int16")


def _floating(t: torch.Tensor) -> bool:
    return t.is_floating_point()


def _integral(t: torch.Tensor) -> bool:
    return not t.is_floating_point() and not t.is_complex()


def _real(t: torch.Tensor) -> bool:
    return not t.is_complex()


def _line(g: Generator, texts: tuple[str, ...], accept: Callable[[torch.Tensor], bool], rule: str) -> None:
    """One of the texts, with operands that may be broadcast against each other."""
    first = g.pick(accept)
    if first is None:
        return
    text = g.random.choice(texts)
    operands = [first]
    if "{1}" in text:
        shape, dtype = g.tensors[first].shape, g.tensors[first].dtype
        same = g.pick(lambda t: t.dtype == dtype and fits(t.shape, shape)) if g.random.random() < 0.8 else None
        operands.append(same or g.pick(lambda t: fits(t.shape, shape)) or first)
    dimension = g.random.randrange(-1, max(g.tensors[first].dim(), 1))
    g.line(text.format(*operands, d=dimension), operands, rule)


def fits(a: Any, b: Any) -> bool:
    """Whether two shapes broadcast."""
    return all(x == y or 1 in (x, y) for x, y in zip(reversed(a), reversed(b), strict=False))


def smooth(g: Generator) -> None:
    _line(g, SMOOTH, _floating, "smooth")


def rounded(g: Generator) -> None:
    _line(g, ROUND, _real, "round")


def exact(g: Generator) -> None:
    _line(g, EXACT, _real, "exact")


def integer(g: Generator) -> None:
    _line(g, INTEGER, _integral, "smooth")


def complex_(g: Generator) -> None:
    _line(g, COMPLEX, lambda t: t.is_complex(), "smooth")


def reduce_smooth(g: Generator) -> None:
    _line(g, REDUCE_SMOOTH, _real, "smooth")


def reduce_exact(g: Generator) -> None:
    _line(g, REDUCE_EXACT, _real, "exact")


def move(g: Generator) -> None:
    _line(g, MOVES, lambda t: True, "move")


def in_place(g: Generator) -> None:
    _line(g, IN_PLACE, lambda t: not t.requires_grad or t.grad_fn is not None, "round")


def indexed(g: Generator) -> None:
    first, second = g.pick(lambda t: t.dim() > 0), g.pick(_integral)
    if first is not None:
        text = g.random.choice(INDEXED)
        if "{1}" in text and (
            second is None or (text.startswith("torch.bincount") and bool((g.tensors[second] < 0).any()))
        ):
            return
        dimension = g.random.randrange(g.tensors[first].dim())
        exactly = "argsort" in text or "long() * 0" in text
        rule = "exact" if exactly else "smooth" if "add" in text else "move"
        g.line(text.format(first, second, d=dimension), [first, *([second] if second else [])], rule)


def cast(g: Generator) -> None:
    first = g.pick(_real)
    if first is None:
        return
    source, target = g.tensors[first], g.random.choice(CASTS)
    dtype: torch.dtype = getattr(torch, target)
    if source.is_floating_point() and not dtype.is_floating_point:
        limit = {torch.uint8: 255, torch.int8: 127, torch.int16: 32767}.get(dtype, 2**31 - 1)
        low = 0 if dtype == torch.uint8 else -limit
        if dtype != torch.bool and not bool(((source >= low) & (source <= limit)).all()):
            return
        g.line(f"{first}.to(torch.{target})", [first], "exact")
    else:
        g.line(f"{first}.to(torch.{target})", [first], "round" if dtype.itemsize > 2 else "smooth")


def bits(g: Generator) -> None:
    first = g.pick(lambda t: not t.is_complex() and t.dtype != torch.bool)
    if first is not None:
        target = g.random.choice(("int32", "float32", "int16", "uint8", "int64"))
        g.line(f"{first}.view(torch.{target})", [first], "exact")


def product(g: Generator) -> None:
    first = g.pick(lambda t: t.dim() in (1, 2, 3) and t.is_floating_point())
    if first is None:
        return
    tensor = g.tensors[first]
    other = g.input(str(tensor.dtype).split(".")[1], (tensor.shape[-1], g.random.choice((1, 3, 8))), "normal")
    if tensor.dim() == 3 and g.random.random() < 0.5:
        g.line(f"torch.bmm({first}, {first}.transpose(1, 2))", [first])
    elif g.random.random() < 0.3:
        g.line(f"F.linear({first}, {other}.t())", [first, other])
    else:
        g.line(f"{first} @ {other}", [first, other])


def convolution(g: Generator) -> None:
    dtype = "float32"
    rank = g.random.choice((1, 2))
    x = g.input(dtype, (2, 3, *(g.random.choice((5, 6, 8)) for _ in range(rank))), "normal")
    weight = g.input(dtype, (4, 3, *([g.random.choice((1, 2, 3))] * rank)), "normal")
    stride, padding = g.random.choice((1, 2)), g.random.choice((0, 1))
    g.line(f"F.conv{rank}d({x}, {weight}, stride={stride}, padding={padding})", [x, weight])


def pooling(g: Generator) -> None:
    rank = g.random.choice((1, 2))
    x = g.pick(lambda t: t.dim() == rank + 2 and t.dtype == torch.float32)
    x = x or g.input("float32", (2, 3, *(g.random.choice((5, 7, 8)) for _ in range(rank))), "normal")
    about = {"k": g.random.choice((2, 3)), "s": g.random.choice((1, 2, 3)), "p": g.random.choice((0, 1)), "r": rank}
    about |= {"c": g.random.random() < 0.5, "i": g.random.random() < 0.5}
    text = g.random.choice(POOLS)
    if rank == 2 and g.random.random() < 0.2:
        text = g.random.choice(IMAGES)
    g.line(text.format(x, **about), [x])


def creation(g: Generator) -> None:
    g.line(
        g.random.choice(
            ("torch.arange(6)", "torch.linspace(0, 1, 5)", "torch.eye(4)", "torch.full((3,), 2.5)", "torch.ones(2, 3)")
        ),
        [],
        "smooth",
    )


CONSTRUCTS: dict[Callable[[Generator], object], float] = {
    smooth: 4, rounded: 4, exact: 3, integer: 3, complex_: 2, reduce_smooth: 4, reduce_exact: 3, move: 7, in_place: 5,
    indexed: 2, cast: 2, bits: 0.5, product: 0.8, convolution: 0.4, pooling: 0.8, creation: 0.4,
}  # fmt: skip


def propose(g: Generator) -> None:
    """Try to add one line, at random."""
    (construct,) = g.random.choices(list(CONSTRUCTS), list(CONSTRUCTS.values()))
    construct(g)


def random_program(seed: int) -> Any:
    """The program of a seed."""
    return Generator(seed).program(propose)
