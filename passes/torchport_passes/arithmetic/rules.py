"""Chooses the passes that carry out arithmetic rules (docs/numerics/rules.md), and their order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torchport.arithmetic.rules import check
from torchport.pipeline import Pass

__all__ = ["rule_passes"]


def rule_passes(rules: Mapping[str, Any]) -> list[Pass]:
    """Passes on imported TTIR, one for each rule. Raises OptionError for rules that are not valid.

    Conversions come first, as the other rules see operations without the omitted ones; denormals come last, as they
    also concern the operations that other rules add.
    """
    from torchport_passes.arithmetic.emulate_casts import EmulateCasts
    from torchport_passes.arithmetic.emulate_contraction import EmulateContraction
    from torchport_passes.arithmetic.emulate_denormals import EmulateDenormals
    from torchport_passes.arithmetic.emulate_dot import EmulateDot
    from torchport_passes.arithmetic.emulate_functions import EmulateFunctions
    from torchport_passes.arithmetic.emulate_reductions import EmulateReductions

    checked = check(rules)
    kinds: dict[str, Any] = {
        "casts": EmulateCasts,
        "dot": EmulateDot,
        "reductions": EmulateReductions,
        "functions": EmulateFunctions,
        "fma": EmulateContraction,
        "denormals": EmulateDenormals,
    }
    values = {name: checked[name] for name in kinds if name in checked}
    options = {name: v if isinstance(v, (bool, str)) else json.dumps(v, sort_keys=True) for name, v in values.items()}
    return [kinds[name](option) for name, option in options.items()]
