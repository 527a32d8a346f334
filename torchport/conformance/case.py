"""The parts of the suite: cases, the bench that runs them, and results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torchport.capabilities import Capabilities
from torchport.errors import TorchportError
from torchport.files import parse_json
from torchport.target import Target

__all__ = ["AREAS", "LEVELS", "Bench", "Case", "Measured", "Result", "Wrong"]

AREAS: Mapping[str, str] = {
    "language": "operations of Triton's language, by dtype",
    "inductor": "families of PyTorch operations through torch.compile",
    "operators": "operators in eager mode on the target's torch device",
    "library": "operators of torchport.ops and their gradients",
    "models": "small networks, forward and training",
    "errors": "bad input gives an error, not a wrong answer or a crash",
    "determinism": "the same bits again",
    "batch": "the same bits for a row in every batch, kernels of torchport's; libraries' products are not covered",
    "memory": "nothing written out of bounds, inputs unchanged, no leaks",
}
LEVELS = ("quick", "full")


class Wrong(TorchportError):
    """A kernel's result is wrong. ``worst``: the largest error in units of its bound."""

    def __init__(self, message: str, worst: float = float("inf")) -> None:
        super().__init__(message)
        self.worst = worst


@dataclass(frozen=True)
class Measured:
    """A case that passed.

    worst: the largest error in units of its bound, at most 1.
    notes: deviations that the capabilities allow (flushed denormals ...).
    """

    worst: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bench:
    """What a case is run with: a target and its capabilities, and the option in force (docs/options.md)."""

    target: Target
    able: Capabilities
    bf16_products: str = "auto"


@dataclass(frozen=True)
class Case:
    """One property to check on a target.

    area: the area whose grade it counts for.
    op: the operation.
    dtype: Triton's name of the type.
    level: the lowest level that has it, ``quick`` or ``full``.
    types: Triton types that the target must have.
    run: raises Wrong if the result is wrong.
    shape: of the input, or M, N, K.
    distribution: of the input values.
    required: whether the target must compile it, provided it has the types.
    needs: returns why it does not apply to a target with these capabilities; empty if it does.
    applies: whether the case means anything for a target with these capabilities.
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
        """The case's name, as ``--only`` takes it."""
        shape = "x".join(map(str, self.shape)) or "scalar"
        return f"{self.area}/{self.op}/{self.dtype}/{shape}/{self.distribution}"

    def missing(self, able: Capabilities) -> str:
        """Why the case does not apply to a target; empty if it does."""
        lacking = [one for one in self.types if one not in able.dtypes]
        return f"the target has no {', '.join(lacking)}" if lacking else self.needs(able)


@dataclass(frozen=True)
class Result:
    """The result of a case.

    case: the case's id.
    seconds: the time it took.
    notes: deviations that the capabilities allow.
    verdict: ``pass``, ``fail``, ``refused`` (a clear error says that the target does not support it) or ``untested``.
    detail: the reason of a verdict other than ``pass``.
    worst: the largest error in units of its bound; None if none was measured.
    kernels: kernels of a graph that failed, each as (identity, configuration, name) for ``torchport.quarantine``.
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
    def from_json(cls, line: bytes) -> Result:
        """What ``as_json`` gave, from its text. Raises ArtifactError for any other."""
        values = parse_json(line, _Line, "a result")
        return cls(**{**vars(values), "worst": None if values.worst is None else float(values.worst)})


@dataclass(frozen=True)
class _Line:
    """A result as JSON has it."""

    case: str
    verdict: Literal["pass", "fail", "refused", "untested"]
    detail: str
    worst: float | Literal["inf"] | None
    seconds: float
    notes: tuple[str, ...]
    kernels: tuple[tuple[str, str, str], ...]
