"""Swaps parts of Hugging Face transformers' models for operators of the library.

Parts are recognized by their structure, and each is computed both ways on random numbers before it is swapped: what
does not agree, or cannot be tried, stays as it is and is reported. Only the model that is given changes, no class and
no module of Python: ``forward`` of its parts becomes an attribute of theirs (``del part.forward`` undoes it).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from torchport.ops.written.cross_entropy import cross_entropy
from torchport.ops.written.gated import geglu, swiglu
from torchport.ops.written.rms_norm import rms_norm
from torchport.ops.written.rope import rope

__all__ = ["Part", "Patch", "patch"]

_ROPE = "apply_rotary_pos_emb"
_Gate = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Part:
    """A part of a model that an operator can compute.

    name: of the module in the model; empty for the model itself.
    kind: the operator.
    reason: why it was left as it is; empty if it was swapped.
    """

    name: str
    kind: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.kind} in {self.name or 'the model'}" + (f": left as it is, {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Patch:
    """What ``patch`` did.

    swapped: parts that operators compute now.
    left: those that were recognized and not swapped.
    """

    swapped: tuple[Part, ...]
    left: tuple[Part, ...]

    def __str__(self) -> str:
        kinds = [part.kind for part in self.swapped]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        return "\n".join((f"swapped: {counts or 'nothing'}", *map(str, self.left)))


def patch(model: nn.Module) -> Patch:
    """Swap RMSNorm, gated MLPs, RoPE and the loss of ``model`` for operators; it computes the same, up to rounding.

    Recognized: modules whose class is called ...RMSNorm; those with gate_proj, up_proj, down_proj and an activation;
    those whose forward calls ``apply_rotary_pos_emb``; transformers' loss of causal language models.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        parts = tuple(part for name, module in model.named_modules() for part in _parts(name, module, model))
    return Patch(tuple(p for p in parts if not p.reason), tuple(p for p in parts if p.reason))


def _parts(name: str, module: nn.Module, model: nn.Module) -> Iterator[Part]:
    if type(module).__name__.endswith("RMSNorm"):
        yield Part(name, "rms_norm", _swap_norm(module))
    if all(isinstance(getattr(module, one, None), nn.Module) for one in ("gate_proj", "up_proj", "down_proj")):
        yield _swap_mlp(name, module)
    forward = inspect.unwrap(type(module).forward)
    if isinstance(forward, FunctionType) and _ROPE in forward.__code__.co_names:
        yield Part(name, "rope", _swap_rope(module, forward, model))
    if (
        hasattr(module, "lm_head")
        and getattr(getattr(module, "loss_function", None), "__name__", "") == "ForCausalLMLoss"
    ):
        yield Part(name, "cross_entropy", _swap_loss(module))


