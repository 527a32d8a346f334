"""Predicts the bits of a model's results on other chips, and says what they rest on, or why they are not known."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from torchport.arithmetic.profile import Profile
from torchport.compat import reset_dynamo
from torchport.numerics.recording.record import record
from torchport.numerics.runs.reader import Run
from torchport.precision.known_bits import KnownBits, of_kernel, of_operator
from torchport.precision.predict import run_once

__all__ = ["ChipBits", "OutputBits", "predict_bits"]

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_VIEWS = frozenset(
    "view reshape as_strided select slice permute transpose t expand unsqueeze squeeze alias _unsafe_view".split()
)
_Node = dict[str, Any]


@dataclass(frozen=True)
class OutputBits:
    """One output of a model on one chip.

    known: whether these are the bits that the chip gives, if it is as ``assumed``.
    assumed: instructions and order of its dots.
    unknown: why the bits are not known; order unknown, for products of libraries.
    bits: of each element in the order of memory, hexadecimal.
    """

    output: int
    dtype: str
    shape: tuple[int, ...]
    known: bool
    assumed: tuple[str, ...]
    unknown: tuple[str, ...]
    bits: tuple[str, ...]


@dataclass(frozen=True)
class ChipBits:
    """A model on one chip: ``name`` and ``chip`` of the profile, its outputs in order."""

    name: str
    chip: str
    outputs: tuple[OutputBits, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def predict_bits(
    model: Callable[..., Any], inputs: Sequence[Any], chips: Sequence[str], folder: Path | None = None
) -> list[ChipBits]:
    """The outputs of ``model(*inputs)`` (tensors of floats) on each of ``chips``, names of profiles or their files.

    ``folder``: runs are recorded there, in a folder of each profile's name. Raises OptionError for a name that is no
    profile, ValueError for a model that gives no floats, and what the model raises.
    """
    profiles = [Profile.load(chip) for chip in chips]
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) if folder is None else folder
        return [_on(model, inputs, chip, profile, kept) for chip, profile in zip(chips, profiles, strict=True)]


def _on(model: Callable[..., Any], inputs: Sequence[Any], chip: str, profile: Profile, folder: Path) -> ChipBits:
    reset_dynamo()
    compiled = torch.compile(model, backend="torchport", options={"target": "cpu", "emulate": chip})
    with record(folder / profile.name, overhead=float("inf")):
        outputs = run_once(compiled, inputs)
    if not outputs:
        raise ValueError("the model gives no tensors of floats: there are no bits to predict")
    known = _known(Run.load(folder / profile.name), outputs, profile)
    found = (_output(i, *pair) for i, pair in enumerate(zip(outputs, known, strict=True)))
    return ChipBits(profile.name, profile.chip, tuple(found))


def _output(index: int, tensor: torch.Tensor, known: KnownBits) -> OutputBits:
    width = tensor.element_size()
    integers = tensor.contiguous().view(_INTEGERS[width]).flatten().tolist()
    bits = tuple(f"{one % (1 << 8 * width):0{2 * width}x}" for one in integers)
    dtype = str(tensor.dtype).removeprefix("torch.")
    return OutputBits(index, dtype, tuple(tensor.shape), not known.unknown, known.assumed, known.unknown, bits)


def _known(run: Run, outputs: Sequence[torch.Tensor], profile: Profile) -> list[KnownBits]:
    """What is known of each output; of a model in several graphs, what is known of all of it."""
    launches = [launch for launch in run.launches if launch.kind in ("kernel", "extern")]
    own: dict[str, KnownBits] = {}  # by FX node
    everything = KnownBits() if run.graphs else KnownBits((), ("nothing of it ran in a compiled graph",))
    written: dict[str, set[str]] = {}  # by FX node that changes arguments: their buffers
    for launch in launches:
        if launch.kind == "extern":
            found, nodes = of_operator(launch.operation or ""), set(launch.nodes or ())
        else:
            kernel = run.kernels.get(launch.kernel or "", {})
            generated = not any("triton_kernel_wrapper" in one for one in kernel.get("operations", ()))
            name = kernel.get("function", str(launch.kernel))
            warps = kernel.get("options", {}).get("num_warps", 4)
            found = of_kernel(name, kernel.get("ttir"), profile, warps=warps, generated=generated)
            nodes = {*(launch.nodes or ()), *(node["name"] for node in kernel.get("nodes", ()))}
        everything |= found
        changed = {arg.buffer for arg in launch.args if arg.role in ("out", "inout") and arg.buffer}
        for node in nodes:
            own[node] = own.get(node, KnownBits()) | found
            written.setdefault(node, set()).update(changed)
    if len(run.graphs) == 1:
        (graph,) = run.graphs.values()
        followed = _followed(graph, own, written)
        if len(followed) == len(outputs):
            return followed
    return [everything] * len(outputs)


def _followed(graph: dict[str, Any], own: dict[str, KnownBits], written: dict[str, set[str]]) -> list[KnownBits]:
    """What is known of each result of an FX graph that is of floats, followed through its nodes."""
    known: dict[str, KnownBits] = {}
    root: dict[str, str] = {}  # of a view: what it views
    floats = {node["name"] for node in graph["fx"]["nodes"] if "float" in str((node["value"] or {}).get("dtype", ""))}
    for node in graph["fx"]["nodes"]:
        name, operands = node["name"], list(_nodes([node["args"], node["kwargs"]]))
        total = own.get(name, KnownBits())
        for operand in operands:
            total |= known.get(root.get(operand, operand), KnownBits())
        if operands and _target(node) in _VIEWS:
            root[name] = root.get(operands[0], operands[0])
        else:
            known[name] = total
        if node["value"] is None:  # it has no result: it changes arguments
            for buffer in written.get(name, ()):
                changed = graph["buffers"].get(buffer, buffer)
                changed = root.get(changed, changed)
                known[changed] = known.get(changed, KnownBits()) | total
    return [known.get(root.get(one, one), KnownBits()) for one in graph["fx"]["outputs"] if one in floats]


def _target(node: _Node) -> str:
    return str(node["target"]).partition(".")[2].partition(".")[0]


def _nodes(value: Any) -> Iterator[str]:
    """The names of the FX nodes in encoded arguments."""
    if isinstance(value, dict):
        if isinstance(value.get("node"), str):
            yield value["node"]
            return
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str):
        for inner in value:
            yield from _nodes(inner)
