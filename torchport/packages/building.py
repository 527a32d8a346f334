"""Builds a package: exports a model, compiles its graph and kernels, writes the file."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import torchport
from torchport.archive import Part, Writer
from torchport.errors import OptionError
from torchport.inductor.capture import KernelSource
from torchport.inductor.kernels import Grid, compile_kernel
from torchport.packages import weights
from torchport.packages.destination import check_files, partial_files
from torchport.packages.devices import device_entry, tried
from torchport.packages.exporting import Exported, export
from torchport.packages.loading import WEIGHTS, linked
from torchport.packages.manifest import SCHEMA, GridData, KernelEntry, Manifest, ProgramEntry
from torchport.packages.placing import placed_in_file
from torchport.plugin import Binary, backend_for
from torchport.program import Launch, Program
from torchport.runtime.devices.device import mirrors_of
from torchport.runtime.devices.products import Variant
from torchport.target import Target

__all__ = ["Built", "Example", "build", "default_targets"]

_LEVELS: Mapping[str, tuple[str, ...]] = {
    "x86_64": ("cpu:x86_64:sse", "cpu:x86_64:avx2", "cpu:x86_64:avx512"),
    "aarch64": ("cpu:aarch64:neon",),
}
"""Targets that a package has if none are given, by this kind of machine; the best comes last."""


@dataclass(frozen=True)
class Example:
    """Inputs of a model, and which of their sizes may change, as torch.export takes them."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    dynamic_shapes: Any = None


@dataclass(frozen=True)
class Built:
    """A package that was written.

    path: the file.
    sha256: digest of its manifest, for ``torchport.load(..., sha256=...)``.
    targets: those that it has kernels for.
    kernels: how many kernels it has for each.
    steps: how many steps its programs have.
    bytes: size of the file.
    host: why operators of programs for devices are computed by the CPU, between copies.
    """

    path: Path
    sha256: str
    targets: tuple[str, ...]
    kernels: int
    steps: int
    bytes: int
    host: tuple[str, ...] = ()


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
    also: Sequence[Example] = (),
    name: str = "",
) -> Built:
    """Export ``model``, compile it for ``targets`` and write it to ``path``.

    model: a module, or a function of tensors.
    args, kwargs: example inputs.
    dynamic_shapes: as for ``torch.export.export``.
    targets: levels of CPUs, and devices that take tensors of the CPU's, such as ``opencl``, which must be here;
        default: ``default_targets()``.
    weights_file: a file beside ``path`` for the weights; default: they are inside.
    also: other inputs; each gets a program of its own, for sizes that one program cannot have (0 and 1 beside others).
    name: what the manifest calls the model.

    Raises CompilationError for what a package cannot hold, OptionError or TargetError for targets or files that are
    none, OSError where a file cannot be written, and what torch.export raises.
    """
    path = Path(path)
    chosen = [Target.parse(target) for target in targets or default_targets()]
    groups = _groups(chosen)
    beside = None if weights_file is None else Path(weights_file)
    check_files(path, beside)
    examples = [Example(args, kwargs or {}, dynamic_shapes), *also]
    exports = [
        _Export(group, export(model, one.args, one.kwargs, one.dynamic_shapes, _exported_for(group)))
        for one in examples
        for group in groups
    ]
    first = exports[0].exported
    lies = [(one.exported.input_tree, one.exported.output_tree) for one in exports]
    if any(one != lies[0] for one in lies):
        raise OptionError("the inputs of 'also' lie otherwise than the first ones, or the results do")
    named = [_named(number, one.exported) for number, one in enumerate(exports)]
    stored, placed = placed_in_file({name: tensor for _, weights in named for name, tensor in weights.items()})
    with partial_files(path, beside) as (temporary, temporary_weights), closing(Writer(temporary)) as writer:
        pieces = weights.stream(stored)
        parts = {}
        if beside is not None:
            parts[WEIGHTS] = _write(temporary_weights, pieces)
        else:
            writer.add(WEIGHTS, pieces)
        kernels: dict[str, KernelEntry] = {}
        products: dict[Target, dict[Variant, Binary]] = {}
        programs: list[ProgramEntry] = []
        host: list[str] = []
        for number, (one, (inputs, _)) in enumerate(zip(exports, named, strict=True)):
            exported = one.exported
            renamed, code = _add_kernels(writer, number, exported.graph.kernels, one.targets, kernels)
            steps = [
                replace(s, kernel=renamed[s.kernel]) if isinstance(s, Launch) else s for s in exported.program.steps
            ]
            program = replace(exported.program, steps=tuple(steps))
            file = f"programs/{number}.json"
            writer.add(file, [json.dumps(program.as_json(), separators=(",", ":")).encode()])
            targets_ = tuple(map(str, one.targets))
            programs.append(ProgramEntry(file, targets_, exported.inputs, exported.symbols, exported.relations, inputs))
            for target in one.targets:
                if target.backend != "cpu":
                    launches = {
                        name: linked(code[name, str(target)], kernels[name], target) for name in renamed.values()
                    }
                    made, reasons = _tried(target, program, launches, exported)
                    products.setdefault(target, {}).update(made)
                    host += reasons
        devices = {
            str(target): device_entry(target, torchport.__version__, _add_products(writer, target, made))
            for target, made in products.items()
        }
        manifest = Manifest(
            SCHEMA, name or type(model).__name__, torch.__version__, torchport.__version__,
            tuple(map(str, chosen)), first.parameters, first.input_tree, first.output_tree, tuple(programs), placed,
            beside.name if beside is not None else "", kernels, devices, {**writer.parts, **parts},
        )  # fmt: skip
        text = (json.dumps(manifest.as_json(), indent=1) + "\n").encode()
        Manifest.parse(text, f"the manifest of {path}")
        digest = writer.finish(text)
        if beside is not None:
            temporary_weights.replace(beside)
        size = temporary.stat().st_size
        temporary.replace(path)
    count = sum(len(one.exported.program.steps) for one in exports)
    on_host = tuple(dict.fromkeys(host))
    return Built(path, digest, manifest.targets, len(kernels), count, size, on_host)


