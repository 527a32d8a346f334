"""Runs a kernel on payloads."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from torchport.arithmetic.payload.constants import payload_of
from torchport.errors import SanitizerError, TorchportError
from torchport.numerics.algebra.payloads import drawn
from torchport.numerics.verdicts.replay import Argument, Replay, compiled, view

__all__ = ["AlgebraLaunch", "NotProvable"]

_FLOAT = re.compile(r"(\*?)(?:fp\d\w*|bf16|f8\w+)$")
_MANTISSAS = {"fp16": 11, "bf16": 8}
_PROGRAMS = 1 << 20


class NotProvable(TorchportError):
    """What has no algebra; the message says why."""


@dataclass(frozen=True)
class AlgebraLaunch:
    """One launch of a kernel that can be run on payloads, as of a ``Replay``.

    ttir: the kernel as Triton prints it.
    arguments: all of the launch's, in order.
    grid: program instances in x, y and z.
    storages: before the launch, by number; 1-D, whole. Floats are replaced, all else is taken as it is.
    """

    ttir: str
    arguments: tuple[Argument, ...]
    grid: tuple[int, int, int]
    storages: Mapping[int, torch.Tensor]

    @classmethod
    def of(cls, replay: Replay, storages: Mapping[int, torch.Tensor]) -> AlgebraLaunch:
        """That of a recorded launch."""
        return cls(replay.ttir, replay.arguments, replay.grid, storages)

    def payloads(self, seed: int) -> dict[int, torch.Tensor]:
        """Its storages with random payloads."""
        return drawn(self.storages, seed)

    def run(self, payloads: Mapping[int, torch.Tensor], *, order: bool = False) -> dict[int, torch.Tensor]:
        """The storages after the launch, of payloads where they were floats; ``payloads`` do not change.

        ``order``: operations that round are hashes of their operands, so that their order counts.

        Raises NotProvable where arguments see a storage as several types, or the kernel leaves its arguments;
        UnsupportedOperation and CompilationError where the kernel has no algebra, NotReplayable for what is no kernel.
        """
        self._check()
        types = tuple(_FLOAT.sub(r"\1i64", one.type) for one in self.arguments)
        text = json.dumps({"algebra": True, "order": True} if order else {"algebra": True})
        launcher, function, _ = compiled(self.ttir, text, types, confined=True)
        after = {number: storage.clone() for number, storage in payloads.items()}
        values = [_scalar(one) if one.storage is None else after[one.storage][one.offset :] for one in self.arguments]
        try:
            launcher.bind(*self.grid, function)(*values)
        except SanitizerError as error:
            first = error.findings[0]
            raise NotProvable(
                f"the kernel's {first.access} of {first.argument} {first.problem} with payloads"
            ) from error
        return after

    def _check(self) -> None:
        if min(self.grid) < 0 or math.prod(self.grid) > _PROGRAMS:
            raise NotProvable(f"a grid of {' x '.join(map(str, self.grid))} programs is too large")
        for one in self.arguments:
            if one.storage is None:
                if one.type.startswith("*"):
                    raise NotProvable(f"argument {one.name} is an address, not a tensor")
                continue
            if one.storage not in self.storages:
                raise NotProvable(f"the storage of argument {one.name} is not known")
            storage = self.storages[one.storage]
            view(one, storage)
            if storage.is_floating_point() != bool(_FLOAT.match(one.type)) or storage.is_complex():
                raise NotProvable(f"the kernel sees argument {one.name}, of {storage.dtype}, as {one.type}")


def _scalar(argument: Argument) -> int | float | None:
    if argument.value is None or not _FLOAT.match(argument.type):
        return argument.value
    return payload_of(float(argument.value), _MANTISSAS.get(argument.type, 24))
