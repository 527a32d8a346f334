"""The graph of what a model ran eagerly: operators in the order they ran, as a dump of an FX graph."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torchport.numerics.graphs.dump import FORMAT, Dump, encode, target_text
from torchport.numerics.recording.caller import source_line
from torchport.numerics.recording.memory import dtype_name, storage_key
from torchport.runtime.operators import is_plain

__all__ = ["EagerGraph", "key_of"]

_Key = tuple[int, int, tuple[int, ...], tuple[int, ...], torch.dtype, bool, bool]


class EagerGraph:
    """Nodes for operators and for the tensors that they read.

    direction: ``inference``, ``forward`` or ``backward``
    names: of inputs, tensors that no operator of the graph made, that are parameters or buffers of the model: what they
        are and their names, by node
    outputs: names of nodes
    """

    def __init__(self, direction: str, names: Mapping[Any, str], model: torch.nn.Module) -> None:
        """``names``: what parameters and buffers of ``model`` are and their names, by ``key_of``."""
        self.direction = direction
        self.names: dict[str, str] = {}
        self.outputs: list[str | None] = []
        self._names, self._model = names, model
        self._placeholders: list[dict[str, Any]] = []
        self._nodes: list[dict[str, Any]] = []
        self._holds: dict[_Key, str] = {}
        self._whole: dict[int, tuple[str, torch.Tensor]] = {}  # by memory, a node of all of it, in order
        self._used: set[str] = set()
        self._alive: list[torch.UntypedStorage] = []  # memory that is used again would be taken for another tensor

    def node_of(self, tensor: torch.Tensor) -> str | None:
        """The node that stands for a tensor; None if there is none yet."""
        return self._holds.get(key_of(tensor))

    def read(self, tensor: torch.Tensor) -> tuple[str, bool]:
        """The node that stands for a tensor that is read, and whether it is a new input of the graph."""
        known = self.node_of(tensor)
        if known is not None:
            return known, False
        whole = self._whole.get(storage_key(tensor))
        if whole is not None and whole[1].dtype == tensor.dtype:
            args = [{"node": whole[0]}, list(tensor.shape), list(tensor.stride()), tensor.storage_offset()]
            return self._add("as_strided", "aten.as_strided.default", args, tensor), False
        known = self._names.get(key_of(tensor))
        target = known.partition(" ")[2] if known else "saved" if self.direction == "backward" else "input"
        name = self._name(target)
        if known:
            self.names[name] = known
        self._placeholders.append(_described(name, "placeholder", target, [], {}, _value(tensor), None, None))
        self._hold(tensor, name)
        return name, True

    def encoded(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call whose tensors were all read, as a dump has them."""
        return [self._encoded(value) for value in args], {key: self._encoded(value) for key, value in kwargs.items()}

    def call(
        self, func: Any, given: tuple[list[Any], dict[str, Any]], result: Any, module: dict[str, str] | None
    ) -> str:
        """Add a call of an operator and what it returned. ``given``: from ``encoded``. Returns the node's name."""
        name = self._name(str(func._schema.name).rpartition("::")[2].rpartition(".")[2])
        source = source_line(sys._getframe(1), self._model)
        several = isinstance(result, (list, tuple))
        value = [_value(one) for one in result] if several else _value(result)
        self._nodes.append(_described(name, "call_function", target_text(func), *given, value, source, module))
        if is_plain(result):
            self._hold(result, name)
        for index, one in enumerate(result if several else ()):
            if is_plain(one):
                element = self._name("getitem")
                args_ = [{"node": name}, index]
                self._nodes.append(
                    _described(element, "call_function", "operator.getitem", args_, {}, _value(one), source, module)
                )
                self._hold(one, element)
        return name

    def overwritten(self, tensor: torch.Tensor) -> None:
        """A tensor was written: no node stands for what its memory holds, but the one that was added for it."""
        memory, written = storage_key(tensor), self.node_of(tensor)
        self._holds = {key: name for key, name in self._holds.items() if key[0] != memory}
        whole = self._whole.pop(memory, None)
        if written is None:
            return
        self._hold(tensor, written)
        if whole is not None and memory not in self._whole and whole[1].dtype == tensor.dtype:
            place = [list(tensor.shape), list(tensor.stride()), tensor.storage_offset()]
            args = [{"node": whole[0]}, {"node": written}, *place]
            self._add("as_strided_scatter", "aten.as_strided_scatter.default", args, whole[1])

    def dump(self) -> Dump:
        """The graph, as in ``torchport.numerics.graphs.dump``."""
        return {
            "format": FORMAT, "nodes": [*self._placeholders, *self._nodes], "outputs": self.outputs, "constants": {},
        }  # fmt: skip

    def _add(self, name: str, target: str, args: list[Any], tensor: torch.Tensor) -> str:
        """A node that no operator of the model's is: ``tensor``, from what else is known of its memory."""
        name = self._name(name)
        self._nodes.append(_described(name, "call_function", target, args, {}, _value(tensor), None, None))
        self._hold(tensor, name)
        return name

    def _hold(self, tensor: torch.Tensor, name: str) -> None:
        self._holds[key_of(tensor)] = name
        self._alive.append(tensor.untyped_storage())
        plain = tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg())
        if plain and tensor.numel() * tensor.itemsize == tensor.untyped_storage().nbytes() > 0:
            self._whole[storage_key(tensor)] = name, tensor

    def _name(self, text: str) -> str:
        plain = "".join(char if char.isalnum() else "_" for char in text).strip("_") or "value"
        name, number = plain, 0
        while name in self._used:
            number += 1
            name = f"{plain}_{number}"
        self._used.add(name)
        return name

    def _encoded(self, value: Any) -> Any:
        if is_plain(value):
            return {"node": self.read(value)[0]}
        if isinstance(value, tuple):
            return {"tuple": [self._encoded(one) for one in value]}
        if isinstance(value, list):
            return [self._encoded(one) for one in value]
        return encode(value)


def key_of(tensor: torch.Tensor) -> _Key:
    """The same for tensors that are the same elements of the same memory."""
    place = storage_key(tensor), int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride())
    return (*place, tensor.dtype, tensor.is_conj(), tensor.is_neg())


def _described(
    name: str, op: str, target: str, args: list[Any], kwargs: Mapping[str, Any], value: Any, source: Any, module: Any
) -> dict[str, Any]:
    return {
        "name": name, "op": op, "target": target, "args": args, "kwargs": dict(kwargs), "value": value,
        "source": source, "module": module, "original": None,
    }  # fmt: skip


def _value(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        strided = value.layout == torch.strided
        return {
            "dtype": dtype_name(value.dtype),
            "shape": list(value.shape),
            "stride": list(value.stride()) if strided else None,
            "device": value.device.type,
        }
    return value if isinstance(value, (bool, int)) else None
