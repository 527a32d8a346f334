"""What the suite is made of: a case, what it is run with, what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torchport.capabilities import Capabilities
from torchport.errors import TorchportError
from torchport.target import Target

__all__ = ["AREAS", "LEVELS", "Bench", "Case", "Measured", "Result", "Wrong"]

AREAS: Mapping[str, str] = {
    "language": "operations of Triton's language, by dtype",
    "inductor": "families of PyTorch operations through torch.compile",
    "models": "small networks, forward and training",
    "errors": "bad input gives an error, not a wrong answer or a crash",
    "determinism": "the same bits again",
    "memory": "nothing written out of bounds, inputs unchanged, no leaks",
}
LEVELS = ("quick", "full")


class Wrong(TorchportError):
    """A kernel's result is not what it must be. ``worst``: the largest error in units of its bound."""

    def __init__(self, message: str, worst: float = float("inf")) -> None:
        super().__init__(message)
        self.worst = worst


@dataclass(frozen=True)
class Measured:
    """A case that holds. ``worst``: the largest error in units of its bound, at most 1; ``notes``: what was allowed
    for because the descriptor says so (flushed denormals ...).
    """

    worst: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bench:
    """What a case is run with."""

    target: Target
    able: Capabilities


@dataclass(frozen=True)
class Case:
    """One thing to check on a target.

    ``types``: Triton's types that it needs the target to have; ``run`` raises Wrong where the result is not right.
    ``shape``: of the input, or of M, N, K; ``distribution``: of the values. ``required``: the target may not refuse to
    compile it, as long as it has the types. ``needs``: why it does not apply to a target, from its descriptor; empty
    where it does. ``applies``: whether there is anything to ask of a target with such a descriptor.
    """

    area: str
    op: str
    dtype: str
    shape: tuple[int, ...]
    distribution: str
    run: Callable[[Bench], Measured] = field(compare=False, repr=False)
    types: tuple[str, ...] = ()
    level: str = "quick"
    required: bool = False
    needs: Callable[[Capabilities], str] = field(default=lambda able: "", compare=False, repr=False)

    applies: Callable[[Capabilities], bool] = field(default=lambda able: True, compare=False, repr=False)

    @property
    def id(self) -> str:
        """Its name: what ``--only`` takes."""
        shape = "x".join(map(str, self.shape)) or "scalar"
        return f"{self.area}/{self.op}/{self.dtype}/{shape}/{self.distribution}"

    def missing(self, able: Capabilities) -> str:
        """Why it cannot be asked of a target; empty where it can."""
        lacking = [one for one in self.types if one not in able.dtypes]
        return f"the target has no {', '.join(lacking)}" if lacking else self.needs(able)


@dataclass(frozen=True)
class Result:
    """What came of a case.

    ``verdict``: ``pass``, ``fail``, ``refused`` (a clear error says that the target does not do this) or ``untested``
    (with the reason in ``detail``). ``worst``: the largest error in units of its bound, None where none was measured.
    ``kernels``: of a graph that failed, each as (identity, configuration, name) for ``torchport.quarantine``.
    """

    case: str
    verdict: str
    detail: str = ""
    worst: float | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    kernels: tuple[tuple[str, str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As JSON values; an infinite ``worst`` is the text ``inf``."""
        values = asdict(self)
        values["notes"] = list(self.notes)
        if self.worst is not None and self.worst in (float("inf"), float("-inf")):
            values["worst"] = "inf"
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Result:
        """What ``as_json`` gave."""
        worst = values["worst"]
        return cls(
            values["case"],
            values["verdict"],
            values["detail"],
            None if worst is None else float(worst),
            values["seconds"],
            tuple(values["notes"]),
            tuple((identity, configuration, name) for identity, configuration, name in values["kernels"]),
        )
