"""Which code computes an operator call: found by its arguments, generated where there is none yet, kept on disk."""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torchport.container import CorruptContainer, pack, unpack
from torchport.plugin import backend_for
from torchport.runtime.cache import object_cache
from torchport.torch_device.arguments import Call, Slot, facts_of, family
from torchport.torch_device.storage import extent
from torchport.torch_device.targets import target_of

__all__ = ["MIXED", "Found", "Operation", "Plan", "operation_of"]

MOST = 8192
"""Calls of an operator that are remembered by the sizes of their arguments."""
VARIANTS = 16
"""How many members of a family, by values of numbers or sizes that code depends on, get code of their own."""


@dataclass(frozen=True)
class Plan:
    """How calls of one family are computed.

    run: takes the leaves in a list, and returns the new tensors; None if the host computes them.
    reason: why the host does.
    holds: whether the plan serves these leaves; None if it serves all of the family.
    """

    run: Callable[[list[Any]], Sequence[Any]] | None
    reason: str = ""
    holds: Callable[[Sequence[Any]], bool] | None = None

    def serves(self, leaves: Sequence[Any]) -> bool:
        """Whether it is for these leaves."""
        return self.holds is None or self.holds(leaves)


MIXED = Plan(None, "its tensors are on several devices")


@dataclass(frozen=True)
class Found:
    """The plan of calls with certain sizes, and where their leaves are in memory.

    written: which leaves are written.
    extents: for each leaf that is a tensor, its bytes from the first element to the last, type, sizes and strides; None
        for a number.
    overlaps: whether elements of one that is written share memory, as in an expanded tensor: most operators refuse
        that.
    """

    plan: Plan
    written: tuple[int, ...]
    extents: tuple[tuple[int, Any] | None, ...]
    overlaps: bool

    def shares(self, leaves: Sequence[Any]) -> bool:
        """Whether a leaf shares some memory, but not element by element, with one that is written.

        Programs of a kernel run in any order, so they must not read what others write.
        """
        for place in self.written:
            target, (length, kind) = leaves[place], self.extents[place]  # type: ignore[misc]
            start = target.data_ptr()
            for leaf, known in zip(leaves, self.extents, strict=True):
                if known is None or leaf is target:
                    continue
                other = leaf.data_ptr()
                if other < start + length and start < other + known[0] and (other != start or known[1] != kind):
                    return True
        return False


class Operation:
    """An operator with the plans of its calls.

    operator, facts: what it is.
    """

    def __init__(self, operator: Any) -> None:
        self.operator = operator
        self.facts = facts_of(operator)
        self._exact: dict[Any, Found] = {}
        self._families: dict[Any, list[Plan]] = {}
        self._variants: dict[Any, int] = {}
        self._numbers = True
        """Whether numbers are arguments of its code, which does not depend on their values."""

    def find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Found, list[Any]]:
        """The plan of a call, and the leaves that it takes."""
        call = Call(self.operator, args, kwargs, self._numbers)
        found = self._exact.get(call.key)
        if found is None:
            found = self._find(call)
            if found is None:  # its code depends on the numbers after all
                return self.find(args, kwargs)
        return found, call.leaves

    def _find(self, call: Call) -> Found | None:
        kin = family(call.key)
        plan = next((p for p in self._families.get(kin, ()) if p.serves(call.leaves)), None)
        if plan is None:
            plan = self._make(call, kin)  # two threads may do so at once, to the same result
            if plan is None:
                return None
            with _lock:
                self._families.setdefault(kin, []).append(plan)
        written = call.written(self.facts)
        extents = [_extent(leaf) if isinstance(leaf, torch.Tensor) else None for leaf in call.leaves]
        overlaps = any(map(_overlaps_itself, (call.leaves[place] for place in written)))
        found = Found(plan, written, tuple(extents), overlaps)
        with _lock:
            if len(self._exact) >= MOST:
                self._exact.clear()
            self._exact[call.key] = found
        return found

    def _make(self, call: Call, kin: Any) -> Plan | None:
        """A new plan; None if the numbers among the leaves must be part of the key."""
        if not call.tensors:
            return Plan(None, "it has no tensor that names the device")
        device = call.tensors[0].device
        if any(tensor.device != device for tensor in call.tensors):
            return MIXED
        if not all(map(_is_plain, call.tensors)):
            return Plan(None, "its tensors are not plain")
        for number in range(VARIANTS):
            key = _cache_key(call, kin, device, number)
            try:
                code, _, guards = unpack(object_cache().get(key) or b"")[1].decode().rpartition("\0")
            except CorruptContainer:
                return self._new(call, kin, device, key)
            plan = _load(code, guards)
            if plan.serves(call.leaves):
                return plan
        return Plan(None, f"{VARIANTS} kinds of such arguments have code already")

    def _new(self, call: Call, kin: Any, device: torch.device, key: str) -> Plan | None:
        """A plan from code that is generated now, and kept under ``key``."""
        with _lock:
            alike = _without_numbers(kin)
            self._variants[alike] = self._variants.get(alike, 0) + 1
            if self._variants[alike] > VARIANTS:
                return Plan(None, f"its code depends on numbers, and {VARIANTS} of them have code already")
        made = _apart(lambda: _generate(call, device))
        if isinstance(made, str):
            if call.has_numbers:
                self._numbers = False
                return None
            return Plan(None, made)
        code, guards = made
        plan = _load(code, guards)
        if not plan.serves(call.leaves):
            return Plan(None, "the code that was generated for it does not serve it")
        object_cache().put(key, pack({"operator": str(self.operator)}, f"{code}\0{guards}".encode()))
        return plan


