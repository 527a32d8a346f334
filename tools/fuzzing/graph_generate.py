"""Grows a random PyTorch program by running each line in eager as it is written."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from typing import Any

import torch

from fuzzing.graph_program import Input, Program

FLOATS = ("float32", "float32", "float64", "float16", "bfloat16")
DTYPES = (*FLOATS, "int64", "int32", "uint8", "int8", "bool", "complex64")
MOST = 4096
Accept = Callable[[torch.Tensor], bool]


class Generator:
    """tensors: what eager has for each name. approximate: storages whose floats may differ within bounds."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.inputs: list[Input] = []
        self.lines: list[str] = []
        self.tensors: dict[str, torch.Tensor] = {}
        self.loose: set[int] = set()
        self.count = 0
        self.training = self.random.random() < 0.3
        self.scope: dict[str, Any] = {"torch": torch, "F": torch.nn.functional}
        self.dtypes = self.random.sample(DTYPES, 2) if not self.training else ["float32"]
        self.growing = not self.training and self.random.random() < 0.15
        warnings.filterwarnings("ignore")

    # ---- operands

    def pick(self, accept: Accept = lambda t: True) -> str | None:
        """The name of a tensor that is accepted, one of the last more often."""
        found = [n for n, t in self.tensors.items() if accept(t)]
        if not found:
            return None
        return self.random.choice(found[-5:] if self.random.random() < 0.6 else found)

    def is_loose(self, name: str) -> bool:
        return key(self.tensors[name]) in self.loose

    def input(self, dtype: str | None = None, shape: tuple[int, ...] | None = None, kind: str | None = None) -> str:
        """A new input."""
        dtype = dtype or self.random.choice(self.dtypes)
        if shape is None:
            sizes = (1, 2, 3, 4, 5, 7, 8, 16, 33)
            shape = tuple(self.random.choice(sizes) for _ in range(self.random.choice((0, 1, 1, 2, 2, 2, 3, 4))))
            while math.prod(shape) > 1024:
                shape = shape[1:]
        kind = kind or self.random.choice(("normal", "normal", "small", "positive", "edge"))
        grad = self.training and dtype in ("float32", "float64")
        if grad:
            kind = "normal"
        layout = "plain"
        if shape and not grad and self.random.random() < 0.25:
            layout = self.random.choice(["sliced"] + ["transposed"] * (len(shape) > 1))
        name = f"x{len(self.inputs)}"
        growing = self.growing and bool(shape) and layout == "plain"
        given = Input(name, dtype, shape, self.random.randrange(10**6), kind, layout, grad, growing)
        self.inputs.append(given)
        self.tensors[name] = given.make().requires_grad_(grad)
        return name

    # ---- lines

    def line(self, text: str, operands: list[str], rule: str = "smooth") -> bool:
        """Append `v = text` (or `text`, if it begins with ! and writes in place) if eager takes it.

        rule: "move" (elements elsewhere), "round" (one exact float32 operation), "smooth" (rounded as it may be),
        "exact" (needs exact operands: an error of one place could change all).
        """
        loose = any(self.is_loose(o) for o in operands if o in self.tensors)
        if rule == "exact" and loose:
            return False
        in_place = text.startswith("!")
        scope = {**self.scope, **{n: t for n, t in self.tensors.items()}}
        names = [f"v{self.count}"]
        if rule == "exact" and text.startswith("*"):
            names.append(f"v{self.count + 1}")
            text = text[1:]
        written = text[1:] if in_place else f"{', '.join(names)} = {text}"
        saved = {n: t.detach().clone() for n, t in self.tensors.items()} if in_place else {}
        try:
            exec(written, scope)
        except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError):
            return False
        made = {n: scope[n] for n in names if not in_place}
        if any(not isinstance(t, torch.Tensor) or t.numel() > MOST or t.layout != torch.strided for t in made.values()):
            return False
        checked = [self.tensors[operands[0]]] if in_place else list(made.values())
        if any(huge(t) for t in checked):
            self._restore(saved)
            return False
        self.lines.append(written)
        self.tensors |= made
        self.count += len(made)
        for tensor in checked:
            inexact = tensor.is_floating_point() or tensor.is_complex()
            one = tensor.dtype in (torch.float32, torch.float64)
            if inexact and (rule == "smooth" or (rule == "round" and not one) or (loose and rule in ("move", "round"))):
                self.loose.add(key(tensor))
        return True

    def _restore(self, saved: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in saved.items():
                if not self.tensors[name].requires_grad:
                    self.tensors[name].copy_(tensor)

    def program(self, propose: Callable[[Generator], object]) -> Program:
        """A program of several lines."""
        for _ in range(self.random.choice((1, 2, 3))):
            self.input()
        wanted = self.random.choice((2, 4, 6, 8, 12))
        for _ in range(wanted * 8):
            if len(self.lines) >= wanted:
                break
            propose(self)
        text = " ".join(self.lines)
        made = [n for n in self.tensors if n.startswith("v")]
        leaves = [n for n in made if text.count(n + " ") + text.count(n + ",") + text.count(n + ")") <= 1]
        others = [n for n in self.tensors if n not in leaves]
        chosen = leaves[-6:] + self.random.sample(others, min(len(others), self.random.choice((0, 1, 2))))
        approximate = frozenset(n for n in self.tensors if self.is_loose(n))
        dynamic = self.random.choice((True, None)) if self.growing else False
        calls = 2 if self.growing else 1
        results = tuple(chosen or list(self.tensors)[:1])
        return Program(self.seed, tuple(self.inputs), tuple(self.lines), results, approximate, calls, dynamic)


def key(tensor: torch.Tensor) -> int:
    """Names the storage, which views share."""
    return tensor.untyped_storage()._cdata


def huge(tensor: torch.Tensor) -> bool:
    """Whether most values say nothing any more."""
    if not tensor.numel() or not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    size = tensor.detach().abs()
    size = size[size.isfinite()]
    return bool(size.numel() * 2 < tensor.numel() or size.double().max() > (1e3 if tensor.dtype.itemsize == 2 else 1e6))
