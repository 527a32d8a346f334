"""The targets of a suite: what runs here, what is emulated here, and what is only compiled here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torchport.arithmetic.profile import Profile, names
from torchport.errors import OptionError
from torchport.plugin import backend_for, registry
from torchport.precision.ways import EMULATED
from torchport.target import Target

__all__ = ["EAGER", "Column", "columns", "parse"]

Mode = Literal["here", "emulated", "compiled"]

EAGER = "eager"

_FORM = re.compile(r"(?P<name>[^()]+)(?:\((?P<mode>emulated|compiled)\))?")


@dataclass(frozen=True)
class Column:
    """One target of a suite.

    name: as the user gave it.
    mode: ``here``: everything is measured; ``emulated``: accuracy alone, in the arithmetic of a profile;
        ``compiled``: which kernels compile, and nothing runs.
    way: what ``torchport.precision.ways.way_of`` takes; the target's text form where nothing runs.
    """

    name: str
    mode: Mode
    way: str

    @property
    def target(self) -> str:
        """The torchport target that certificates name; empty for one that has none."""
        return self.way if self.mode != "emulated" and self.way != EAGER else ""


def parse(text: str) -> Column:
    """The column that ``text`` names: ``cpu``, ``h100(emulated)``, ``cuda:90(compiled)``.

    Raises OptionError for what is none and for an unknown profile, TargetError for an unknown target.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise OptionError(f"{text!r} is no target of an evaluation; valid: cpu, h100(emulated), cuda:90(compiled)")
    name, mode = match["name"].strip(), match["mode"]
    stem = name.removesuffix("-tf32")
    if mode == "emulated":
        Profile.load(name)
        return Column(f"{name}{EMULATED}", "emulated", f"{name}{EMULATED}")
    if mode is None and ((stem in names() and stem not in registry().names) or stem.endswith(".json")):
        raise OptionError(f"{name!r} is a profile of a chip: {name}(emulated) computes as it does")
    if name == EAGER and mode is None:
        return Column(name, "here", name)
    target = Target.parse(name)
    backend_for(target)
    return Column(f"{target}(compiled)" if mode else str(target), "compiled" if mode else "here", str(target))


def columns(texts: Sequence[str]) -> tuple[Column, ...]:
    """The columns that ``texts`` name, each once. Raises OptionError and TargetError."""
    found = tuple(parse(text) for text in texts)
    if not found:
        raise OptionError("an evaluation needs a target: --targets cpu,h100(emulated)")
    seen = [one.name for one in found]
    if twice := next((name for name in seen if seen.count(name) > 1), None):
        raise OptionError(f"the target {twice} is named twice")
    return found