def _agree(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal up to a few roundings of their dtype."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    limit = 8 * torch.finfo(first.dtype).eps * (1 + second.double().abs())
    return bool(((first.double() - second.double()).abs() <= limit).all())


def _memory(module: nn.Module) -> str:
    """Why a module cannot be tried; empty if it can."""
    return "its parameters are on the meta device" if any(one.is_meta for one in module.parameters()) else ""


def _swap_norm(module: nn.Module) -> str:
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(weight, torch.Tensor) or weight.dim() != 1 or not isinstance(eps, float):
        return "it has no weight of one dimension, or no eps"
    if reason := _memory(module):
        return reason
    x = torch.randn(3, weight.shape[0]).to(weight)
    wanted = module(x)
    for offset in (0.0, 1.0):
        if isinstance(wanted, torch.Tensor) and _agree(rms_norm(x, weight, eps, offset), wanted):
            module.forward = MethodType(_norm_forward(eps, offset), module)
            return ""
    return "it computes something else than RMSNorm"


def _norm_forward(eps: float, offset: float) -> Callable[..., torch.Tensor]:
    def forward(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
        return rms_norm(hidden_states, self.weight, eps, offset)

    return forward


def _geglu_tanh(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return geglu(gate, up, True)


def _swap_mlp(name: str, module: nn.Module) -> Part:
    act = next((getattr(module, one) for one in ("act_fn", "act", "activation_fn") if hasattr(module, one)), None)
    gates: tuple[tuple[str, _Gate], ...] = (("swiglu", swiglu), ("geglu", geglu), ("geglu", _geglu_tanh))
    if act is None:
        return Part(name, "gated MLP", "it has no activation")
    if reason := _memory(module):
        return Part(name, "gated MLP", reason)
    weight = next(module.parameters())
    size = getattr(module.gate_proj, "in_features", 0)
    x = torch.randn(3, size).to(weight)
    ones = torch.ones_like(x)
    for kind, gate in gates:
        if not size or not _agree(gate(x, ones), act(x)):
            continue
        forward = _mlp_forward(gate)
        if _agree(forward(module, x), module(x)):
            module.forward = MethodType(forward, module)
            return Part(name, kind)
    return Part(name, "gated MLP", "it computes something else than down_proj(act(gate_proj(x)) * up_proj(x))")


def _mlp_forward(gate: _Gate) -> Callable[..., torch.Tensor]:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.down_proj(gate(self.gate_proj(x), self.up_proj(x)))
        return result

    return forward


def _swap_rope(module: nn.Module, forward: FunctionType, model: nn.Module) -> str:
    function = inspect.unwrap(forward.__globals__[_ROPE])
    names = list(inspect.signature(function).parameters)
    if names != ["q", "k", "cos", "sin", "unsqueeze_dim"] or forward.__closure__:
        return f"{_ROPE} takes {', '.join(names)}, or its caller is a closure"
    if not _halves_are_equal(model):
        return "its angles could not be tried, or their halves differ"
    q, k, angle = torch.randn(2, 3, 5, 16), torch.randn(2, 1, 5, 16), torch.rand(1, 5, 8) * 10
    cos, sin = (torch.cat((one, one), -1) for one in (angle.cos(), angle.sin()))
    if not all(map(_agree, _apply(q, k, cos, sin), function(q, k, cos, sin))):
        return f"{_ROPE} does not turn elements i and i + size / 2"
    scope = {**forward.__globals__, _ROPE: _apply}
    swapped = FunctionType(forward.__code__, scope, forward.__name__, forward.__defaults__)
    swapped.__kwdefaults__ = forward.__kwdefaults__
    module.forward = MethodType(swapped, module)
    return ""


def _halves_are_equal(model: nn.Module) -> bool:
    """Whether every rotary embedding of the model gives each angle twice, the second time half the size behind."""
    found = [module for module in model.modules() if type(module).__name__.endswith("RotaryEmbedding")]
    weight = next(model.parameters())
    if not found or weight.is_meta:
        return False
    for module in found:
        if list(inspect.signature(module.forward).parameters)[:2] != ["x", "position_ids"]:
            return False
        try:
            both = module(weight.new_zeros(1, 4, 1), torch.arange(4, device=weight.device).unsqueeze(0))
        except (TypeError, AttributeError):  # it needs more than these two
            return False
        for one in both:
            first, second = one.chunk(2, -1)
            if one.dim() != 3 or not torch.equal(first, second):
                return False
    return True


def _apply(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' function of this name; ``unsqueeze_dim`` is where the heads are."""
    half = cos.shape[-1] // 2
    angles = cos[..., :half], sin[..., :half]
    if unsqueeze_dim == 1:
        return rope(q, *angles), rope(k, *angles)
    return rope(q.transpose(1, 2), *angles).transpose(1, 2), rope(k.transpose(1, 2), *angles).transpose(1, 2)


def _swap_loss(module: Any) -> str:
    logits, labels = torch.randn(2, 5, 11), torch.randint(0, 11, (2, 5))
    labels[0, 2] = -100
    wanted = module.loss_function(logits, labels, 11)
    if not _agree(_causal_loss(logits, labels, 11), wanted):
        return "it computes something else than cross entropy of the next tokens"
    module.loss_function = _causal_loss
    return ""


def _causal_loss(
    logits: torch.Tensor,
    labels: torch.Tensor | None,
    vocab_size: int,
    num_items_in_batch: Any = None,
    ignore_index: int = -100,
    shift_labels: torch.Tensor | None = None,
    **_: Any,
) -> torch.Tensor:
    """transformers' loss of causal language models; logits of 16 bits are not copied to float32."""
    if shift_labels is None:
        if labels is None:
            raise ValueError("the loss needs labels or shift_labels")
        shift_labels = nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    target = shift_labels.reshape(-1).to(logits.device)
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = cross_entropy(logits.reshape(-1, vocab_size), target, ignore_index, reduction=reduction)
    if num_items_in_batch is None:
        return loss
    count = num_items_in_batch
    return loss / (count.to(loss.device) if isinstance(count, torch.Tensor) else count)
