"""The CPU target's default list of passes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torchport_passes.kernel.mark_order import MarkOrder

from torchport.pipeline import Pass
from torchport_cpu.cost import EstimateCost
from torchport_cpu.host import HostInfo

__all__ = ["passes"]

_BYPASS = 24 * 2**20
"""Bytes that a launch has to store to go around the caches: three quarters of the last one of Zen's groups of cores,
which holds what the launch reads, too."""


def _mark_streams(host: HostInfo, large: bool) -> Pass:
    """What to prefetch. Each choice was measured on the processors it is for (docs/performance/kernels.md)."""
    from torchport_passes.nests.mark_streams import MarkStreams

    if not host.is_zen:
        return MarkStreams()
    return MarkStreams(stores=False, next_rows=True, rows=8, bypass=_BYPASS if large else 0)


def passes(
    host: HostInfo,
    *,
    sanitize: bool = False,
    confined: bool = False,
    narrow: bool = True,
    loop_hints: bool = True,
    arithmetic: Sequence[Pass] = (),
    large: bool = True,
    bf16_pairs: bool = False,
    fused_sums: bool = True,
    present: Collection[str] | None = None,
) -> list[Pass]:
    """The passes from imported TTIR to the llvm dialect, in order.

    host: the CPU to lower for.
    sanitize: whether to check every memory access.
    confined: whether to do that, and to refuse what cannot be checked (``CPUOptions.confined``).
    narrow: whether the kernel may have values of bf16 or of 8-bit float types.
    loop_hints: whether its loops may be annotated.
    arithmetic: passes that emulate another chip's arithmetic (``torchport_passes.arithmetic.passes_for``).
    large: whether a launch may write more than the caches hold.
    bf16_pairs: whether products of bf16 may take denormals for zeros, as this CPU's instruction for pairs does.
    fused_sums: whether sums of products of float64 may be rounded once a step.
    present: names of the kernel's ``tt`` operations, where they are known: passes for others are left out.
    """
    from torchport_passes.arithmetic.lower_emulated_dot import LowerEmulatedDot
    from torchport_passes.bufferize.buffers import Buffers
    from torchport_passes.kernel.confine import Confine
    from torchport_passes.kernel.lower_checks import LowerChecks
    from torchport_passes.kernel.lower_kernel import LowerKernel
    from torchport_passes.kernel.lower_print import LowerPrint
    from torchport_passes.kernel.sanitize import Sanitize
    from torchport_passes.kernel.to_llvm import ToLLVM
    from torchport_passes.loops.lower_dot import LowerDot
    from torchport_passes.loops.lower_lanes import LowerLanes
    from torchport_passes.loops.lower_map import LowerMap
    from torchport_passes.nests.form_nests import FormNests
    from torchport_passes.scalar.fold_nan_tests import FoldNanTests
    from torchport_passes.scalar.lower_casts import LowerCasts
    from torchport_passes.scalar.lower_division import LowerDivision
    from torchport_passes.scalar.lower_math import LowerMath
    from torchport_passes.scalar.lower_narrow_floats import LowerNarrowFloats
    from torchport_passes.scalar.lower_pairs import LowerPairs
    from torchport_passes.scalar.mark_nans import MarkNans
    from torchport_passes.scalar.narrow_functions import NarrowFunctions
    from torchport_passes.tensor.carried_offsets import CarriedOffsets
    from torchport_passes.tensor.decompose_dot import DecomposeDot
    from torchport_passes.tensor.guard_program import GuardProgram
    from torchport_passes.tensor.inline_calls import InlineCalls
    from torchport_passes.tensor.lift_branches import LiftBranches
    from torchport_passes.tensor.mark_rows import MarkRows
    from torchport_passes.tensor.mark_zeros import MarkZeros
    from torchport_passes.tensor.pair_bytes import PairBytes
    from torchport_passes.tensor.recognize_flip import RecognizeFlip
    from torchport_passes.tensor.recognize_sort import RecognizeSort
    from torchport_passes.tensor.scalarize import Scalarize
    from torchport_passes.tensor.short_scans import ShortScans
    from torchport_passes.tensor.widen_sums import WidenSums
    from torchport_passes.vectorize.fuse_sums import FuseSums
    from torchport_passes.vectorize.lower_nests import LowerNests

    def has(*names: str) -> bool:
        """Whether there may be such operations; emulation makes some of others, as dots of sums."""
        return present is None or bool(arithmetic) or any(name in present for name in names)

    dots = has("tt.dot", "tt.dot_scaled")
    pairs = bf16_pairs and host.bf16_pairs and not arithmetic
    arch = host.arch.split("-", 1)[0]
    return [
        *([Confine()] if confined else []),
        *arithmetic,
        MarkOrder(written=bool(arithmetic)),
        *([Sanitize(confined)] if sanitize or confined else []),
        RecognizeSort(),
        RecognizeFlip(),
        LiftBranches(),
        *([InlineCalls()] if has("tt.call") else []),
        *([WidenSums()] if has("tt.reduce") else []),
        *([ShortScans()] if has("tt.scan") else []),
        Scalarize(),
        GuardProgram(),
        CarriedOffsets(),
        *([DecomposeDot(pairs=pairs)] if dots else []),
        *([PairBytes()] if dots and arch == "x86_64" and not arithmetic else []),
        *([MarkZeros()] if dots else []),
        *([MarkRows()] if dots else []),
        Buffers(),
        FormNests(),
        EstimateCost(),
        _mark_streams(host, large),
        LowerNests(vector_bits=host.vector_bits, next_tiles=not host.is_zen),
        *([FuseSums()] if fused_sums and not arithmetic else []),
        *([LowerEmulatedDot(vector_bits=host.vector_bits)] if arithmetic else []),
        *([LowerDot(vector_bits=host.vector_bits, registers=host.vector_registers)] if dots else []),
        LowerLanes(vector_bits=host.vector_bits),
        *([LowerMap()] if has("tt.map_elementwise") else []),
        *([LowerChecks()] if sanitize or confined else []),
        *([LowerPrint()] if has("tt.print") else []),
        LowerKernel(),
        FoldNanTests(),
        *([MarkNans()] if narrow else []),
        *([NarrowFunctions()] if narrow and not arithmetic else []),
        LowerMath(vector_bits=host.vector_bits, arch=arch),
        LowerCasts(arch=arch, half=arch != "x86_64" or host.has("f16c")),
        *([LowerNarrowFloats()] if narrow else []),
        *([LowerPairs()] if pairs else []),
        LowerDivision(),
        ToLLVM(loop_hints=loop_hints),
    ]
