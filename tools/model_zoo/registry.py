"""The registry: what an entry states about a model, and how a model is built from it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

Size = Literal["small", "bench"]
SIZES: tuple[Size, ...] = ("small", "bench")
Inputs = dict[str, torch.Tensor]
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Entry:
    """One model of the zoo.

    `make(size)` returns a float32 module and its keyword inputs; it may draw from torch's global generator, which
    `build` has seeded with `seed`. `outputs` names the tensors to compare (keys of the result).
    `labels(inputs, module)` returns the extra inputs that make the module return `loss`; without it the loss of a
    training step is the sum of the outputs' mean squares. `sequence_inputs` names the inputs whose dimension 1 may
    vary, where every input has the batch first. `reference(module)` prepares the module for float64 where its default
    implementation lacks it.
    """

    name: str
    make: Callable[[Size], tuple[nn.Module, Inputs]]
    outputs: tuple[str, ...]
    labels: Callable[[Inputs, nn.Module], Inputs] | None = None
    trains: bool = True
    dtypes: tuple[torch.dtype, ...] = FLOATS
    reference: Callable[[nn.Module], None] | None = None
    seed: int = 0
    sequence_inputs: tuple[str, ...] = ()


@dataclass
class Built:
    """A module, its keyword inputs, and the names of the outputs to compare."""

    entry: Entry
    module: nn.Module
    inputs: Inputs
    output_names: tuple[str, ...] = field(default=())

    def outputs(self, result: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The tensors to compare, by name, out of what the module returned."""
        return {name: result[name] for name in self.output_names}

    def step(self, model: Callable[..., Any], train: bool) -> None:
        """One call of `model`, the module or what it was compiled to; with `train` a backward pass from the sum of the
        outputs' mean squares, else without gradients."""
        with torch.set_grad_enabled(train):
            outputs = self.outputs(model(**self.inputs))
            if train:
                self.module.zero_grad()
                torch.stack([one.float().square().mean() for one in outputs.values()]).sum().backward()

    def to(self, dtype: torch.dtype) -> Built:
        """A deep copy with floating-point parameters, buffers and inputs converted to `dtype`."""
        module = copy.deepcopy(self.module).to(dtype)
        if dtype == torch.float64 and self.entry.reference is not None:
            self.entry.reference(module)
        inputs = {k: v.detach().to(dtype) if v.is_floating_point() else v.clone() for k, v in self.inputs.items()}
        return Built(self.entry, module, inputs, self.output_names)

    def resized(self, batch: int, sequence: int) -> Inputs:
        """Inputs of the same kind with another batch size and sequence length (dimensions 0 and 1).

        Raises ValueError where the model has no sequence dimension to vary.
        """
        if not self.entry.sequence_inputs:
            raise ValueError(f"model {self.entry.name!r} has no sequence dimension: choose one of the token models")
        resized = {}
        for name, value in self.inputs.items():
            index = torch.arange(batch) % value.shape[0]
            value = value[index]
            if name in self.entry.sequence_inputs:
                value = value[:, torch.arange(sequence) % value.shape[1]]
            resized[name] = value.contiguous()
        return resized


_ENTRIES: dict[str, Entry] = {}


def register(entry: Entry) -> None:
    """Add a model; a second model of one name is a ValueError."""
    if entry.name in _ENTRIES:
        raise ValueError(f"model {entry.name!r} is registered twice: give one of the two another name")
    _ENTRIES[entry.name] = entry


def entries() -> dict[str, Entry]:
    """Every model by name, in the order of registration."""
    from model_zoo import language, own, vision  # noqa: F401  (each registers its models when imported)

    return dict(_ENTRIES)


def names() -> list[str]:
    """Names of every model."""
    return list(entries())


def build(name: str, size: Size = "small", dtype: torch.dtype = torch.float32, *, train: bool = False) -> Built:
    """Build a model with seeded random weights and inputs; torch's global generator is left as it was.

    `train` adds labels and asks for the loss. Raises ValueError for an unknown name.
    """
    known = entries()
    if name not in known:
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(known)}")
    entry = known[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(entry.seed)
        module, inputs = entry.make(size)
        randomise(module)
        output_names = entry.outputs
        if train and entry.labels is not None:
            inputs = inputs | entry.labels(inputs, module)
            output_names = ("loss", *output_names)
    module.train(train)
    return Built(entry, module, inputs, output_names).to(dtype)


def randomise(module: nn.Module) -> None:
    """Move every vector parameter and batch-norm statistic off its initial value.

    Norm weights start at exactly 1 and biases at exactly 0, which would hide a kernel that drops them.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim <= 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
                layer.running_mean.normal_(0.0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
