"""What a model states about itself, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

__all__ = ["KINDS", "SIZES", "Entry", "Inputs", "Kind", "Size", "register", "registered"]

Size = Literal["small", "bench"]
SIZES: tuple[Size, ...] = ("small", "bench")
Inputs = dict[str, torch.Tensor]
FLOATS = (torch.float32, torch.bfloat16, torch.float16)

Kind = Literal["tokens", "classes", "embeddings", "scores", "values"]
KINDS: tuple[Kind, ...] = ("tokens", "classes", "embeddings", "scores", "values")
"""What a model answers, and so how two answers are compared: logits of a token at each position, of a class of each
example, a vector of each example, one number of each example, or anything else."""


@dataclass(frozen=True)
class Entry:
    """One model.

    name: unique.
    make: `make(size)` returns a float32 module and its keyword inputs; torch's global generator is seeded for it.
    outputs: keys of the result whose tensors are compared.
    labels: `labels(inputs, module)` returns the extra inputs with which the module returns `loss`; without it the loss
        of a training step is the sum of the outputs' mean squares.
    trains: whether a training step is compared too.
    dtypes: the dtypes that the model is compiled in.
    reference: `reference(module)` prepares the module for float64 where its default implementation lacks float64.
    seed: seed of torch's generator while `make` runs.
    sequence_inputs: inputs whose dimension 1 may vary; every input has the batch first.
    area: what it is for, as the report of an evaluation groups models.
    kind: what its first output answers.
    benched: whether it is one of those that the model tests and benchmarks take.
    """

    name: str
    make: Callable[[Size], tuple[nn.Module, Inputs]]
    outputs: tuple[str, ...]
    labels: Callable[[Inputs, nn.Module], Inputs] | None = None
    trains: bool = True
    dtypes: tuple[torch.dtype, ...] = FLOATS
    reference: Callable[[nn.Module], None] | None = None
    seed: int = 0
    sequence_inputs: tuple[str, ...] = ()
    area: str = "language"
    kind: Kind = "tokens"
    benched: bool = True


_ENTRIES: dict[str, Entry] = {}


def register(entry: Entry) -> None:
    """Add a model; a second model of one name is a ValueError."""
    if entry.name in _ENTRIES:
        raise ValueError(f"model {entry.name!r} is registered twice: give one of the two another name")
    _ENTRIES[entry.name] = entry


def registered() -> dict[str, Entry]:
    """The models registered so far by name, in that order."""
    return dict(_ENTRIES)
