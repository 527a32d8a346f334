"""Random numbers on the device: Philox in the kernels, the same on every target, with seeds drawn on the host."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch

from torchport.runtime.devices.memory import DEVICE_TYPE
from torchport.torch_device import current

__all__ = [
    "DEFINITIONS",
    "draw",
    "drawing_from",
    "generator",
    "integers_",
    "of_device",
    "of_host",
    "permutation",
    "source",
]

_aten = torch.ops.aten

generator = torch.Generator()
"""What ``torch.manual_seed`` seeds: each call of a random operator draws one number of 64 bits from it."""


_thread = threading.local()


def of_device(given: Any) -> bool:
    """Whether this is a generator of our device's: ``torch.Generator(device="torchport")``."""
    return isinstance(given, torch.Generator) and given.device.type == DEVICE_TYPE


def of_host(given: torch.Generator) -> torch.Generator:
    """The generator of the CPU's that a generator of our device's has its numbers from."""
    made: torch.Generator = current.keeper.cpu_generator(given)
    return made


def source() -> torch.Generator:
    """What this thread's random operators draw their seeds from if they are given no generator."""
    found: torch.Generator = getattr(_thread, "source", generator)
    return found


@contextmanager
def drawing_from(given: torch.Generator) -> Iterator[None]:
    """Let this thread's random operators draw their seeds from a generator of our device's."""
    before, _thread.source = source(), of_host(given)
    try:
        yield
    finally:
        _thread.source = before


def draw(low: int, high: int, size: Sequence[int], *, out: torch.Tensor) -> torch.Tensor:
    """``aten.randint.low_out``, by which generated code draws its seeds."""
    made = torch.randint(low, high, size, dtype=out.dtype, generator=source())
    return out.resize_(made.shape).copy_(made)


def integers_(self: torch.Tensor, *limits: int, generator: Any = None) -> torch.Tensor:
    """``random_`` in its three forms. Integers are drawn on the host, so that their limits need no kernel each."""
    return self.copy_(torch.empty(self.shape, dtype=self.dtype).random_(*limits, generator=_own(generator)))


def permutation(n: int, *, generator: Any = None, out: torch.Tensor) -> torch.Tensor:
    """``aten.randperm.generator_out``, drawn on the host."""
    made = torch.randperm(n, dtype=out.dtype, generator=_own(generator))
    return out.resize_(made.shape).copy_(made)


def _own(given: torch.Generator | None) -> torch.Generator:
    if given is None:
        return source()
    return of_host(given) if of_device(given) else given


def _random(like: torch.Tensor) -> torch.Tensor:
    """Numbers from [0, 1) in float32, or float64 for float64."""
    wide = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.rand(like.shape, dtype=wide, device=like.device)


def _normal_numbers(like: torch.Tensor) -> torch.Tensor:
    wide = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.randn(like.shape, dtype=wide, device=like.device)


def _uniform_(self: torch.Tensor, low: float = 0.0, high: float = 1.0, generator: Any = None) -> torch.Tensor:
    made = (_random(self) * (high - low) + low).to(self.dtype)
    return self.copy_(torch.where(made >= high, low, made))  # rounding may reach the end, which is left out


def _normal_(self: torch.Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> torch.Tensor:
    return self.copy_(_normal_numbers(self) * std + mean)


def _bernoulli_(self: torch.Tensor, p: Any = 0.5, generator: Any = None) -> torch.Tensor:
    return self.copy_(torch.rand(self.shape, device=self.device) < p)


def _bernoulli(self: torch.Tensor, generator: Any = None) -> torch.Tensor:
    return (torch.rand(self.shape, device=self.device) < self).to(self.dtype)


def _exponential_(self: torch.Tensor, lambd: float = 1.0, generator: Any = None) -> torch.Tensor:
    return self.copy_(-torch.log1p(-_random(self)) / lambd)


def _geometric_(self: torch.Tensor, p: float, generator: Any = None) -> torch.Tensor:
    return self.copy_(torch.ceil(torch.log1p(-_random(self)) / math.log1p(-p)).clamp(min=1))


def _log_normal_(self: torch.Tensor, mean: float = 1.0, std: float = 2.0, generator: Any = None) -> torch.Tensor:
    return self.copy_(torch.exp(_normal_numbers(self) * std + mean))


def _cauchy_(self: torch.Tensor, median: float = 0.0, sigma: float = 1.0, generator: Any = None) -> torch.Tensor:
    return self.copy_(median + sigma * torch.tan(math.pi * (_random(self) - 0.5)))


def _dropout(self: torch.Tensor, p: float, train: bool | None) -> tuple[torch.Tensor, torch.Tensor]:
    if train is False:
        return self.clone(), torch.ones(self.shape, dtype=torch.bool, device=self.device)
    kept = torch.rand(self.shape, device=self.device) >= p
    scale = 0.0 if p == 1.0 else 1.0 / (1.0 - p)
    return torch.where(kept, self * scale, torch.zeros_like(self)), kept


DEFINITIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        _aten.uniform_.default: _uniform_, _aten.normal_.default: _normal_, _aten.bernoulli_.float: _bernoulli_,
        _aten.bernoulli_.Tensor: _bernoulli_, _aten.bernoulli.default: _bernoulli,
        _aten.exponential_.default: _exponential_, _aten.geometric_.default: _geometric_,
        _aten.log_normal_.default: _log_normal_, _aten.cauchy_.default: _cauchy_,
        _aten.native_dropout.default: _dropout,
    }
)  # fmt: skip
"""Random operators, by uniform and normal numbers."""
