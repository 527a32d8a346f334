"""Builds models by name."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from torchport.evaluation.models.entry import Entry, Inputs, Size, registered

__all__ = ["TRANSFORMERS", "Built", "build", "entries", "left_out", "names", "randomise"]

TRANSFORMERS = (
    "bert", "gpt2", "llama", "qwen3", "qwen3_moe", "gemma2", "mamba", "t5", "whisper", "vit", "swin", "convnext",
    "resnet", "clip", "mistral", "phi", "modernbert", "sentence", "wav2vec2",
)  # fmt: skip
"""Models whose code is that of `transformers`."""


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
                torch.stack([output.float().square().mean() for output in outputs.values()]).sum().backward()

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


def entries() -> dict[str, Entry]:
    """Every model by name; those of `transformers` first, if it is installed."""
    if _has_transformers():
        from torchport.evaluation.models import hubs, language, vision  # noqa: F401  (each registers its models)
    from torchport.evaluation.models import graphs, images, own, recurrences  # noqa: F401

    return registered()


def left_out() -> tuple[str, ...]:
    """The models that are missing because `transformers` is."""
    return () if _has_transformers() else TRANSFORMERS


def _has_transformers() -> bool:
    return importlib.util.find_spec("transformers") is not None


def names() -> list[str]:
    """Names of every model."""
    return list(entries())


def build(
    name: str, size: Size = "small", dtype: torch.dtype = torch.float32, *, train: bool = False, seed: int = 0
) -> Built:
    """Build a model with seeded random weights and inputs; torch's global generator is left as it was.

    `train` adds labels and asks for the loss. `seed` is added to the model's own. Raises ValueError for an unknown
    name.
    """
    known = entries()
    if name not in known:
        absent = "; it needs transformers, which is not installed" if name in left_out() else ""
        raise ValueError(f"unknown model {name!r}{absent}: choose one of {', '.join(known)}")
    entry = known[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(entry.seed + seed)
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
