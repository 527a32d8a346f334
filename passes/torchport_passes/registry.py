"""Every pass by name: torchport's own in an explicit table, others through the entry point group `torchport.passes`.

Nothing is imported until a pass is asked for.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from torchport.errors import OptionError
from torchport.pipeline import Pass

__all__ = ["load", "names"]

_GROUP = "torchport.passes"

# name -> "module:class"; a new pass adds one line here.
_OWN = {
    "buffers": "torchport_passes.bufferize.buffers:Buffers",
    "carried-offsets": "torchport_passes.tensor.carried_offsets:CarriedOffsets",
    "decompose-dot": "torchport_passes.tensor.decompose_dot:DecomposeDot",
    "distribute": "torchport_simt.distribute.distribute:Distribute",
    "emulate-casts": "torchport_passes.arithmetic.emulate_casts:EmulateCasts",
    "emulate-contraction": "torchport_passes.arithmetic.emulate_contraction:EmulateContraction",
    "emulate-denormals": "torchport_passes.arithmetic.emulate_denormals:EmulateDenormals",
    "emulate-dot": "torchport_passes.arithmetic.emulate_dot:EmulateDot",
    "emulate-functions": "torchport_passes.arithmetic.emulate_functions:EmulateFunctions",
    "emulate-reductions": "torchport_passes.arithmetic.emulate_reductions:EmulateReductions",
    "form-nests": "torchport_passes.nests.form_nests:FormNests",
    "guard-program": "torchport_passes.tensor.guard_program:GuardProgram",
    "inline-calls": "torchport_passes.tensor.inline_calls:InlineCalls",
    "lift-branches": "torchport_passes.tensor.lift_branches:LiftBranches",
    "lower-casts": "torchport_passes.scalar.lower_casts:LowerCasts",
    "lower-checks": "torchport_passes.kernel.lower_checks:LowerChecks",
    "lower-division": "torchport_passes.scalar.lower_division:LowerDivision",
    "lower-dot": "torchport_passes.loops.lower_dot:LowerDot",
    "lower-emulated-dot": "torchport_passes.arithmetic.lower_emulated_dot:LowerEmulatedDot",
    "lower-kernel": "torchport_passes.kernel.lower_kernel:LowerKernel",
    "lower-lanes": "torchport_passes.loops.lower_lanes:LowerLanes",
    "lower-map": "torchport_passes.loops.lower_map:LowerMap",
    "lower-math": "torchport_passes.scalar.lower_math:LowerMath",
    "lower-narrow-floats": "torchport_passes.scalar.lower_narrow_floats:LowerNarrowFloats",
    "lower-nests": "torchport_passes.vectorize.lower_nests:LowerNests",
    "lower-print": "torchport_passes.kernel.lower_print:LowerPrint",
    "mark-streams": "torchport_passes.nests.mark_streams:MarkStreams",
    "pack-scratch": "torchport_simt.distribute.pack_scratch:PackScratch",
    "promote": "torchport_passes.arithmetic.promote:Promote",
    "recognize-flip": "torchport_passes.tensor.recognize_flip:RecognizeFlip",
    "recognize-sort": "torchport_passes.tensor.recognize_sort:RecognizeSort",
    "sanitize": "torchport_passes.kernel.sanitize:Sanitize",
    "scalarize": "torchport_passes.tensor.scalarize:Scalarize",
    "to-llvm": "torchport_passes.kernel.to_llvm:ToLLVM",
    "widen-scans": "torchport_passes.tensor.widen_scans:WidenScans",
    "widen-sums": "torchport_passes.tensor.widen_sums:WidenSums",
}


def _table() -> dict[str, str]:
    """Name -> ``module:class`` of every pass; raises OptionError when two packages claim one name."""
    table = dict(_OWN)
    owners = dict.fromkeys(table, "torchport")
    for point in entry_points(group=_GROUP):
        owner = point.dist.name if point.dist is not None else point.value
        if point.name in table:
            raise OptionError(
                f"pass {point.name!r} is offered by both {owners[point.name]} and {owner}; uninstall one of them"
            )
        table[point.name] = point.value
        owners[point.name] = owner
    return table


def names() -> list[str]:
    """The names of all passes, sorted."""
    return sorted(_table())


def load(name: str) -> type[Pass]:
    """The class of pass ``name``.

    Raises OptionError (listing the names there are) when there is none, or when the class's own name differs.
    """
    table = _table()
    if name not in table:
        raise OptionError(f"unknown pass {name!r}; the passes are: {', '.join(sorted(table))}")
    module, _, attribute = table[name].partition(":")
    found: type[Pass] = getattr(importlib.import_module(module), attribute)
    if found.name != name:
        raise OptionError(f"pass {name!r} ({table[name]}) calls itself {found.name!r}; one pass has one name")
    return found
