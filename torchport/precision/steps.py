"""What is run of a user's model: one inference, or some steps of training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from torchport.errors import OptionError

__all__ = ["INFERENCE", "Steps", "loss_of"]


def loss_of(result: Any) -> torch.Tensor:
    """A model's result if that is one number, else the sum of its floating-point tensors' mean squares.

    Raises OptionError if it depends on nothing that has a gradient.
    """
    tensors = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor) and one.is_floating_point()]
    single = len(tensors) == 1 and tensors[0].numel() == 1
    loss = tensors[0].sum() if single else torch.stack([one.float().square().mean() for one in tensors]).sum()
    if not loss.requires_grad:
        raise OptionError("the model cannot be trained: no input or parameter of it needs a gradient")
    return loss


@dataclass(frozen=True)
class Steps:
    """How often and how a model is run.

    count: steps of training; 0: one inference.
    rate: the learning rate of plain gradient descent, so that a step depends on nothing but the gradients.
    """

    count: int = 0
    rate: float = 0.01

    def copied(self, model: Any) -> Any:
        """The model that may be run: training changes weights, so a copy of it."""
        return copy.deepcopy(model) if self.count and isinstance(model, torch.nn.Module) else model

    def run(self, model: Any, called: Callable[..., Any], inputs: Sequence[Any]) -> Any:
        """Run ``called``, the model or what it was compiled to, on copies of the tensors.

        Of an inference, what the model returns. Of training, ``losses``, one for each step before its update, float64,
        and ``gradients`` by name: of the last step, of parameters and inputs.
        """
        given = tree_map_only(torch.Tensor, _copy, tuple(inputs))
        if not self.count:
            with torch.no_grad():
                return called(*given)
        named = dict(model.named_parameters()) if isinstance(model, torch.nn.Module) else {}
        parameters = [one for one in named.values() if one.requires_grad]
        inner = {f"input {place}": one for place, one in enumerate(tree_leaves(given)) if _is_trained(one)}
        losses = []
        for step in range(self.count):
            for one in (*parameters, *inner.values()):
                one.grad = None
            with torch.enable_grad():
                loss = loss_of(called(*given))
                loss.backward()
            losses.append(float(loss.detach()))
            if step + 1 < self.count:
                with torch.no_grad():
                    for one in parameters:
                        if one.grad is not None:
                            one.sub_(one.grad, alpha=self.rate)
        found = {name: one.grad.clone() for name, one in {**named, **inner}.items() if one.grad is not None}
        return {"losses": torch.tensor(losses, dtype=torch.float64), "gradients": found}


INFERENCE = Steps()


def _is_trained(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def _copy(value: torch.Tensor) -> torch.Tensor:
    return value.detach().clone().requires_grad_(value.requires_grad)
