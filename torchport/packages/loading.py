"""Loads a package: checks it, maps its weights, links its kernels. No compiler is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import torchport
from torchport.archive import MANIFEST, Archive, checked, map_file
from torchport.compat import functorch, len_torch_dispatch_stack
from torchport.container import CorruptContainer
from torchport.errors import ArtifactError, CompilationError, InputError, TargetError
from torchport.packages import trees, weights
from torchport.packages.manifest import KernelEntry, Manifest, ProgramEntry, TensorInput, Weight
from torchport.packages.signature import Signature, values_of
from torchport.plugin import Binary, backend_for
from torchport.program import Executor, Grid, Program, bound_launch
from torchport.runtime.collection import no_collection
from torchport.target import Target

__all__ = ["WEIGHTS", "Package", "linked", "load", "minor"]

_Run = Callable[[list[Any]], Sequence[Any]]

WEIGHTS = "weights.safetensors"


class Package:
    """A packaged model. Call it as the model; it computes no gradients.

    path: the file.
    sha256: digest of its manifest, which has the digests of all parts.
    target: what its kernels run on.
    weights: parameters, buffers and constants by name. What is written to them stays in this process.
    """

    def __init__(
        self, path: Path, manifest: Manifest, sha256: str, target: str, weights: Mapping[str, torch.Tensor]
    ) -> None:
        self.path = path
        self.sha256 = sha256
        self.target = target
        self.weights = weights
        self._manifest = manifest
        self._programs: list[tuple[Signature, _Run]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model. Raises InputError for inputs that it was not made for."""
        if len_torch_dispatch_stack() or functorch.peek_interpreter_stack() is not None:
            raise InputError(
                "a packaged model is called inside a mode or a transform of PyTorch (torch.func, fake tensors), which "
                "does not see its kernels; call it outside"
            )
        values = values_of(self._manifest, args, kwargs)
        run, tensors = self._fitting(values)
        with torch.no_grad():
            results = run(tensors)
        return trees.unflatten(self._manifest.output_tree, iter(results))

    def _fitting(self, values: list[Any]) -> tuple[_Run, list[torch.Tensor]]:
        """The program for these inputs, and the tensors among them."""
        problems = []
        for signature, run in self._programs:
            try:
                return run, signature.tensors(values)
            except InputError as error:
                problems.append(str(error))
        if len(said := dict.fromkeys(problems)) == 1:
            raise InputError(*said)
        raise InputError(f"these inputs fit none of the package's {len(problems)} programs: {'; '.join(said)}")

    def __repr__(self) -> str:
        return f"<torchport package {self.path} for {self.target}>"


def load(
    path: str | Path,
    *,
    trust: bool = False,
    sha256: str | None = None,
    weights: str | Path | None = None,
    target: str | Target | None = None,
    check_weights: bool = True,
) -> Package:
    """Load a package that ``torchport package`` wrote.

    The file holds machine code, which will run in this process: it must come from people that you trust.

    trust: also take a file that another user owns, or that others may write.
    sha256: the digest that ``torchport package`` printed; another package is refused.
    weights: the file of weights, where they are not inside; default: beside the package, under the name they were
        written with.
    check_weights: False leaves out the digest of the weights, so that they are read only as they are used.
    target: which kernels to use; default: the last level of the CPU among its targets that runs here, or else a device.

    Raises ArtifactError if the file is missing, damaged, not trusted, or made for another torch, CPU or torchport.
    """
    with no_collection():  # halves the time
        archive = _open(Path(path), trust, sha256)
        chosen = None if target is None else Target.parse(target)
        return _load(archive, chosen, lambda manifest: _weights(archive, manifest, weights, check_weights))


def _open(path: Path, trust: bool, sha256: str | None) -> Archive:
    archive = Archive(path, trust=trust or sha256 is not None)
    if sha256 is not None and archive.digest != sha256.lower():
        raise ArtifactError(f"{path} has the digest {archive.digest}, not {sha256[:80]}: it is another package")
    return archive


def _load(
    archive: Archive, target: Target | None, read_weights: Callable[[Manifest], Mapping[str, torch.Tensor]]
) -> Package:
    path = archive.path
    manifest = Manifest.parse(bytes(archive.read(MANIFEST)), f"{path}: {MANIFEST}")
    if minor(manifest.torch) != minor(torch.__version__):
        raise ArtifactError(
            f"{path} was made with torch {manifest.torch[:20]}, and this is torch {torch.__version__}; "
            "package the model with this torch"
        )
    built, chosen = _target(path, manifest, target)
    entry = manifest.devices.get(built)
    if entry is not None:
        from torchport.packages.devices import check_device, linked_products, runnable

        check_device(str(path), entry, chosen, torchport.__version__)
    stored = read_weights(manifest)
    tensors = {name: _weight(path, name, one, stored) for name, one in manifest.weights.items()}
    kernels = {
        name: _kernel(archive, manifest, name, kernel, built, chosen)
        for name, kernel in manifest.kernels.items()
        if built in kernel.code
    }
    make: Callable[..., _Run] = Executor
    if entry is not None:
        products = linked_products(chosen, entry, lambda part: bytes(archive.checked(part, manifest.parts)))
        make = partial(runnable, chosen, products=products)
    package = Package(path, manifest, archive.digest, str(chosen), tensors)
    for one in manifest.programs:
        if built in one.targets:
            package._programs.append(_program(archive, manifest, one, make, kernels, tensors))
    if not package._programs:
        raise ArtifactError(f"{path} is damaged: it has no program for {built}")
    return package


