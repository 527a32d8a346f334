"""Records one launch with all its operands, for kernels and operators alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torchport.numerics.recording.graph_calls import GraphCall
from torchport.numerics.recording.launch_writer import LaunchWriter
from torchport.numerics.recording.memory import storage_key
from torchport.numerics.recording.operand import Operand
from torchport.numerics.recording.site import Site, Variant
from torchport.numerics.runs.summary import plan

__all__ = ["FirstLaunch"]

_NOTHING: Mapping[int, bytes] = MappingProxyType({})


class FirstLaunch:
    """Records the first launch of a site, or the first with some shapes, with all its operands.

    Made before the launch, it stores what the launch reads; ``summarize`` and ``write`` follow the launch. At level
    ``stats`` tensors are stored only if the launch is flagged.

    operands: arguments first; results can be added until ``summarize``
    checks: which checks were made, ``canary`` or ``repeat``
    flags: what the checks found
    """

    def __init__(self, writer: LaunchWriter, call: GraphCall, site: Site, operands: Sequence[Operand]) -> None:
        self.operands = list(operands)
        self.checks: list[str] = []
        self.flags: list[str] = []
        self._writer = writer
        self._call = call
        self._stores_tensors = writer.stores_tensors(site)
        site.first_launches += 1
        if self._stores_tensors:
            for operand in self.operands:
                self._store_before(operand)

    @property
    def written(self) -> list[Operand]:
        """The tensors that the launch writes."""
        return [operand for operand in self.operands if operand.is_written]

    def summarize(self) -> None:
        """Take statistics of the tensors that the launch wrote."""
        for operand in self.written:
            operand.summary = self._writer.summary(self._call, operand.value)

    def write(self, kind: str, originals: Mapping[int, bytes] = _NOTHING, **about: Any) -> Variant:
        """Write the launch. ``originals``: earlier contents of storages that it changed, as far as known."""
        if self.flags and not self._stores_tensors:
            for operand in self.operands:
                if operand.role == "in" or (operand.is_tensor and storage_key(operand.value) in originals):
                    self._store_before(operand, originals)
        stored = self._stores_tensors or bool(self.flags)
        if stored:
            for operand in self.written:
                operand.after = self._writer.store_tensor(self._call, operand.value)
        variant = Variant(
            self._writer.new_variant_number(), [plan(operand.value) for operand in self.written], bool(self.flags)
        )
        self._writer.write_launch(
            self._call,
            kind,
            self.operands,
            **about,
            site=variant.number,
            checks=self.checks,
            flags=self.flags,
            unrecorded=self._writer.missing_reason(self.operands) if stored else f"level {self._writer.level}",
        )
        return variant

    def _store_before(self, operand: Operand, originals: Mapping[int, bytes] = _NOTHING) -> None:
        if operand.is_tensor:
            original = originals.get(storage_key(operand.value))
            operand.before = self._writer.store_tensor(self._call, operand.value, original)
