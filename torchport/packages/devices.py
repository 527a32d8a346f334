"""Targets with memory of their own in packages: what their kernels need, and the kernels of their matrix products."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from torchport.errors import ArtifactError, CompilationError
from torchport.packages.manifest import DeviceEntry, DeviceFacts, ProductEntry
from torchport.plugin import Binary, Launcher, backend_for
from torchport.program import Executor, OtherMemory, Program
from torchport.runtime import events
from torchport.runtime.devices.host_operations import operated
from torchport.runtime.devices.products import Variant, compiled, relatives, signature, sources
from torchport.runtime.devices.session import on_device
from torchport.runtime.devices.thread import empty_strided_cpu
from torchport.target import Target

__all__ = ["PackagedProducts", "check_device", "device_entry", "linked_products", "runnable", "tried"]


_MEMORY = OtherMemory(empty_strided_cpu, operated(torch.ops.aten._local_scalar_dense.default), operated)


class PackagedProducts:
    """Satisfies ``torchport.runtime.devices.thread.Products``: the kernels that a package has, linked for a device."""

    def __init__(self, target: Target, kernels: Mapping[Variant, Binary]) -> None:
        """Link ``kernels``. Raises CompilationError for one that the device does not take."""
        driver = backend_for(target).driver(target)
        self._linked = {
            variant: driver.load(binary, list(signature(variant).values())) for variant, binary in kernels.items()
        }

    def load(self, target: Target, variant: Variant, /) -> tuple[Launcher, int] | str:
        """The kernel, or why there is none: then the host computes the product."""
        return self._linked.get(variant, "the package has no kernel for a product of these sizes and strides")


class _MadeProducts:
    """Satisfies ``torchport.runtime.devices.thread.Products``: compiles kernels, and remembers them for a package."""

    def __init__(self, changing: bool) -> None:
        """``changing``: also make those for other sizes and strides."""
        self.kernels: dict[Variant, Binary] = {}
        self._changing = changing

    def load(self, target: Target, variant: Variant, /) -> tuple[Launcher, int] | str:
        """The kernel, or why there is none."""
        try:
            for one in (variant, *(relatives(target, variant) if self._changing else ())):
                if one not in self.kernels:
                    self.kernels[one], _ = compiled(target, one)
            return backend_for(target).driver(target).load(self.kernels[variant], list(signature(variant).values()))
        except CompilationError as error:
            return f"the target cannot compile its kernel: {error}"


def runnable(
    target: Target,
    program: Program,
    kernels: Mapping[str, Callable[..., None]],
    constants: Mapping[str, torch.Tensor],
    products: PackagedProducts | _MadeProducts,
) -> Callable[[list[Any]], Sequence[Any]]:
    """What runs a program on the device of ``target``: tensors of the CPU's are copied there, results are fetched.

    Weights are inputs as they are in a compiled graph: what the host or the device writes to one reaches the other.
    """
    call = on_device(str(target), Executor(program, kernels, memory=_MEMORY), None, products)

    def run(given: list[Any]) -> Sequence[Any]:
        values = iter(given)
        whole = [constants[name] if name in constants else next(values) for name in program.inputs]
        given.clear()
        return call(whole)

    return run


def tried(
    target: Target,
    program: Program,
    kernels: Mapping[str, Callable[..., None]],
    constants: Mapping[str, torch.Tensor],
    tensors: Sequence[torch.Tensor],
    changing: bool,
) -> tuple[dict[Variant, Binary], tuple[str, ...]]:
    """Run a program once; returns the kernels of its matrix products, and why the host computed the rest.

    tensors: inputs, which the program may write, as it may ``constants``.
    changing: whether sizes change, so that products need further kernels.
    """
    made = _MadeProducts(changing)
    with torch.no_grad(), events.capture() as happened:
        runnable(target, program, kernels, constants, made)([*tensors])
    return made.kernels, tuple(one.reason for one in happened if isinstance(one, events.Fallback))


def _device_facts(target: Target) -> DeviceFacts:
    """What code for a target was chosen by."""
    able = backend_for(target).capabilities(target)
    return DeviceFacts(
        able.simd_width, able.lane_elements, able.block_elements, able.simd_registers, able.vector_lanes, able.fma,
        able.rounding, tuple(sorted(able.dtypes)),
    )  # fmt: skip


def device_entry(target: Target, version: str, code: Mapping[Variant, str]) -> DeviceEntry:
    """What a manifest says of a target. ``code``: the part that has each kernel of a product."""
    kernels = tuple(ProductEntry(**asdict(variant), code=part) for variant, part in code.items())
    return DeviceEntry(version, sources(), _device_facts(target), kernels)


def check_device(where: str, entry: DeviceEntry, target: Target, version: str) -> None:
    """Raise ArtifactError if kernels of a package do not fit this device or this torchport."""
    if (entry.torchport, entry.products) != (version, sources()):
        kernels = " with other kernels" if entry.torchport == version else ""
        raise ArtifactError(
            f"{where} has kernels for {target.backend} that torchport {entry.torchport[:20]} made, and this is "
            f"torchport {version}{kernels}; package the model with this one"
        )
    here = asdict(_device_facts(target))
    other = [
        f"{name} {value} there and {here[name]} here"
        for name, value in asdict(entry.facts).items()
        if value != here[name]
    ]
    if other:
        raise ArtifactError(
            f"{where} has kernels for {target.backend} that were made for another kind of device than {target} "
            f"({'; '.join(other)[:300]}); package the model where such a device is"
        )


def linked_products(target: Target, entry: DeviceEntry, read: Callable[[str], bytes]) -> PackagedProducts:
    """The kernels of products of a package. ``read``: the bytes of a part. Raises ArtifactError."""
    try:
        kernels = {}
        for one in entry.kernels:
            named = {name: value for name, value in asdict(one).items() if name != "code"}
            kernels[Variant(**named)] = Binary.unpack(read(one.code))
        return PackagedProducts(target, kernels)
    except (CompilationError, ValueError) as error:
        raise ArtifactError(f"a kernel of a matrix product cannot be loaded: {error}") from error
