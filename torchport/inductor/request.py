"""What the user asked for when a graph is compiled, and the settings that follow from it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from torchport import quarantine
from torchport.compat import is_traceable_wrapper_subclass
from torchport.inductor.options import DEFAULTS
from torchport.inductor.precision.plan import Plan
from torchport.inductor.scope import CallWrapper, Settings, source_hash
from torchport.inductor.upstream import corrections
from torchport.plugin import backend_for
from torchport.runtime import sanitizer
from torchport.target import Target

__all__ = ["Request", "shared_memory"]


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    ``target``: what to compile for.
    ``fallback``: as in docs/options.md.
    ``options``: Inductor's, checked already.
    ``describe``, ``arithmetic``, ``call_wrapper``, ``tape``: as in ``torchport.inductor.scope.Settings``.
    ``recording``: a context that is open while graphs are compiled or taken out of a cache.
    ``device``: the type of the tensors' torch device, if it is another one than the driver takes: that of torchport.
    ``inputs``: as in ``torchport.inductor.scope.Settings``.
    ``shared``: which inputs share memory: AOTAutograd compiles for that, and its cache does not ask.
    ``precision``: what is computed in higher precision.
    ``bf16_products``: as in docs/options.md.
    """

    target: Target
    fallback: str
    options: Mapping[str, Any]
    describe: Callable[[Any], dict[str, Any]] | None = None
    arithmetic: str = ""
    call_wrapper: CallWrapper | None = None
    recording: Callable[[], AbstractContextManager[None]] = nullcontext
    device: str | None = None
    tape: str = "off"
    inputs: tuple[str, ...] = ()
    shared: str = ""
    precision: Plan | None = None
    bf16_products: str = "auto"

    def settings(self) -> Settings:
        """The settings of one compilation. Raises TargetError when the target's backend is not usable."""
        backend = backend_for(self.target)
        driver = backend.driver(self.target)
        fingerprint = backend.compiler(self.target).fingerprint()
        device, options = self.device or driver.device, {**backend.options, **self.options}
        versions = f"torchport-{version('torchport')}-{source_hash()}"
        avoided = f" quarantine={found}" if (found := quarantine.digest(self.target)) else ""
        own_memory = self.device is None and getattr(driver, "mirrors", None) is not None
        ours = device == "cpu" and not (own_memory or self.arithmetic or self.call_wrapper)
        tape = self.tape if ours and not sanitizer.active() else "off"
        asked = self._asked()
        described = hashlib.sha256(repr((self.inputs, asked)).encode()).hexdigest()[:16]  # generated code has both
        changed = (
            f"fallback={self.fallback} tape={tape}{avoided}{self._emulation()}{self._wider()}{corrections.tag()} "
            f"{described}{_limits_of_libraries()}{self.shared}"
        )
        return Settings(
            target=str(self.target),
            device=device,
            options=_named(options, self.precision)
            if driver.stock
            else _with_passes({**DEFAULTS, **_stock_rounding(), **options}, device, ours, self.precision),
            cache_tag=f"{versions} {self.target}={fingerprint} {changed}",
            own_memory=own_memory,
            describe=self.describe,
            arithmetic=self.arithmetic,
            call_wrapper=self.call_wrapper,
            stock=driver.stock,
            tape=tape,
            inputs=self.inputs,
            asked=asked,
            strict=self.fallback == "error",
            bf16_products=self.bf16_products,
        )

    def _asked(self) -> dict[str, str]:
        """What the user asked for beyond the target, as text."""
        own = {"fallback": self.fallback, "tape": self.tape, "bf16_products": self.bf16_products}
        plain = bool, int, float, str, type(None)  # the text of others may be another in each process
        given = {name: str(value) for name, value in self.options.items() if isinstance(value, plain)}
        emulated = {} if self.call_wrapper is None else dict(self.call_wrapper.about)
        wider = {} if self.precision is None else {"precision": str(self.precision)}
        return {**own, **dict(sorted(given.items())), **emulated, **wider}

    def _wider(self) -> str:
        return "" if self.precision is None else f" precision={self.precision.digest}"

    def _emulation(self) -> str:
        if self.call_wrapper is None:
            return ""
        return f" arithmetic={hashlib.sha256(repr((self.arithmetic, self.call_wrapper)).encode()).hexdigest()}"


def _limits_of_libraries() -> str:
    """What decides which instructions oneDNN uses, and so which products it gets right."""
    names = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
    return "".join(f" {name}={os.environ[name]}" for name in names if name in os.environ)


def _stock_rounding() -> dict[str, Any]:
    return {} if corrections.applies("eager-rounding") else {"emulate_precision_casts": False}


_PASS = "post_grad_custom_post_pass"


def _named(options: dict[str, Any], precision: Plan | None) -> dict[str, Any]:
    """Have Inductor name a graph's nodes and apply the plan before the user's pass."""
    from torchport.inductor.passes import Named  # here: to check a request takes no Inductor

    return {**options, _PASS: Named(_following(options), precision)}


def _with_passes(options: dict[str, Any], device: str, kernels: bool, precision: Plan | None) -> dict[str, Any]:
    """Put torchport's graph passes before the user's. ``kernels``: the operator library's may stand for aten's."""
    from torchport.inductor.passes import GraphPasses

    return {**options, _PASS: GraphPasses(device, _following(options), kernels, precision)}


def _following(options: Mapping[str, Any]) -> Any:
    """The user's own pass, if there is one."""
    from torchport.inductor.compat import config
    from torchport.inductor.passes import Named

    following = options.get(_PASS, getattr(config, _PASS))
    return following.following if isinstance(following, Named) else following  # a graph is being compiled already


def shared_memory(inputs: Sequence[Any]) -> str:
    """Which of a graph's inputs share memory, as a part of cache keys; empty where none do."""
    places: dict[StorageWeakRef, list[int]] = {}
    for place, one in enumerate(inputs):
        if isinstance(one, torch.Tensor) and one.layout is torch.strided and not is_traceable_wrapper_subclass(one):
            places.setdefault(StorageWeakRef(one.untyped_storage()), []).append(place)
    return "".join(f" shared={group}" for group in places.values() if len(group) > 1)
