"""The ways to run a user's model that are compared: eagerly, on a target, as another chip, or in float64."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torchport.arithmetic.profile import names
from torchport.compat import reset_dynamo
from torchport.compile import request
from torchport.errors import OptionError, TargetError
from torchport.inductor.precision.plan import WIDTHS
from torchport.numerics.runs.reader import Run
from torchport.plugin import registry
from torchport.precision.steps import INFERENCE, Steps
from torchport.runtime import events

__all__ = ["EMULATED", "OtherGraphs", "Way", "logits_in", "other_threads", "threads", "way_of", "way_of_run"]


EMULATED = "(emulated)"
"""Behind the name of a profile."""


class OtherGraphs(OptionError):
    """A precision file names kernels that a model's graphs do not have."""


@dataclass(frozen=True)
class Way:
    """One way to run a model.

    name: as the user gave it.
    options: of torch.compile; None to run it eagerly.
    """

    name: str
    options: Mapping[str, Any] | None

    def compiled(self, model: Any) -> Any:
        """The model as it is called this way; what was compiled before is forgotten."""
        if self.options is None:
            return model
        reset_dynamo()
        return torch.compile(model, backend="torchport", options=dict(self.options), dynamic=False)

    def run(self, model: Any, inputs: Sequence[Any], steps: Steps = INFERENCE) -> Any:
        """What ``steps`` of the model give, on copies of tensors. Random numbers come from the same seed each time.

        Raises OtherGraphs for a precision file that was made for another model.
        """
        model = steps.copied(model)
        called = self.compiled(model)
        torch.manual_seed(0)
        with events.capture() as happened, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torchport, option 'precision'")
            result = steps.run(model, called, inputs)
        precision = (self.options or {}).get("precision")
        if precision is None or precision in WIDTHS:
            return result
        widened = [one for one in happened if isinstance(one, events.Widened)]
        if not widened or not all(one.fits for one in widened):
            problem = next((one.problem for one in widened if not one.fits), "the model compiles no graph")
            raise OtherGraphs(f"{precision} is not of this model: {problem}")
        return result

    def with_precision(self, precision: str | Path | None) -> Way:
        """This way with the option ``precision``. Raises OptionError for the eager one."""
        if precision is None:
            return self
        if self.options is None:
            raise OptionError(
                f"{self.name} compiles nothing: only compiled kernels can be computed in higher precision"
            )
        return _checked(f"{self.name} with {precision}", {**self.options, "precision": str(precision)})

    @property
    def emulated(self) -> bool:
        """Whether another chip's arithmetic is emulated, so that times say nothing of the chip."""
        return self.options is not None and "emulate" in self.options


def way_of(name: str) -> Way:
    """The way called ``eager``, ``float64`` (or ``float32``: all kernels on the CPU target), by a target or a profile.

    Profiles (``h100``, ``h100-tf32``, a file NAME.json) are emulated by the CPU target. A name that is both, as
    ``opencl`` is, is the target's; ``opencl(emulated)`` is always the profile. Raises OptionError and TargetError for
    what is none of these.
    """
    if not name:
        raise OptionError("a way to run the model is missing: eager, float64, a target (cpu) or a profile (h100)")
    if name == "eager":
        return Way(name, None)
    if name in WIDTHS:
        return _checked(name, {"target": "cpu", "precision": name})
    profile = name.removesuffix(EMULATED)
    stem = profile.removesuffix("-tf32")
    if profile != name or stem.endswith(".json") or (stem in names() and stem not in registry().names):
        return _checked(name, {"target": "cpu", "emulate": profile})
    try:
        return _checked(name, {"target": name})
    except TargetError as error:
        raise TargetError(f"{error}; besides targets: eager, float64 or a profile ({', '.join(names())})") from None


def _checked(name: str, options: Mapping[str, Any]) -> Way:
    """A way whose options are valid: inside of torch.compile an error would come late, and with much around it."""
    request(None, options)
    return Way(name, options)


def way_of_run(run: Run) -> Way:
    """The way that a recorded run was made. Raises OptionError for one that was made in several, or cannot be again."""
    found = {}
    for graph in run.graphs.values():
        asked = graph.get("asked") or {}
        if graph.get("eager"):
            found["eager"] = Way("eager", None)
            continue
        options = {"target": graph["target"]} | {n: asked[n] for n in ("emulate", "precision") if asked.get(n)}
        found[str(options)] = Way(str(options.get("emulate", options["target"])), options)  # checked when it runs
    if len(found) != 1:
        raise OptionError(f"{run.path} was recorded in {len(found) or 'no'} ways; record the model in one")
    (way,) = found.values()
    emulated, precision = ((way.options or {}).get(name) for name in ("emulate", "precision"))
    if emulated is not None and emulated.removesuffix("-tf32") not in names():
        raise OptionError(f"{run.path} emulates {emulated}, a profile of a file: name the file in place of the run")
    if precision is not None and precision not in WIDTHS:
        raise OptionError(f"{run.path} was recorded with a precision file already: name a run without one")
    return way


def logits_in(result: Any) -> torch.Tensor | None:
    """The logits [batch, tokens, vocabulary] in what a causal language model returned; None if there are none."""
    found = result.get("logits") if isinstance(result, Mapping) else getattr(result, "logits", result)
    if not isinstance(found, torch.Tensor) or found.dim() != 3 or not found.is_floating_point():
        return None
    return found.detach().clone()


def other_threads() -> int:
    """Another number of threads than the current one, for a run that should change nothing."""
    return 1 if torch.get_num_threads() > 1 else 2


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run on so many threads while the context is open."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