@functools.cache
def operation_of(operator: Any) -> Operation:
    """The Operation of an operator."""
    return Operation(operator)


_lock = threading.Lock()


def _extent(tensor: torch.Tensor) -> tuple[int, Any]:
    nbytes = extent(tensor.shape, tensor.stride()) * tensor.itemsize
    return nbytes, (tensor.dtype, tensor.shape, tensor.stride())


def _overlaps_itself(tensor: torch.Tensor) -> bool:
    return any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_conj() and not tensor.is_neg()


def _without_numbers(kin: Any) -> Any:
    if not isinstance(kin, tuple):
        return kin
    if len(kin) == 2 and kin[0] in (int, float):
        return kin[0]
    return tuple(_without_numbers(part) for part in kin)


def _cache_key(call: Call, kin: Any, device: torch.device, number: int) -> str:
    from torchport.inductor.scope import source_hash

    target = target_of(device.index)
    compiler = backend_for(target).compiler(target)
    versions = (torch.__version__, source_hash(), _own_hash(), compiler.fingerprint())
    parts = (*versions, str(target), str(call.operator), repr(kin), str(number))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@functools.cache
def _own_hash() -> str:
    """Hash of this package's sources, which decide about the code."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _apart(function: Callable[[], Any]) -> Any:
    """Call ``function`` in a new thread, which the caller's dispatch keys, modes and autograd do not reach.

    One at a time, and not while another thread compiles: torch notes in a global variable that something is traced. The
    caller holds Dynamo's lock, which it may have already.
    """
    if threading.current_thread().name == _THREAD:
        return function()
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001  the caller gets it as it is
            outcome.set_exception(error)

    from torchport.compat import compile_lock  # here: it imports Dynamo

    _quiet()
    with compile_lock:
        threading.Thread(target=run, name=_THREAD, daemon=True).start()
        return outcome.result()


_THREAD = "torchport-trace"


@functools.cache
def _quiet() -> None:
    """Keep torch from printing why an operator cannot be traced: the fallback's reason says it."""
    warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex")
    for name in ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes"):
        logging.getLogger(name).addFilter(lambda record: record.threadName != _THREAD)


def _generate(call: Call, device: torch.device) -> tuple[str, str] | str:
    """Code and guards; or the reason why there is none."""
    from torchport.torch_device import trace
    from torchport.torch_device.definitions import definition_of
    from torchport.torch_device.request import request_for

    args, kwargs = call.template()
    returned = facts_of(call.operator).returned
    function = definition_of(call.operator)

    def bind(values: Sequence[Any]) -> list[Any]:
        def filled(value: Any) -> Any:
            if isinstance(value, Slot):
                return values[value.place]
            return [filled(item) for item in value] if isinstance(value, list) else value

        results = function(*map(filled, args), **{name: filled(value) for name, value in kwargs.items()})
        results = list(results) if isinstance(results, (list, tuple)) else [results]
        if len(returned) != len(results):  # one result, which is a list
            return results
        return [result for result, place in zip(results, returned, strict=True) if place is None]

    try:
        made = trace.generate(call.operator, bind, call.leaves, request_for(device.index))
    except trace.NotGenerated as error:
        return str(error)
    return made.code, made.guards


def _load(code: str, guards: str) -> Plan:
    from torchport.triton.compat import PyCodeCache

    return Plan(PyCodeCache.load(code).call, holds=_checker(guards) if guards else None)


def _checker(guards: str) -> Callable[[Sequence[Any]], bool]:
    """A function that says whether leaves satisfy an expression over the sizes of the tensors among them."""
    from torchport.inductor.compat import SYMPY_INTERP

    code, names = compile(guards, "<guards>", "eval"), dict(SYMPY_INTERP)

    def check(leaves: Sequence[Any]) -> bool:
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        return bool(eval(code, names, {"L": {f"t{place}": tensor for place, tensor in enumerate(tensors)}}))

    return check
