"""Which passes carry out a set of arithmetic rules (docs/numerics.md, "Rules"), and in which order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torchport.numerics.rules import check
from torchport.pipeline import Pass

__all__ = ["rule_passes"]


def rule_passes(rules: Mapping[str, Any]) -> list[Pass]:
    """Passes on imported TTIR, one for each rule that is there. Raises OptionError for rules that are not valid."""
    from torchport_passes.emulate_dot import EmulateDot

    given = check(rules)
    passes: dict[str, Any] = {"dot": EmulateDot}
    return [kind(json.dumps(given[name], sort_keys=True)) for name, kind in passes.items() if name in given]
