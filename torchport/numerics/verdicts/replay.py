"""Runs a recorded kernel again from its TTIR on the CPU target: unchanged, promoted to f64, or with noise."""

from __future__ import annotations

import functools
import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torchport.errors import SanitizerError, TorchportError
from torchport.numerics.runs.schema import check_view
from torchport.plugin import Launcher, backend_for
from torchport.schema import Mismatch
from torchport.target import Target

__all__ = ["Argument", "NotReplayable", "Replay", "compiled", "view"]

_CPU = Target("cpu")
_KERNEL = re.compile(r"^\s*tt\.func public @", re.MULTILINE)
_FLOATS = re.compile(r"(\*?)(?:fp\d\w*|bf16)$")
_SCALARS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_PROGRAMS = 1 << 16  # however few elements there are; a kernel has no more programs than elements to work on
_NOISE_TYPES = ("i64", "fp64")  # of the seed and the scale, behind the kernel's own arguments


class NotReplayable(TorchportError):
    """A launch that cannot be run again in this arithmetic; the message says why."""


@dataclass(frozen=True)
class Argument:
    """One argument of a recorded launch.

    type: Triton's (``*fp32``, ``i32``), or ``constexpr`` for a value that is compiled in.
    value: of a scalar.
    storage: of a tensor, the number of its storage; arguments may share one.
    dtype, shape, stride, offset: of a tensor, the latter two in elements.
    """

    name: str
    type: str
    value: int | float | None = None
    storage: int | None = None
    dtype: torch.dtype | None = None
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    offset: int = 0


def view(argument: Argument, storage: torch.Tensor) -> torch.Tensor:
    """The tensor of ``argument`` in its storage, which is 1-D, whole and of any dtype. Raises NotReplayable."""
    try:
        check_view(argument.shape, argument.stride, argument.offset, storage.numel())
    except Mismatch as problem:
        raise NotReplayable(f"argument {argument.name} does not fit its storage: {problem}") from problem
    return storage.as_strided(argument.shape, argument.stride, argument.offset)


