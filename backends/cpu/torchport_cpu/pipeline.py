"""The CPU target's default list of passes."""

from __future__ import annotations

from collections.abc import Sequence

from torchport.pipeline import Pass
from torchport_cpu.host import HostInfo

__all__ = ["passes"]


def passes(
    host: HostInfo,
    *,
    sanitize: bool = False,
    narrow: bool = True,
    loop_hints: bool = True,
    arithmetic: Sequence[Pass] = (),
) -> list[Pass]:
    """Passes from imported TTIR to the llvm dialect, in order.

    ``sanitize``: with checks of every memory access. ``narrow``: the kernel may have values of bf16 or of 8-bit
    float types. ``loop_hints``: its loops may be annotated.
    ``arithmetic``: passes that give it another arithmetic (``torchport_passes.arithmetic``).
    """
    from torchport_passes.buffers import Buffers
    from torchport_passes.carried_offsets import CarriedOffsets
    from torchport_passes.decompose_dot import DecomposeDot
    from torchport_passes.form_nests import FormNests
    from torchport_passes.guard_program import GuardProgram
    from torchport_passes.inline_calls import InlineCalls
    from torchport_passes.lift_branches import LiftBranches
    from torchport_passes.lower_casts import LowerCasts
    from torchport_passes.lower_checks import LowerChecks
    from torchport_passes.lower_division import LowerDivision
    from torchport_passes.lower_dot import LowerDot
    from torchport_passes.lower_emulated_dot import LowerEmulatedDot
    from torchport_passes.lower_kernel import LowerKernel
    from torchport_passes.lower_lanes import LowerLanes
    from torchport_passes.lower_map import LowerMap
    from torchport_passes.lower_math import LowerMath
    from torchport_passes.lower_narrow_floats import LowerNarrowFloats
    from torchport_passes.lower_nests import LowerNests
    from torchport_passes.lower_print import LowerPrint
    from torchport_passes.mark_streams import MarkStreams
    from torchport_passes.recognize_flip import RecognizeFlip
    from torchport_passes.recognize_sort import RecognizeSort
    from torchport_passes.sanitize import Sanitize
    from torchport_passes.scalarize import Scalarize
    from torchport_passes.to_llvm import ToLLVM
    from torchport_passes.widen_sums import WidenSums

    arch = host.arch.split("-", 1)[0]
    return [
        *arithmetic,
        *([Sanitize()] if sanitize else []),
        RecognizeSort(),
        RecognizeFlip(),
        LiftBranches(),
        InlineCalls(),
        WidenSums(),
        Scalarize(),
        GuardProgram(),
        CarriedOffsets(),
        DecomposeDot(),
        Buffers(),
        FormNests(),
        MarkStreams(),
        LowerNests(vector_bits=host.vector_bits),
        LowerEmulatedDot(vector_bits=host.vector_bits),
        LowerDot(vector_bits=host.vector_bits, registers=host.vector_registers),
        LowerLanes(vector_bits=host.vector_bits),
        LowerMap(),
        *([LowerChecks()] if sanitize else []),
        LowerPrint(),
        LowerKernel(),
        LowerMath(vector_bits=host.vector_bits, arch=arch),
        LowerCasts(arch=arch, half=arch != "x86_64" or host.has("f16c")),
        *([LowerNarrowFloats()] if narrow else []),
        LowerDivision(),
        ToLLVM(loop_hints=loop_hints),
    ]
