"""Calls of operators that a model makes on a torch device, each kind of call once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from torchport.runtime.operators import HIDDEN_VIEWS, UNINITIALIZED
from torchport.torch_device.host import on_host

__all__ = ["Kind", "moved", "record"]

_NOT_COMPUTED = {
    *HIDDEN_VIEWS,
    *UNINITIALIZED,
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.detach.default,
}
_OWN_FORM = {torch.ops.aten._embedding_bag.default, torch.ops.aten._ctc_loss.Tensor}
"""Operators whose gradients are given what each device has in a form of its own."""


@dataclass
class Kind:
    """Calls of one operator with arguments of the same types.

    args, kwargs: those of the first such call, tensors on the host.
    models: which models make such calls.
    """

    operator: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    models: set[str] = field(default_factory=set)


class _Recorder(TorchDispatchMode):
    """Notes calls, and has the host compute what the device would need code for: the models need no compiler."""

    def __init__(self, device: torch.device, model: str, kinds: dict[Any, Kind], alike: Callable[..., Any]) -> None:
        super().__init__()
        self.device = device
        self.model = model
        self.kinds = kinds
        self.alike = alike

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._is_ours(operator, args, kwargs):
            return operator(*args, **kwargs)
        key = self.alike(operator, args, kwargs)
        if key not in self.kinds:
            host_args, host_kwargs = moved((args, kwargs), torch.device("cpu"))
            self.kinds[key] = Kind(operator, host_args, host_kwargs)
        self.kinds[key].models.add(self.model)
        if operator in _OWN_FORM:
            return operator(*args, **kwargs)
        try:
            return on_host(operator, args, kwargs)
        except NotImplementedError:  # the CPU's operator lacks a type that devices have
            return operator(*args, **kwargs)

    def _is_ours(self, operator: Any, args: Any, kwargs: Any) -> bool:
        """Whether a call computes on the device: no view, no allocation, no copy from or to the host."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if operator.is_view or operator in _NOT_COMPUTED:
            return False
        places = {tensor.device.type for tensor in tensors if tensor.dim() or tensor.device.type != "cpu"}
        if (named := kwargs.get("device")) is not None:
            places.add(torch.device(named).type)
        return places == {self.device.type}


def _moved(value: Any, device: torch.device) -> Any:
    """A copy, with the same strides, on another device."""
    if isinstance(value, torch.Tensor):
        return value.detach().to(device, copy=True)
    return device if isinstance(value, torch.device) else value


def _types(operator: Any, args: Any, kwargs: Any) -> Any:
    def kind(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.dtype, value.dim() > 0
        return value if isinstance(value, (bool, torch.dtype, str)) else type(value)

    return operator, *map(kind, tree_leaves((args, kwargs)))


def record(
    model: str,
    run: Callable[[torch.device], Any],
    device: torch.device,
    kinds: dict[Any, Kind],
    alike: Callable[[Any, Any, Any], Any] = _types,
) -> None:
    """Add to ``kinds`` the calls that ``run`` makes, which moves a model to the device, and calls it there.

    alike: what calls of one kind have in common, from an operator and its arguments; by default their types.
    """
    with _Recorder(device, model, kinds, alike):
        run(device)


def moved(values: Any, device: torch.device) -> Any:
    """The same arguments with copies of their tensors on ``device``."""
    return tree_map(lambda value: _moved(value, device), values)
