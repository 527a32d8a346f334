"""A random PyTorch program: lines of Python over named tensors, and how its inputs are made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch

WIDER = {"float16": "float64", "bfloat16": "float64", "float32": "float64", "complex64": "complex128"}


@dataclass(frozen=True)
class Input:
    """kind: "normal", "small" (integers, with ties), "positive", "edge" (NaN, infinities, extremes among others).
    layout: "plain", "transposed", "sliced" (every second column of a larger tensor), "expanded". grad: whether its
    gradient is compared. growing: whether its first dimension has another size in the second call."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    seed: int
    kind: str = "normal"
    layout: str = "plain"
    grad: bool = False
    growing: bool = False

    def make(self, call: int = 0) -> torch.Tensor:
        """The tensor of a call."""
        shape = list(self.shape)
        if self.growing and call:
            shape[0] += 3 * call
        if self.layout == "transposed":
            return self._data([*shape[:-2], shape[-1], shape[-2]]).transpose(-1, -2)
        if self.layout == "sliced":
            return self._data([*shape[:-1], 2 * shape[-1]])[..., ::2]
        if self.layout == "expanded":
            return self._data([1, *shape[1:]]).expand(shape)
        return self._data(shape)

    def _data(self, shape: list[int]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        dtype: torch.dtype = getattr(torch, self.dtype)
        small = torch.randint(-4, 5, shape, generator=generator)
        if dtype == torch.bool:
            return small > 0
        if not dtype.is_floating_point and not dtype.is_complex:
            small = small.abs() if dtype == torch.uint8 or self.kind == "positive" else small
            if self.kind != "edge":
                return (small + (self.kind == "positive")).to(dtype)
            info = torch.iinfo(dtype)
            edges = torch.tensor([info.min, info.max, 0, 1], dtype=dtype)
            return torch.where(small > 1, edges[small.abs() % 4], small.to(dtype))
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        if self.kind == "small":
            values = small.double()
        elif self.kind == "positive":
            values = values.abs() + 0.25
        if dtype.is_complex:
            return torch.complex(values, values.flip(0) if values.dim() else -values).to(dtype)
        if self.kind == "edge":
            numbers = torch.tensor([float("nan"), float("inf"), float("-inf"), -0.0, torch.finfo(dtype).tiny])
            values = torch.where(small > 2, numbers.double()[small.abs() % 5], values)
        return values.to(dtype)

    def __str__(self) -> str:
        more = [f"{k}={v!r}" for k, v in (("kind", self.kind), ("layout", self.layout)) if v not in ("normal", "plain")]
        more += [k for k in ("grad", "growing") if getattr(self, k)]
        return f"{self.name}: {self.dtype}{list(self.shape)}, seed {self.seed}" + "".join(f", {m}" for m in more)


@dataclass(frozen=True)
class Program:
    """approximate: names whose floats may differ within bounds; all others are exact. raises: whether the last line is
    an error in eager."""

    seed: int
    inputs: tuple[Input, ...]
    lines: tuple[str, ...]
    results: tuple[str, ...]
    approximate: frozenset[str] = frozenset()
    calls: int = 1
    dynamic: bool | None = False

    @property
    def narrowest(self) -> torch.dtype | None:
        """The narrowest type that some of its floats may have; None if all are float64."""
        text = "\n".join((*(i.dtype for i in self.inputs), *self.lines))
        names = [r"bfloat16", r"\bfloat16|half\(\)", r"float32|complex64|float\(\)"]
        types = (torch.bfloat16, torch.float16, torch.float32)
        return next((dtype for name, dtype in zip(names, types, strict=True) if re.search(name, text)), None)

    def source(self) -> str:
        """A function called `program`."""
        body = "".join(f"    {line}\n" for line in self.lines)
        arguments = ", ".join(i.name for i in self.inputs)
        return f"def program({arguments}):\n{body}    return ({''.join(f'{r}, ' for r in self.results)})\n"

    def function(self, wide: bool = False) -> Any:
        """The function itself; `wide`: with float64 in place of every other float type."""
        text = self.source()
        if wide:
            text = re.sub(r"torch\.(float16|bfloat16|float32|complex64)\b", lambda m: "torch." + WIDER[m[1]], text)
        return build(text)

    def make(self, call: int, wide: bool = False) -> list[torch.Tensor]:
        """The arguments of a call."""
        made = [i.make(call) for i in self.inputs]
        if wide:
            made = [m.to(getattr(torch, WIDER.get(i.dtype, i.dtype))) for i, m in zip(self.inputs, made, strict=True)]
        return [m.requires_grad_() if i.grad else m for i, m in zip(self.inputs, made, strict=True)]


def build(text: str) -> Any:
    """The function `program` of a text, which Dynamo can read."""
    import linecache

    name = f"<fuzz {abs(hash(text))}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    scope: dict[str, Any] = {"torch": torch, "F": torch.nn.functional}
    exec(compile(text, name, "exec"), scope)
    return scope["program"]
