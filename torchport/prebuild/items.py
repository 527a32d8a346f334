"""What there is to build: operators of the library by dtype, and calls of torch's that models make."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torchport.errors import OptionError, TargetError
from torchport.ops.registry import FLOATS, operators
from torchport.plugin import backend_for
from torchport.prebuild.recorded import recorded
from torchport.runtime.devices.device import DeviceDriver
from torchport.target import Target

__all__ = ["DTYPES", "Item", "chosen", "has_torch_device"]

DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in FLOATS}
"""Types that models compute in, by name."""


@dataclass(frozen=True)
class Item:
    """One thing to build.

    name: the operator's: ``rms_norm`` of the library, or ``aten.add.Tensor`` of torch.
    dtype: the type that the model computes in, by name.
    place: of the call in ``recorded``; None for an operator of the library.
    """

    name: str
    dtype: str
    place: int | None = None

    @property
    def line(self) -> str:
        """As a line that ``parse`` reads."""
        return f"{self.name} {self.dtype} {'' if self.place is None else self.place}"

    @classmethod
    def parse(cls, line: str) -> Item:
        """The item of a line."""
        name, dtype, place = line.rstrip("\n").split(" ")
        return cls(name, dtype, int(place) if place else None)


def chosen(target: Target, dtypes: Sequence[str], only: Sequence[str] = ()) -> list[Item]:
    """What to build for models of ``dtypes``: what most models need comes first.

    only: names of operators, or patterns (``*`` and ``?``); all if empty.

    Raises OptionError for an unknown dtype and for a name that nothing has, TargetError for a target whose kernels
    cannot run here, or on whose tensors torchport computes no single operators.
    """
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise OptionError(f"dtype {dtype!r} is not valid; valid: {', '.join(DTYPES)}")
    items = [*_library(dtypes), *(_calls(dtypes) if has_torch_device(target) else ())]
    if not only:
        return items
    names = {item.name for item in items}
    wanted: set[str] = set()
    for pattern in only:
        matching = fnmatch.filter(names, pattern)
        if not matching:
            raise OptionError(f"{target} has no operator {pattern!r} to build; `torchport ops build --list` shows all")
        wanted.update(matching)
    return [item for item in items if item.name in wanted]


def has_torch_device(target: Target) -> bool:
    """Whether a target is a torch device of its own; else tensors for it are in CPU memory.

    Raises TargetError if it cannot run here, or neither is the case.
    """
    driver = backend_for(target).driver(target)
    if isinstance(driver, DeviceDriver):
        return True
    if target != Target("cpu"):
        raise TargetError(
            f"operators are built for cpu and for targets that are devices of torchport's, which {target} is not; "
            "`torchport targets` shows both"
        )
    return False


def _library(dtypes: Sequence[str]) -> Iterator[Item]:
    for dtype in dtypes:
        for operator in operators():
            if DTYPES[dtype] in operator.dtypes:
                yield Item(operator.name, dtype)


def _calls(dtypes: Sequence[str]) -> Iterator[Item]:
    for place, call in enumerate(recorded()):
        serving = [dtype for dtype in dict.fromkeys(dtypes) if call.serves(dtype)]
        for dtype in serving if call.computes else serving[:1]:
            yield Item(call.operator, dtype, place)
