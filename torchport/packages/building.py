"""Builds a package: exports a model, compiles its graph and kernels, writes the file."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import torchport
from torchport.errors import CompilationError, OptionError
from torchport.inductor.kernels import Grid, compile_kernel
from torchport.packages import weights
from torchport.packages.archive import Writer
from torchport.packages.exporting import Exported, export
from torchport.packages.loading import PROGRAM, WEIGHTS
from torchport.packages.manifest import SCHEMA, GridData, KernelEntry, Manifest, Part, Weight
from torchport.target import Target

__all__ = ["Built", "build", "default_targets"]

_LEVELS: Mapping[str, tuple[str, ...]] = {
    "x86_64": ("cpu:x86_64:sse", "cpu:x86_64:avx2", "cpu:x86_64:avx512"),
    "aarch64": ("cpu:aarch64:neon",),
}
"""Targets that a package has if none are given, by this kind of machine; the best comes last."""


@dataclass(frozen=True)
class Built:
    """A package that was written.

    path: the file.
    sha256: digest of its manifest, for ``torchport.load(..., sha256=...)``.
    targets: those that it has kernels for.
    kernels: how many kernels it has for each.
    steps: how many steps its program has.
    bytes: size of the file.
    """

    path: Path
    sha256: str
    targets: tuple[str, ...]
    kernels: int
    steps: int
    bytes: int


def default_targets() -> tuple[str, ...]:
    """The levels of this kind of machine; ``cpu`` where none are known."""
    return _LEVELS.get(platform.machine(), ("cpu",))


def build(
    model: Callable[..., Any],
    args: Sequence[Any],
    path: str | Path,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    targets: Sequence[str | Target] = (),
    weights_file: str | Path | None = None,
    name: str = "",
) -> Built:
    """Export ``model``, compile it for ``targets`` and write it to ``path``.

    model: a module, or a function of tensors.
    args, kwargs: example inputs.
    dynamic_shapes: as for ``torch.export.export``.
    targets: CPUs; default: ``default_targets()``.
    weights_file: a file beside ``path`` for the weights; default: they are inside.
    name: what the manifest calls the model.

    Raises CompilationError for what a package cannot hold, OptionError or TargetError for targets that are none, and
    what torch.export raises.
    """
    path = Path(path)
    chosen = [Target.parse(target) for target in targets or default_targets()]
    foreign = [str(target) for target in chosen if target.backend != "cpu"]
    if foreign:
        raise OptionError(
            f"a package runs on CPUs, and {', '.join(foreign)} is none; 'torchport build' compiles kernels for it"
        )
    beside = None if weights_file is None else Path(weights_file)
    if beside is not None and beside.resolve().parent != path.resolve().parent:
        raise OptionError(f"{beside} must be in the folder of {path}, where it is looked for")
    exported = export(model, args, kwargs, dynamic_shapes)
    stored, placed = _placed(exported)
    temporary = path.with_name(f".{path.name}.partial")
    writer = Writer(temporary)
    try:
        pieces = weights.stream(stored)
        parts = {WEIGHTS: _write(beside, pieces)} if beside is not None else {}
        if beside is None:
            writer.add(WEIGHTS, pieces)
        writer.add(PROGRAM, [json.dumps(exported.program.as_json(), separators=(",", ":")).encode()])
        kernels = {
            name: KernelEntry(
                dict(source.types),
                _grid(source.grid),
                {str(target): _add_kernel(writer, name, source, target) for target in chosen},
            )
            for name, source in exported.graph.kernels.items()
        }
        manifest = Manifest(
            SCHEMA, name or type(model).__name__, torch.__version__, torchport.__version__,
            tuple(map(str, chosen)), exported.parameters, exported.inputs, exported.input_tree, exported.output_tree,
            exported.symbols, exported.relations, placed, beside.name if beside is not None else "", kernels,
            {**writer.parts, **parts},
        )  # fmt: skip
        text = (json.dumps(manifest.as_json(), indent=1) + "\n").encode()
        Manifest.parse(text, f"the manifest of {path}")
        digest = writer.finish(text)
        temporary.replace(path)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)
    steps = len(exported.program.steps)
    return Built(path, digest, manifest.targets, len(kernels), steps, path.stat().st_size)


def _add_kernel(writer: Writer, name: str, source: Any, target: Target) -> str:
    part = f"kernels/{str(target).replace(':', '-')}/{name}"
    writer.add(part, [compile_kernel(source.function, source.source, str(target))])
    return part


def _grid(grid: Grid) -> GridData:
    return GridData(tuple(grid.sizes), tuple(grid.blocks), grid.overflow)


def _write(path: Path, pieces: Iterator[Any]) -> Part:
    digest, length = hashlib.sha256(), 0
    with open(path, "wb") as out:
        for piece in pieces:
            out.write(piece)
            digest.update(piece)
            length += len(piece)
    return Part(length, digest.hexdigest())


def _placed(exported: Exported) -> tuple[dict[str, torch.Tensor], tuple[Weight, ...]]:
    """The tensors to store, and each weight's place in them: weights that share memory share it in the file."""
    by_memory: dict[Any, list[tuple[str, str, torch.Tensor]]] = {}
    for (name, input_), tensor in exported.weights.items():
        memory = tensor.untyped_storage()
        key = (memory.data_ptr(), memory.nbytes()) if memory.nbytes() else name
        by_memory.setdefault(key, []).append((name, input_, tensor))
    stored: dict[str, torch.Tensor] = {}
    placed: list[Weight] = []
    for group in by_memory.values():
        name, _, first = group[0]
        layouts = {(one.shape, one.stride(), one.storage_offset(), one.dtype) for _, _, one in group}
        if len({one.dtype for _, _, one in group}) > 1:
            raise CompilationError(f"weights of several types share the memory of {name}, which a package cannot hold")
        if len(layouts) == 1 and first.is_contiguous():
            stored[name], offset = first, first.storage_offset()
        else:
            lowest = min(one.storage_offset() for _, _, one in group)
            highest = max(_end(one) for _, _, one in group)
            stored[name], offset = first.as_strided((highest - lowest,), (1,), lowest), lowest
        for label, input_, one in group:
            place = tuple(one.shape), tuple(one.stride()), int(one.storage_offset() - offset)
            placed.append(Weight(label, input_, name, *place))
    return stored, tuple(placed)


def _end(tensor: torch.Tensor) -> int:
    if not tensor.numel():
        return int(tensor.storage_offset())
    return (
        int(tensor.storage_offset()) + 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    )
