"""The manifest of a package: everything but the steps, the weights and the code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypedDict

from torchport.archive import Digest, Part, Size
from torchport.errors import ArtifactError
from torchport.files import parse_json
from torchport.packages import trees
from torchport.program.values import names_in

__all__ = [
    "SCHEMA",
    "ConstantInput",
    "DeviceEntry",
    "DeviceFacts",
    "GridData",
    "KernelEntry",
    "Manifest",
    "ProductEntry",
    "ProgramEntry",
    "Range",
    "Relation",
    "TensorInput",
    "Weight",
]

SCHEMA = "torchport.package/2"


@dataclass(frozen=True)
class TensorInput:
    """A tensor that the caller gives.

    name: what messages call it.
    input: its name in the program.
    dtype: its type, without ``torch.``.
    sizes, strides: values of ``torchport.program.values``, over names of sizes.
    written: whether the model writes it.
    """

    name: str
    input: str
    dtype: str
    sizes: tuple[Any, ...]
    strides: tuple[Any, ...]
    written: bool


@dataclass(frozen=True)
class ConstantInput:
    """A number, text or None that the caller must give with this value, as the program was made for it."""

    name: str
    value: bool | int | float | str | None


@dataclass(frozen=True)
class Range:
    """The sizes that a name may stand for; ``high`` is None if there is no limit."""

    low: int
    high: int | None


@dataclass(frozen=True)
class Relation:
    """A value that must be true, and how it reads."""

    value: Any
    text: str


@dataclass(frozen=True)
class Weight:
    """A parameter, buffer or constant.

    tensor: the tensor in the file of weights that holds its memory.
    sizes, strides, offset: its place in that memory.
    """

    tensor: str
    sizes: tuple[Size, ...]
    strides: tuple[Size, ...]
    offset: Size


@dataclass(frozen=True)
class ProgramEntry:
    """A program, and the inputs that it is for.

    file: the part that has its steps.
    targets: those that it is for: the levels of the CPU share one, another target has its own.
    inputs: the values of a call, in the tree's order.
    symbols: the ranges of sizes that have names.
    relations: what must be true of them.
    weights: by name in the program, the name of the weight that it takes.
    """

    file: str
    targets: tuple[str, ...]
    inputs: tuple[TensorInput | ConstantInput, ...]
    symbols: dict[str, Range]
    relations: tuple[Relation, ...]
    weights: dict[str, str]

    def check(self) -> None:
        """Raise ArtifactError where sizes have no value, or an input is not described whole."""
        tensors = [one for one in self.inputs if isinstance(one, TensorInput)]
        known, given = {*self.symbols}, {size for one in tensors for size in one.sizes if isinstance(size, str)}
        used = {name for one in tensors for value in (*one.sizes, *one.strides) for name in names_in(value)}
        used |= {name for relation in self.relations for name in names_in(relation.value)}
        if not used <= known or not known <= given:
            raise ArtifactError(f"sizes without a value: {', '.join(sorted((used - known) | (known - given)))[:80]}")
        for one in tensors:
            if len(one.sizes) != len(one.strides):
                raise ArtifactError(f"input {one.name[:40]} has {len(one.sizes)} sizes and {len(one.strides)} strides")


@dataclass(frozen=True)
class GridData:
    """A ``torchport.program.Grid``."""

    sizes: tuple[Annotated[int, range(2**16)], ...]
    blocks: tuple[Annotated[int, range(1, 2**31)], ...]
    overflow: bool


@dataclass(frozen=True)
class KernelEntry:
    """A kernel: Triton's type of each argument, its grid, and the part that has its code, by target."""

    types: dict[str, str]
    grid: GridData
    code: dict[str, str]


_Count = Annotated[int, range(2**31)]


