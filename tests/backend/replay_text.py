"""Replays of a few lines of Triton, as ``kernel_text`` runs them: the kernel around them is written here."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from kernel_text import kernel_from, offsets
from triton.compiler import ASTSource

from torchport.numerics.verdicts.replay import Argument, Replay
from torchport.triton.ttir import ttir_from

__all__ = ["PROMOTED", "Text", "from_body", "from_source", "noise"]

PROMOTED = {"promote": True}
_TYPES = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64", torch.int64: "i64",
    torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.bool: "i1", torch.uint8: "u8",
    torch.float8_e4m3fn: "fp8e4nv", torch.float8_e5m2: "fp8e5",
}  # fmt: skip


def noise(seed: int, scale: float = 1.0, **ulp: float) -> dict[str, Any]:
    """Arithmetic with noise."""
    return {"promote": True, "noise": {"seed": seed, "scale": scale, "ulp": ulp}}


@dataclass
class Text:
    """A replay with its storages and where each tensor is in them."""

    replay: Replay
    storages: dict[int, torch.Tensor]
    shapes: dict[str, tuple[int, torch.Size]]

    def run(self, name: str, arithmetic: Mapping[str, Any] | None = PROMOTED) -> torch.Tensor:
        """The tensor ``name`` after the launch."""
        number, shape = self.shapes[name]
        return self.replay.run(self.storages, arithmetic)[number].reshape(shape)

    def noises(self, name: str, count: int, **ulp: float) -> torch.Tensor:
        """What ``count`` seeds add to the golden tensor ``name``, stacked."""
        golden = self.run(name)
        return torch.stack([self.run(name, noise(seed, **ulp)) - golden for seed in range(count)])


def from_source(
    source: str,
    arguments: Mapping[str, Any],
    constants: Mapping[str, int] | None = None,
    grid: tuple[int, int, int] = (1, 1, 1),
    **names: Any,
) -> Text:
    """A kernel of whole text. ``arguments``: contiguous tensors, ints and floats; ``names``: the kernel's globals."""
    signature, found, storages, shapes = {}, [], {}, {}
    for number, (name, value) in enumerate(arguments.items()):
        if isinstance(value, torch.Tensor):
            signature[name] = "*" + _TYPES[value.dtype]
            shape, stride = tuple(value.shape), value.stride()
            found.append(Argument(name, signature[name], None, number, value.dtype, shape, stride))
            storages[number], shapes[name] = value.reshape(-1), (number, value.shape)
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
            found.append(Argument(name, signature[name], value))
    constants = constants or {}
    signature |= dict.fromkeys(constants, "constexpr")
    ttir = ttir_from(ASTSource(kernel_from(source, **names), signature, dict(constants)))
    return Text(Replay(ttir, found, grid), storages, shapes)


def from_body(
    body: str,
    inputs: Mapping[str, torch.Tensor],
    outputs: Mapping[str, tuple[Sequence[int], torch.dtype]],
    **names: Any,
) -> Text:
    """Lines that are given ``inputs`` whole and leave ``outputs`` (shape, dtype), in one program instance."""
    results = {name: torch.zeros(tuple(shape), dtype=dtype) for name, (shape, dtype) in outputs.items()}
    lines = [f"{name} = tl.load({name}_ptr + {offsets(x.shape)})" for name, x in inputs.items()]
    lines += textwrap.dedent(body).strip().splitlines()
    lines += [f"tl.store({name}_ptr + {offsets(z.shape)}, {name})" for name, z in results.items()]
    every = {**inputs, **results}
    source = f"def kernel({', '.join(f'{n}_ptr' for n in every)}):\n" + textwrap.indent("\n".join(lines), "    ") + "\n"
    made = from_source(source, {f"{name}_ptr": tensor for name, tensor in every.items()}, **names)
    made.shapes = {name.removesuffix("_ptr"): place for name, place in made.shapes.items()}
    return made