def _program(
    archive: Archive,
    manifest: Manifest,
    entry: ProgramEntry,
    make: Callable[..., _Run],
    kernels: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
) -> tuple[Signature, _Run]:
    """A program, linked by ``make``. Raises ArtifactError."""
    path = archive.path
    program = Program.parse(bytes(archive.checked(entry.file, manifest.parts)), f"{path}: {entry.file}")
    constants = {name: tensors[weight] for name, weight in entry.weights.items()}
    given = [one.input for one in entry.inputs if isinstance(one, TensorInput)]
    if [name for name in program.inputs if name not in constants] != given:
        raise ArtifactError(f"{path} is damaged: the program takes other inputs than the manifest says")
    if len(program.results) != trees.leaves(manifest.output_tree):
        raise ArtifactError(f"{path} is damaged: the program returns other results than the manifest says")
    return Signature(entry), make(program, kernels, constants)


def minor(version: str) -> str:
    """The part of torch's version that programs depend on: 2.13 of 2.13.0+cpu."""
    return ".".join(version.split(".")[:2])


def _target(path: Path, manifest: Manifest, wanted: Target | None) -> tuple[str, Target]:
    """The best target of a package that runs here, or ``wanted``: as the package calls it, and here.

    Levels of the CPU come first, the best of them; ``opencl:1`` runs what was compiled for ``opencl``. Raises
    ArtifactError.
    """
    reasons = []
    for text in sorted(reversed(manifest.targets), key=lambda text: text in manifest.devices):
        try:
            target = Target.parse(text)
            if wanted is not None and target != wanted:
                if text not in manifest.devices or target.backend != wanted.backend:
                    continue
                target = wanted
            backend_for(target).driver(target)
        except TargetError as error:
            reasons.append(str(error))
        else:
            return text, target
    if wanted is not None and not reasons:
        reasons = [f"it has no kernels for {wanted}"]
    available = ", ".join(manifest.targets)[:200] or "no target"
    raise ArtifactError(f"{path} does not run here: it has kernels for {available}; {'; '.join(reasons)[:300]}")


def _kernel(archive: Archive, manifest: Manifest, name: str, entry: KernelEntry, built: str, target: Target) -> Any:
    """Link a kernel, which was compiled for ``built``, for ``target``. Returns its launch."""
    try:
        return linked(bytes(archive.checked(entry.code[built], manifest.parts)), entry, target)
    except (CorruptContainer, CompilationError) as error:
        raise ArtifactError(f"{archive.path}: kernel {name[:80]} cannot be loaded: {error}") from error


def linked(packed: bytes, entry: KernelEntry, target: Target) -> Callable[..., None]:
    """The launch of a kernel. Raises CorruptContainer or CompilationError."""
    launcher, function = backend_for(target).driver(target).load(Binary.unpack(packed), list(entry.types.values()))
    return bound_launch(launcher, function, Grid(entry.grid.sizes, entry.grid.blocks, entry.grid.overflow))


def _weights(archive: Archive, manifest: Manifest, file: str | Path | None, check: bool) -> dict[str, torch.Tensor]:
    """The tensors of the package's file of weights, by name."""
    if not manifest.weights_file:
        if file is not None:
            raise ArtifactError(f"{archive.path} has its weights inside, and takes none of another file ({file})")
        data, where = archive.read(WEIGHTS), f"{archive.path}: {WEIGHTS}"
    else:
        path = Path(file) if file is not None else archive.path.parent / manifest.weights_file
        data, where = map_file(path, trust=True), str(path)
    return weights.read(checked(data, manifest.parts.get(WEIGHTS), where) if check else data, where)


def _weight(path: Path, name: str, one: Weight, stored: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A weight as a view of the stored tensor that has its memory. Raises ArtifactError."""
    tensor = stored.get(one.tensor)
    last = one.offset + sum((size - 1) * stride for size, stride in zip(one.sizes, one.strides, strict=False))
    fits = tensor is not None and len(one.sizes) == len(one.strides) and (0 in one.sizes or last < tensor.numel())
    if tensor is None or not fits:
        raise ArtifactError(f"{path} is damaged: weight {name[:80]} is not in the file of weights")
    if tensor.shape == torch.Size(one.sizes) and tensor.stride() == one.strides and not one.offset:
        return tensor  # tied weights are one tensor
    return tensor.as_strided(one.sizes, one.strides, one.offset)