@dataclass(frozen=True)
class DeviceFacts:
    """What code was chosen by: fields of ``torchport.capabilities.Capabilities``."""

    simd_width: _Count
    lane_elements: _Count
    block_elements: _Count
    simd_registers: _Count
    vector_lanes: bool
    fma: bool
    rounding: str
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class ProductEntry:
    """A kernel of matrix products: a ``torchport.runtime.devices.products.Variant``, and the part of its code."""

    kernel: str
    types: tuple[str, ...]
    unit: bool
    columns: Annotated[int, range(1, 2**16)]
    rows: Annotated[int, range(2**16)]
    scaled: bool
    biased: bool
    packed: bool
    fours: bool
    code: str


@dataclass(frozen=True)
class DeviceEntry:
    """A target that is no CPU.

    torchport: the version that compiled for it.
    products: SHA-256 of the source of its matrix products.
    facts: what its code was chosen by; a device that differs is refused.
    kernels: its matrix products.
    """

    torchport: str
    products: Digest
    facts: DeviceFacts
    kernels: tuple[ProductEntry, ...]


class _Schema(TypedDict):
    schema: str


@dataclass(frozen=True)
class Manifest:
    """See docs/packages.md.

    model: what the user called it.
    torch, torchport: versions that made it.
    parameters: names of the positional inputs, so that they can be given by name.
    programs: the first whose inputs a call has is run.
    weights: parameters, buffers and constants, by name.
    weights_file: name of the file beside the package that holds the weights; empty if they are inside.
    devices: what is known of each target that is no CPU.
    """

    schema: str
    model: str
    torch: str
    torchport: str
    targets: tuple[str, ...]
    parameters: tuple[str, ...]
    input_tree: Any
    output_tree: Any
    programs: tuple[ProgramEntry, ...]
    weights: dict[str, Weight]
    weights_file: Annotated[str, re.compile(r"(?:[\w+-][\w.+ -]*)?")]
    kernels: dict[str, KernelEntry]
    devices: dict[str, DeviceEntry]
    parts: Mapping[str, Part]

    def as_json(self) -> dict[str, Any]:
        """The manifest as JSON values."""
        return asdict(self)

    @classmethod
    def parse(cls, text: bytes, where: str) -> Manifest:
        """Read JSON text. Raises ArtifactError for another schema or a damaged manifest."""
        schema = parse_json(text, _Schema, where)["schema"]
        if schema != SCHEMA:
            raise ArtifactError(f"{where} has schema {schema[:40]!r}, not {SCHEMA!r}; package the model again")
        found = parse_json(text, cls, where)
        try:
            found._check()
        except ArtifactError as problem:
            raise ArtifactError(f"{where} is damaged: {problem}") from problem
        return found

    def _check(self) -> None:
        """Raise ArtifactError where two fields do not fit each other."""
        for tree in (self.input_tree, self.output_tree):
            trees.check(tree)
        if self.input_tree[0] != "tuple" or [child[0] for child in self.input_tree[1:]] != ["tuple", "dict"]:
            raise ArtifactError("the inputs are not positional ones and named ones")
        if not self.programs:
            raise ArtifactError("it has no program")
        count = trees.leaves(self.input_tree)
        for program in self.programs:
            if len(program.inputs) != count:
                raise ArtifactError(f"the tree of inputs has {count} values, and a program {len(program.inputs)}")
            program.check()
            if not program.targets or not {*program.targets} <= {*self.targets}:
                raise ArtifactError(
                    f"program {program.file[:40]} is for no target, or for one that the package has not"
                )
            if unknown := {*program.weights.values()} - {*self.weights}:
                raise ArtifactError(f"there is no weight {min(unknown)[:80]!r}")
        for name, kernel in self.kernels.items():
            grid = kernel.grid
            if len(grid.sizes) != len(grid.blocks) or not 1 <= len(grid.sizes) <= 3:
                raise ArtifactError(f"the grid of {name[:80]} has no 1 to 3 axes")
            if max(grid.sizes) >= len(kernel.types) or not kernel.code or not {*kernel.code} <= {*self.targets}:
                raise ArtifactError(f"kernel {name[:80]} has code for other targets, or a grid of other arguments")
        if {*self.devices} != {target for target in self.targets if target.partition(":")[0] != "cpu"}:
            raise ArtifactError("the targets that are no CPU are not those that it describes")
