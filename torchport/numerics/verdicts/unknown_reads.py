"""What a kernel reads that no FX node is known to be: partial sums, say, and memory that only it uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from torchport.arithmetic.formats import format_of
from torchport.errors import TorchportError
from torchport.numerics.runs.reader import Arg, Launch
from torchport.numerics.verdicts.classes import classes_of
from torchport.numerics.verdicts.limits import deviation
from torchport.numerics.verdicts.recorded_call import RecordedCall
from torchport.numerics.verdicts.recorded_replay import replay_of
from torchport.numerics.verdicts.replay import Replay, view
from torchport.triton.source import rules_of

__all__ = ["UnknownReads"]

_VARIANTS, _UNITS = 4, 64.0
"""How often errors are drawn, and their size in units of the type."""

_TF32 = 8.0 * 2.0**-11
"""The size of errors of an operator of f32 on a chip whose products may be in TF32: some units of that."""


@dataclass(frozen=True)
class _Maker:
    """A launch that left what another one reads.

    read: the storage's number in the launch that reads it; left: in this one.
    storages: before this launch. exact: what it leaves in float64.
    """

    read: int
    replay: Replay
    storages: dict[int, torch.Tensor]
    left: int
    exact: torch.Tensor


class UnknownReads:
    """Arguments of one launch that it may read and that hold no FX node's value: ``args``."""

    def __init__(self, call: RecordedCall, launch: Launch) -> None:
        self.call, self.launch = call, launch
        self.args: list[Arg] = call.observed.unknown_to(launch)

    @cached_property
    def that_matter(self) -> list[Arg]:
        """All of them, if the kernel's results in float64 depend on any; else none."""
        changes = self._moved_by(lambda number, storage: _another(storage)) if self.args else {}
        if changes is None:  # other numbers are no places in memory
            return self.args
        return self.args if any(bool(change.any()) for change in changes.values()) else []

    @cached_property
    def moved(self) -> dict[str, torch.Tensor]:
        """How far results move, by argument, with errors that earlier launches may legally leave in what is read."""
        moved: dict[str, torch.Tensor] = {}
        for seed in range(_VARIANTS):
            generator, noise = torch.Generator().manual_seed(seed), self._noise(seed + 1)

            def erring(
                number: int, storage: torch.Tensor, generator: torch.Generator = generator, noise: Any = noise
            ) -> Any:
                found = _erring(generator, self._least, storage)
                return found + noise[number].to(found.dtype) if number in noise else found

            for name, distance in (self._moved_by(erring) or {}).items():
                moved[name] = torch.maximum(moved[name], distance) if name in moved else distance
        return moved

    @cached_property
    def _makers(self) -> list[_Maker]:
        """The kernels that left what is read, as far as they can be repeated."""
        found = []
        for arg in self.args:
            writer = self.call.observed.writer_of(arg, self.launch)
            if writer is None or writer.kernel is None or arg.storage is None:
                continue
            left = next(one.storage for one in writer.args if one.role in ("out", "inout") and one.after == arg.before)
            try:
                replay, storages, _ = replay_of(self.call.run, writer)
                exact = replay.run(storages, {"promote": True})
            except TorchportError:
                continue
            if left is not None and exact[left].is_floating_point():
                found.append(_Maker(arg.storage, replay, storages, left, exact[left].double()))
        return found

    def _noise(self, seed: int) -> dict[int, torch.Tensor]:
        """By storage, one draw of how far kernels that left what is read may have moved it: by rounding inside of them,
        to narrow types as well, which nodes in float64 do not do."""
        found: dict[int, torch.Tensor] = {}
        for one in self._makers:
            try:
                drawn = one.replay.run(one.storages, {"promote": True, "noise": {"seed": seed, "scale": 1.0}})
            except TorchportError:
                continue
            found[one.read] = (drawn[one.left].double() - one.exact).nan_to_num(0.0, 0.0, 0.0)
        return found

    @cached_property
    def _least(self) -> float:
        """The size of errors that what is read has at least, in units of its own size.

        Nodes' values are followed back to what launches long before read. An operator among these may have products of
        f32 in TF32 where the chip has it: known of an emulated run, not recorded of others.
        """
        chip = self.call.run.graphs[self.call.key].get("asked", {}).get("emulate")
        if chip is not None and not str(chip).endswith("-tf32"):
            return 0.0
        rules = next(filter(None, (rules_of(one.get("source", "")) for one in self.call.run.kernels.values())), {})
        if "tf32" not in rules.get("dot", {}).get("types", {}):
            return 0.0
        before = (one for one in self.call.launches if one.seq < self.launch.seq)
        return _TF32 if any(one.kernel is None for one in before) else 0.0

    def _moved_by(self, change: Callable[[int, torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor] | None:
        """How far results move in float64, by argument, if what is read changes; None if it cannot."""
        numbers = {arg.storage for arg in self.args}
        try:
            replay, storages, outputs = replay_of(self.call.run, self.launch)
            changed = {number: change(number, one) if number in numbers else one for number, one in storages.items()}
            found = [replay.run(one, {"promote": True}) for one in (storages, changed)]
        except TorchportError:
            return None
        moved = {}
        for output in outputs:
            a, b = (view(output, after[output.storage or 0]) for after in found)
            if a.is_floating_point():
                moved[output.name] = deviation(a, b).abs() + (classes_of(a) != classes_of(b)).double()
            else:
                moved[output.name] = (a != b).double()
        return moved


def _another(storage: torch.Tensor) -> torch.Tensor:
    """A storage with other elements, which as indices are small."""
    if storage.is_floating_point():
        return (1 - storage.double().nan_to_num()).to(storage.dtype)
    return (storage == 0).to(storage.dtype)


def _erring(generator: torch.Generator, least: float, storage: torch.Tensor) -> torch.Tensor:
    """A storage whose elements are off by units of their own size and of their root mean square, ``least`` at least."""
    if not storage.is_floating_point():
        return storage
    wide = storage.double()
    finite = wide.nan_to_num(0.0, 0.0, 0.0)
    size = finite.abs() + finite.square().mean().sqrt()
    xi = torch.rand(wide.shape, generator=generator, dtype=torch.float64) * 2 - 1
    return (wide + max(_UNITS * format_of(storage.dtype).unit, least) * size * xi).to(storage.dtype)
