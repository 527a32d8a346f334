"""Code generation of Triton kernels for the target's device."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import sympy
import torch
from torch.torch_version import TorchVersion

from torchport.errors import UnsupportedOperation
from torchport.inductor.capture import KernelSource
from torchport.inductor.codegen.fusing import turns_beside_a_reduction
from torchport.inductor.codegen.overrides import TorchportOverrides
from torchport.inductor.codegen.printing import SizePrinter
from torchport.inductor.codegen.scans import carried_in_float64
from torchport.inductor.codegen.templates import TemplateKernel
from torchport.inductor.codegen.tilings import TiledScheduling
from torchport.inductor.codegen.wrapper import is_ours
from torchport.inductor.compat import (
    BackendFeature,
    IndentedBuffer,
    KernelArgs,
    OrderedSet,
    TritonKernel,
    TritonScheduling,
    V,
    config,
)
from torchport.inductor.kernels import Grid, compile_in_background, kernel_key
from torchport.inductor.quarantined import region_name
from torchport.inductor.scope import current
from torchport.inductor.upstream.corrections import applies
from torchport.inductor.upstream.indices import needs_64_bits
from torchport.quarantine import configuration
from torchport.runtime import events
from torchport.target import Target
from torchport.triton.source import in_arithmetic, with_elements, with_pairs

__all__ = ["TorchportScheduling"]

_GRIDS = {"Grid1D": "x", "Grid2D": "xy", "Grid2DWithYZOverflow": "xy", "Grid3D": "xyz"}


class ComplexAsIntegers(KernelArgs):
    """Arguments of a kernel, in which complex64 elements are 64-bit integers.

    Triton has no complex numbers. Arithmetic on them is left to aten, so kernels only move them.
    """

    def python_argdefs(self) -> Any:
        """Names, values, signature and types of the arguments. Raises UnsupportedOperation for complex128."""
        names, values, signature, types = super().python_argdefs()
        if not applies("complex-moves"):
            return names, values, signature, types
        if any(getattr(argument, "dtype", None) is torch.complex128 for argument in signature):
            raise UnsupportedOperation("copy of complex128", "Triton has no integers of 128 bits to move them as")
        moved = [
            replace(a, dtype=_MOVED_AS[a.dtype]) if getattr(a, "dtype", None) in _MOVED_AS else a for a in signature
        ]
        return names, values, moved, types


_ROWLESS_BLOCKS: bool = TorchVersion(torch.__version__) >= "2.13"
_MOVED_AS = {torch.complex64: torch.int64, torch.complex32: torch.int32}


class TorchportKernel(TritonKernel):
    """A Triton kernel whose source names the heuristic of Inductor that its fixed configuration replaces.

    Inductor reads the prefix of a kernel's name (``poi``, ``red``, ``per``) from the source.
    """

    overrides = TorchportOverrides
    kexpr = SizePrinter().doprint

    def __init__(self, tiling: Any, features: Any, **kwargs: Any) -> None:
        if applies("index-values") and needs_64_bits(features):
            features.select_index_dtype = lambda: torch.int64
        super().__init__(tiling, features=features, **kwargs)
        self.args = ComplexAsIntegers()

    def want_no_x_dim(self) -> bool:
        """Whether blocks of one row have no dimension for rows. Before torch 2.13 Inductor fails on indices of them."""
        wanted: Any = super().want_no_x_dim()
        return _ROWLESS_BLOCKS and bool(wanted)

    def _has_constant_mask(self, tree: Any) -> bool:
        """Whether no mask is needed.

        Inductor needs none for blocks of one row. But more than 65,535 rows are spread over two dimensions of the
        grid, whose product may be larger.
        """
        return not self.needs_yz_grid_overflow(tree) and bool(super()._has_constant_mask(tree))

    def scan(self, dtypes: Any, combine_fn: Any, values: Any) -> Any:
        """An associative scan along the reduction."""
        if not (applies("scans-in-float64") and carried_in_float64(tuple(dtypes), combine_fn)):
            return super().scan(dtypes, combine_fn, values)
        results: Any = super().scan((torch.float64,), combine_fn, values)
        return tuple(V.ops.to_dtype(result, torch.float32) for result in results)

    def codegen_kernel(self, name: str | None = None) -> str:
        """The source of the kernel."""
        with config.patch(emulate_precision_casts=False):  # it would also round products before additions, in float32
            source: str = super().codegen_kernel(name)
        if self.fixed_config is None:
            return source
        loop = "persistent_reduction" if self.persistent_reduction else "reduction"
        source = f"{source}# in place of @triton_heuristics.{loop if self.inside_reduction else 'pointwise'}\n"
        sizes = [sympy.sympify(size) for size in self.numels.values()]
        return with_elements(source, math.prod(map(int, sizes))) if all(size.is_Integer for size in sizes) else source


class TorchportScheduling(TiledScheduling):
    """Inductor's Triton scheduling; its kernels are loaded by torchport.

    Sorting is left to aten: Inductor's kernels sort with a bitonic network, O(n log^2 n) work that pays on a GPU only.
    """

    kernel_type = TorchportKernel
    backend_features = OrderedSet(f for f in TritonScheduling.backend_features if f is not BackendFeature.SORT)

    def __init__(self, scheduler: Any) -> None:
        super().__init__(scheduler)
        scope = current()
        if scope is not None and not scope.settings.own_memory and applies("scalars-in-memory"):
            # Inputs without dimensions stay in memory. As numbers, which a GPU's kernels need, they cannot be written
            # in place, though Inductor lets the body of a loop do that.
            V.graph.is_unspec_arg = lambda name: False

    def can_fuse(self, node1: Any, node2: Any) -> Any:
        """Whether two nodes become one kernel."""
        return super().can_fuse(node1, node2) and not turns_beside_a_reduction(node1, node2)

    can_fuse_vertical = can_fuse
    can_fuse_horizontal = can_fuse

    def define_kernel(self, src_code: str, node_schedule: Any, kernel: Any) -> str:
        """Write the kernel into the wrapper, and record which FX nodes it computes."""
        name: str = super().define_kernel(src_code, node_schedule, kernel)
        scope = current()
        if scope is not None:
            record = scope.record(name)
            record.calls.append(_origins(node_schedule))
            if isinstance(kernel, TemplateKernel):
                record.roles = kernel.roles(node_schedule)
        return name

    def codegen_comment(self, *args: Any, **kwargs: Any) -> None:
        """Write a comment before a call if it says more than the one that the kernel has."""
        scope = current()
        plain = not config.debug_fusion and config.trace.provenance_tracking_level == 0
        if scope is None or not plain or not is_ours():
            super().codegen_comment(*args, **kwargs)

    def _emit_kernel_to_wrapper(
        self,
        wrapper: Any,
        kernel: Any,
        src_code: str,
        kernel_name: str,
        subs_name: str,
        node_schedule: Any,
        kernel_path: str,
        get_kernel_metadata: Any,
    ) -> None:
        scope = current()
        meta = kernel.triton_meta
        blocks, grid = _blocks(kernel), _grid(kernel)
        if scope is None or blocks is None or grid is None or not is_ours():
            super()._emit_kernel_to_wrapper(
                wrapper, kernel, src_code, kernel_name, subs_name, node_schedule, kernel_path, get_kernel_metadata
            )
            return
        source = IndentedBuffer()
        source.splice(src_code, strip=True)
        text = in_arithmetic(source.getvalue(), scope.settings.arithmetic)
        text = with_pairs(text) if scope.settings.bf16_products == "pairs" else text
        types = {name: str(type_) for name, type_ in meta["signature"].items()}
        target = scope.settings.target
        key = kernel_key(text, Target.parse(target))
        operations = tuple(str(node.target) for node in _origins(node_schedule) if node.op == "call_function")
        record = scope.record(kernel_name)
        record.source = KernelSource(
            subs_name, key, target, types, text, operations, grid, _hints(kernel), configuration(blocks)
        )
        record.region = region_name(node_schedule)
        events.announce(events.Step(scope.graph, len(scope.kernels)))
        known = _known(kernel, grid)
        compile_in_background(scope, key, subs_name, text)
        origins, detailed = get_kernel_metadata(node_schedule, wrapper)
        call = f"torchport_kernel({subs_name!r}, {key!r}, {target!r}, {types!r}, {known!r}, '''\n{text}''')"
        wrapper.define_kernel(kernel_name, call, f"{origins}\n{detailed}")


def _blocks(kernel: Any) -> dict[str, int] | None:
    """The block sizes of a kernel; None where they are not fixed."""
    if isinstance(kernel, TemplateKernel):
        return kernel.blocks
    fixed = getattr(kernel, "fixed_config", None)
    return None if fixed is None else dict(fixed.config)


def _grid(kernel: Any) -> Grid | None:
    """How the grid of a kernel with fixed blocks follows from its arguments; None for other kinds of grid."""
    if isinstance(kernel, TemplateKernel):
        return kernel.launch_grid()
    if getattr(kernel, "fixed_config", None) is None or kernel.inductor_meta is None:
        return None
    kind = kernel.inductor_meta["grid_type"]
    if kind not in _GRIDS:
        return None
    names = list(kernel.triton_meta["signature"])
    return Grid(
        tuple(names.index(f"{axis}numel") for axis in _GRIDS[kind]),
        tuple(kernel.fixed_config[f"{axis.upper()}BLOCK"] for axis in _GRIDS[kind]),
        overflow=kind.endswith("YZOverflow"),
    )


def _sizes(kernel: Any) -> list[Any]:
    """Elements along each axis of the grid."""
    if isinstance(kernel, TemplateKernel):
        return kernel.launch_sizes()
    return [V.graph.sizevars.simplify(kernel.numels[axis]) for axis in _GRIDS[kernel.inductor_meta["grid_type"]]]


def _known(kernel: Any, grid: Grid) -> Grid | tuple[int, int, int]:
    """The value of ``grid`` if all sizes are known, otherwise ``grid``."""
    known = _sizes(kernel)
    if not all(size.is_Integer for size in known):
        return grid
    arguments = [0] * len(kernel.triton_meta["signature"])
    for index, size in zip(grid.sizes, known, strict=True):
        arguments[index] = int(size)
    return grid.of(arguments)


def _hints(kernel: Any) -> tuple[int, ...]:
    """Elements along each axis of the grid; dynamic sizes are those of the example inputs."""
    return tuple(int(V.graph.sizevars.optimization_hint(size)) for size in _sizes(kernel))


def _origins(node_schedule: Any) -> list[Any]:
    """The FX nodes that the scheduler nodes of a kernel came from, each once."""
    origins: dict[Any, None] = {}
    for node in node_schedule:
        buffer = getattr(node, "node", None)  # the schedule also holds markers, which have none
        if buffer is not None:
            origins.update(dict.fromkeys(buffer.get_origins()))
    return list(origins)
