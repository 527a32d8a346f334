"""What models run on a torch device: the zoo's and transformers' small ones, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import model_zoo
import torch

from operator_census import architectures
from operator_census.calls import moved

__all__ = ["Program", "inferences", "training_steps"]

Program = Callable[[torch.device], Any]

_GENERATE = ("gpt2", "llama", "qwen3", "gemma2", "mistral", "phi3", "opt", "bloom", "falcon", "t5", "bart")
"""Architectures that generate text, with the usual caches among them."""


def training_steps(dtype: torch.dtype = torch.float32) -> dict[str, Program]:
    """A forward and a backward pass of each model, two examples."""
    every: dict[str, Program] = {name: functools.partial(_zoo_step, name, dtype) for name in model_zoo.names()}
    return every | {f"hf:{name}": functools.partial(_step, name, dtype) for name in architectures.ARCHITECTURES}


def inferences(dtype: torch.dtype = torch.float32) -> dict[str, Program]:
    """A forward pass of each model, one example; and a few tokens that language models generate."""
    every: dict[str, Program] = {name: functools.partial(_zoo_inference, name, dtype) for name in model_zoo.names()}
    every |= {f"hf:{name}": functools.partial(_inference, name, dtype) for name in architectures.ARCHITECTURES}
    return every | {f"generate:{name}": functools.partial(_generate, name, dtype) for name in _GENERATE}


def _zoo_step(name: str, dtype: torch.dtype, device: torch.device) -> None:
    built = model_zoo.build(name, dtype=dtype, train=True)
    built.module.to(device)
    built.inputs = moved(built.inputs, device)
    built.step(built.module, train=True)


def _zoo_inference(name: str, dtype: torch.dtype, device: torch.device) -> None:
    built = model_zoo.build(name, dtype=dtype)
    built.module.to(device)
    built.inputs = moved(_first(built.inputs), device)
    built.step(built.module, train=False)


def _step(name: str, dtype: torch.dtype, device: torch.device) -> None:
    module, inputs = _built(name, dtype)
    module.to(device)(**moved(inputs, device)).loss.backward()


def _inference(name: str, dtype: torch.dtype, device: torch.device) -> None:
    module, inputs = _built(name, dtype)
    with torch.no_grad():
        module.eval().to(device)(**moved(_first(inputs), device))


def _generate(name: str, dtype: torch.dtype, device: torch.device) -> None:
    module, inputs = _built(name, dtype)
    module.config.use_cache = True
    given = {key: value for key, value in _first(inputs).items() if key != "labels"}
    module.eval().to(device).generate(**moved(given, device), max_new_tokens=3, do_sample=False)


def _built(name: str, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    module, inputs = architectures.build(name)
    floats = {
        key: value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for key, value in inputs.items()
    }
    return module.to(dtype), floats


def _first(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """One example: every input has the batch first."""
    return {key: value[:1] if isinstance(value, torch.Tensor) else value for key, value in inputs.items()}
