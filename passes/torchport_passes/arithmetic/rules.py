"""Which passes carry out a set of arithmetic rules (docs/numerics/rules.md), and in which order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torchport.arithmetic.rules import check
from torchport.pipeline import Pass

__all__ = ["rule_passes"]


def rule_passes(rules: Mapping[str, Any]) -> list[Pass]:
    """Passes on imported TTIR, one for each rule that is there. Raises OptionError for rules that are not valid.

    Conversions first, as one that is left out changes what others see; denormals last, as they hold for what the other
    rules make, too.
    """
    from torchport_passes.arithmetic.emulate_casts import EmulateCasts
    from torchport_passes.arithmetic.emulate_contraction import EmulateContraction
    from torchport_passes.arithmetic.emulate_denormals import EmulateDenormals
    from torchport_passes.arithmetic.emulate_dot import EmulateDot
    from torchport_passes.arithmetic.emulate_functions import EmulateFunctions
    from torchport_passes.arithmetic.emulate_reductions import EmulateReductions

    given = check(rules)
    kinds: dict[str, Any] = {
        "casts": EmulateCasts,
        "dot": EmulateDot,
        "reductions": EmulateReductions,
        "functions": EmulateFunctions,
        "fma": EmulateContraction,
        "denormals": EmulateDenormals,
    }
    made: list[Pass] = []
    for name, kind in kinds.items():
        if name in given:
            value = given[name]
            made.append(kind(value if isinstance(value, (bool, str)) else json.dumps(value, sort_keys=True)))
    return made
