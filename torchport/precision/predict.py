"""Predicts a model's results on other chips: emulates their arithmetic on the CPU target and compares with float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

from torchport.arithmetic.profile import Profile
from torchport.compat import reset_dynamo
from torchport.numerics.recording.record import record
from torchport.runtime import events

__all__ = ["ChipResult", "OutputError", "predict", "run_once"]


@dataclass(frozen=True)
class OutputError:
    """One output of a model on one chip.

    against_truth, against_cpu: relative L2 differences from the float64 reference and from the CPU target.
    p99, worst: quantile and maximum of the absolute difference from the reference, in units of its root mean square.
    nan, inf: elements that are NaN or infinite but not so in the reference.
    """

    output: int
    dtype: str
    shape: tuple[int, ...]
    against_truth: float
    against_cpu: float
    p99: float
    worst: float
    nan: int
    inf: int


@dataclass(frozen=True)
class ChipResult:
    """A model on one chip.

    name, chip: of the profile.
    outputs: in order.
    kernels: how many ran in the chip's arithmetic.
    not_emulated: operations that ran in the CPU's own arithmetic, with the reason.
    """

    name: str
    chip: str
    outputs: tuple[OutputError, ...]
    kernels: int
    not_emulated: tuple[str, ...]

    @property
    def worst(self) -> OutputError:
        """The output furthest from the reference; outputs with NaN or infinities come first."""
        return max(self.outputs, key=lambda one: (one.nan + one.inf, one.against_truth))

    def as_json(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def predict(
    model: Callable[..., Any],
    inputs: Sequence[Any],
    chips: Sequence[str],
    folder: Path | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> list[ChipResult]:
    """The CPU target itself (``cpu``), then each of ``chips`` (names of profiles), on ``model(*inputs)``.

    Random numbers come from the same seed each time. ``folder``: each chip's run is recorded into a folder of its name
    there, for ``torchport diff``. ``progress`` is told each name before it runs. Raises OptionError for a name that is
    no profile, ValueError for a model that gives no floats, and what the model raises.
    """
    profiles = [Profile.load(name) for name in chips]
    progress("truth in float64")
    reference = run_once(_widened(model), tree_map(_wide, tuple(inputs)))
    if not reference:
        raise ValueError("the model gives no tensors of floats: there is nothing to compare")
    found, own = [], None
    for name, chip in [("cpu", "this CPU"), *((one.name, one.chip) for one in profiles)]:
        progress(name)
        options: dict[str, Any] = (
            {"target": "cpu"} if name == "cpu" else {"target": "cpu", "emulate": _option(name, chips, profiles)}
        )
        reset_dynamo()
        compiled = torch.compile(model, backend="torchport", options=options)
        recording: AbstractContextManager[Any] = nullcontext() if folder is None else record(folder / name)
        with events.capture() as happened, recording:
            outputs = run_once(compiled, inputs)
        own = outputs if own is None else own
        errors = tuple(_errors(i, *three) for i, three in enumerate(zip(outputs, reference, own, strict=True)))
        kernels = sum(isinstance(one, events.Kernel) for one in happened)
        elsewhere = [str(one) for one in happened if isinstance(one, events.Fallback)]
        found.append(ChipResult(name, chip, errors, kernels, tuple(dict.fromkeys(elsewhere))))
    return found


def _option(name: str, chips: Sequence[str], profiles: Sequence[Profile]) -> str:
    """The name or path that the profile ``name`` was loaded from."""
    return next(given for given, profile in zip(chips, profiles, strict=True) if profile.name == name)


def run_once(model: Callable[..., Any], inputs: Sequence[Any]) -> list[torch.Tensor]:
    """The tensors of floats that ``model(*inputs)`` gives. Random numbers come from the same seed each time."""
    torch.manual_seed(0)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one call of aten for a whole layer: nothing of it is emulated
    try:
        with torch.no_grad():
            results, _ = tree_flatten(model(*tree_map(_copied, tuple(inputs))))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return [one.detach() for one in _tensors(results)]


def _tensors(results: Sequence[Any]) -> Iterator[torch.Tensor]:
    for one in results:
        if isinstance(one, torch.Tensor) and one.is_floating_point():
            yield one


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _wide(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _widened(model: Callable[..., Any]) -> Callable[..., Any]:
    return copy.deepcopy(model).double() if isinstance(model, torch.nn.Module) else model


def _errors(output: int, found: torch.Tensor, reference: torch.Tensor, own: torch.Tensor) -> OutputError:
    found64, own64 = found.double(), own.double()
    error = (found64 - reference).abs().flatten()
    sane = reference.isfinite().flatten() & error.isfinite()
    size = reference.flatten()[sane].square().mean().sqrt() if sane.any() else torch.tensor(0.0)
    kept = error[sane]
    scaled = kept / size if size > 0 else kept
    return OutputError(
        output,
        str(found.dtype).removeprefix("torch."),
        tuple(found.shape),
        _relative(found64, reference),
        _relative(found64, own64),
        float(scaled.kthvalue(max(1, round(0.99 * len(scaled)))).values) if len(scaled) else 0.0,
        float(scaled.max()) if len(scaled) else 0.0,
        int((found.isnan() & ~reference.isnan()).sum()),
        int((found.isinf() & ~reference.isinf()).sum()),
    )


def _relative(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Relative L2 difference, of the elements that are finite in both."""
    both = found.isfinite() & reference.isfinite()
    size = float(reference[both].norm())
    difference = float((found[both] - reference[both]).norm())
    return difference / size if size > 0 else difference