class Replay:
    """One launch that can be repeated in any arithmetic.

    ttir: the kernel as Triton prints it.
    arguments: all of the launch's, in order.
    grid: program instances in x, y and z.
    trusted: whether the kernel may access any memory; otherwise it is confined to its arguments (docs/security.md).
    """

    def __init__(
        self, ttir: str, arguments: Sequence[Argument], grid: tuple[int, int, int], *, trusted: bool = False
    ) -> None:
        self.ttir = ttir
        self.arguments = tuple(arguments)
        self.grid = grid
        self.trusted = trusted
        self._wide: dict[int, tuple[torch.Tensor, int, torch.Tensor]] = {}

    def run(
        self, storages: Mapping[int, torch.Tensor], arithmetic: Mapping[str, Any] | None = None
    ) -> dict[int, torch.Tensor]:
        """The storages after the launch; those given are not changed. Do not change the results either: a storage that
        the kernel does not write to is the one given.

        ``storages``: by number, 1-D, whole, of their arguments' dtype. ``arithmetic``: as in docs/numerics/rules.md,
        None for the kernel's own. With ``promote``, storages of floats are f64 afterwards, not rounded. One
        compiled kernel serves all seeds and scales of noise. Raises NotReplayable where arguments see one storage as
        several types, where arguments or the grid do not fit their storages, or where a kernel that is not trusted
        leaves them; UnsupportedOperation and CompilationError where the kernel cannot be compiled so,
        KernelAssertionError where an assertion of the kernel fails.
        """
        chosen = dict(arithmetic or {})
        promotes = bool(chosen.get("promote"))
        noise = dict(chosen["noise"]) if chosen.get("noise") is not None else None
        extra: list[Any] = []
        if noise is not None:
            extra = [int(noise.pop("seed", 0)), float(noise.pop("scale", 1.0))]
            chosen["noise"] = noise
        self._check(storages, promotes)
        types = tuple(a.type for a in self.arguments)
        if promotes:
            types = (*(_promoted(type_) for type_ in types), *(_NOISE_TYPES if extra else ()))
        text = json.dumps(chosen, sort_keys=True) if chosen else ""
        launcher, function, written = compiled(self.ttir, text, types, confined=not self.trusted)
        kept = [a for a in self.arguments if a.type != "constexpr"]
        changed = {a.storage for i, a in enumerate(kept) if written is None or i in written}
        after = {n: self._before(n, s, promotes, n in changed) for n, s in storages.items()}
        values = [_scalar(a) if a.storage is None else after[a.storage][a.offset :] for a in self.arguments]
        try:
            launcher.bind(*self.grid, function)(*values, *extra)
        except SanitizerError as error:
            first = error.findings[0]
            raise NotReplayable(
                f"the kernel's {first.access} of {first.argument} {first.problem}: the recording is damaged, or the "
                "kernel is wrong"
            ) from error
        return after

    def _before(self, number: int, storage: torch.Tensor, promotes: bool, copied: bool) -> torch.Tensor:
        """A storage as the kernel gets it. An unchanged storage is widened once."""
        if not promotes or not storage.is_floating_point():
            return storage.clone() if copied else storage
        known, version = self._wide.get(number), 0 if storage.is_inference() else storage._version
        if known is None or known[0] is not storage or known[1] != version:
            known = self._wide[number] = (storage, version, storage.to(torch.float64, copy=True))
        return known[2].clone() if copied else known[2]

    def _check(self, storages: Mapping[int, torch.Tensor], promotes: bool) -> None:
        programs, elements = math.prod(self.grid), sum(storage.numel() for storage in storages.values())
        if min(self.grid) < 0 or max(self.grid) >= 2**31 or programs > _PROGRAMS + 16 * elements:
            grid = " x ".join(map(str, self.grid))
            raise NotReplayable(f"a grid of {grid} programs does not belong to tensors of {elements} elements")
        for a in self.arguments:
            if a.storage is None:
                if a.type.startswith("*") and not self.trusted:
                    raise NotReplayable(f"argument {a.name} is an address, not a tensor")
                numbers = (int, float) if _FLOATS.match(a.type) else int
                if not a.type.startswith("*") and a.type != "constexpr" and not isinstance(a.value, numbers):
                    raise NotReplayable(f"argument {a.name} is {a.value!r}, and {a.type} for the kernel")
                continue
            if a.storage not in storages:
                raise NotReplayable(f"the storage of argument {a.name} was not recorded")
            if not a.type.startswith("*"):
                raise NotReplayable(f"argument {a.name} is a tensor, and {a.type} for the kernel")
            view(a, storages[a.storage])
            dtype = storages[a.storage].dtype
            if a.dtype is not None and a.dtype != dtype:
                raise NotReplayable(f"argument {a.name} sees a storage of {dtype} as {a.dtype}")
            if promotes and dtype.is_complex:
                raise NotReplayable(f"argument {a.name} is complex, and promotion widens real numbers")
            if promotes and dtype.is_floating_point != bool(_FLOATS.match(a.type)):
                raise NotReplayable(f"the kernel sees argument {a.name}, of {dtype}, as {a.type}")


def _promoted(type_: str) -> str:
    return _FLOATS.sub(r"\1fp64", type_)


def _scalar(argument: Argument) -> int | float | None:
    """A scalar's value as the kernel got it: rounded to its type."""
    if argument.type not in _SCALARS or argument.value is None:
        return argument.value
    return float(torch.tensor(float(argument.value), dtype=_SCALARS[argument.type]).item())


@functools.lru_cache(maxsize=4096)
def compiled(
    ttir: str, arithmetic: str, types: tuple[str, ...], *, confined: bool
) -> tuple[Launcher, int, list[int] | None]:
    """The kernel in an arithmetic, linked, and which of its arguments it writes to, or None if that is not known.

    Raises NotReplayable for text that is not TTIR, CompilationError if ``types`` are not the kernel's.
    """
    if len(_KERNEL.findall(ttir)) != 1:
        raise NotReplayable("what was kept as the kernel's TTIR has no kernel, or several")
    backend = backend_for(_CPU)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ttir"
        path.write_text(ttir)
        try:
            binary = backend.compiler(_CPU).compile(str(path), {"arithmetic": arithmetic, "confined": confined})
        except TorchportError:
            raise
        except RuntimeError as error:  # of Triton's parser and passes; they have no other
            raise NotReplayable(f"Triton cannot read the kernel's TTIR: {error}") from error
    return *backend.driver(_CPU).load(binary, types), binary.metadata.get("tp_written")