def _named(number: int, exported: Exported) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The names of an export's weights: by their name in the program, and the tensors by these names.

    Parameters and buffers are the same for all programs; other constants are each program's own.
    """
    inputs, tensors = {}, {}
    for (name, input_), tensor in exported.weights.items():
        label = name if not number or name in exported.state else f"{number}.{name}"
        inputs[input_], tensors[label] = label, tensor
    return inputs, tensors


@dataclass(frozen=True)
class _Export:
    """A model exported for targets that share a program."""

    targets: tuple[Target, ...]
    exported: Exported


def _groups(chosen: Sequence[Target]) -> list[tuple[Target, ...]]:
    """Targets that share a program: all CPUs, and each other target by itself. Raises OptionError or TargetError."""
    cpus = tuple(target for target in chosen if target.backend == "cpu")
    others = [target for target in chosen if target.backend != "cpu"]
    for target in others:
        if backend_for(target).options.get("cpu_backend") != "triton":
            raise OptionError(
                f"a package runs on tensors in CPU memory, and {target} is none of the targets that take them; "
                "'torchport build' compiles kernels for it"
            )
        if mirrors_of(target) is None:
            raise OptionError(f"{target} has no device with memory of its own, and is no level of the CPU")
    return [*([cpus] if cpus else []), *((target,) for target in others)]


def _exported_for(group: Sequence[Target]) -> str:
    return "cpu" if group[0].backend == "cpu" else str(group[0])


def _tried(
    target: Target, program: Program, launches: Mapping[str, Callable[..., None]], exported: Exported
) -> tuple[dict[Variant, Binary], tuple[str, ...]]:
    """Run the program on copies of what it writes."""
    written = {program.inputs[place] for place in exported.graph.written}
    constants = {
        label: tensor.clone() if label in written else tensor for (_, label), tensor in exported.weights.items()
    }
    tensors = [tensor.detach().clone() for tensor in exported.examples]
    return tried(target, program, launches, constants, tensors, bool(exported.symbols))


def _add_kernels(
    writer: Writer,
    number: int,
    sources: Mapping[str, KernelSource],
    targets: Sequence[Target],
    kernels: dict[str, KernelEntry],
) -> tuple[dict[str, str], dict[tuple[str, str], bytes]]:
    """Compile and write a program's kernels, which are added to ``kernels``.

    Returns what the package calls each, and their code by this name and the target.
    """
    names: dict[str, str] = {}
    made: dict[tuple[str, str], bytes] = {}
    for name, source in sources.items():
        names[name] = label = f"{number}.{name}" if number else name
        code = {}
        for target in map(str, targets):
            code[target] = part = f"{_folder(target)}/{label}"
            made[label, target] = packed = compile_kernel(source.function, source.source, target)
            writer.add(part, [packed])
        kernels[label] = KernelEntry(dict(source.types), _grid(source.grid), code)
    return names, made


def _add_products(writer: Writer, target: Target, kernels: Mapping[Variant, Binary]) -> dict[Variant, str]:
    """Write the kernels of a target's matrix products; returns their parts."""
    parts = {}
    for number, (variant, binary) in enumerate(kernels.items()):
        parts[variant] = part = f"{_folder(str(target))}/product.{number}"
        writer.add(part, [binary.pack()])
    return parts


def _folder(target: str) -> str:
    return f"kernels/{target.replace(':', '-')}"


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
