"""Why an operator's numbers differ: products and convolutions in other arithmetic, one cause at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch

from torchport.numerics.attribution import CAUSES, Explained, causes_of, energy, ranked
from torchport.numerics.emulation import Emulation
from torchport.numerics.evidence import Reference
from torchport.numerics.run import Launch, Run
from torchport.numerics.truth import tensor_of

__all__ = ["explain_operator"]


def explain_operator(
    run: Run, launch: Launch, got: torch.Tensor, found: Reference, rules: Mapping[str, Any]
) -> tuple[Explained, float]:
    """What explains that ``got``, an operator's result, is not the exact one; and the share that ``rules``, the
    target's arithmetic, does altogether (0 where there are none, or the operator is none that can be emulated).

    ``found``: the result's reference. Causes are those of ``rules``, or where there are none what chips are known for.
    """
    assert found.sigma is not None
    sigma, called = found.sigma.reshape(got.shape), _call(run, launch)
    total = energy(got, found.native.reshape(got.shape), sigma)
    if not total or called is None:
        return Explained((), 1.0), 0.0

    def share(rules: Mapping[str, Any], precision: str) -> float:
        again = _again(called, rules, precision)
        return -math.inf if again is None or again.shape != got.shape else 1 - energy(got, again, sigma) / total

    causes = causes_of(rules) if rules else [one for one in CAUSES if set(one.rules) == {"dot"}]
    # What a profile's f32 products are in is a setting of the run that nothing recorded.
    precisions = ("ieee", "tf32") if rules and got.dtype == torch.float32 else ("ieee",)
    shares: dict[str, float] = {}
    for cause in causes:
        for precision in precisions:
            name = f"{cause.name}, TF32 inputs" if precision == "tf32" else cause.name
            shares[name] = max(shares.get(name, 0.0), share(cause.rules, precision))
    return ranked(shares), max((share(rules, precision) for precision in precisions), default=0.0) if rules else 0.0


def _again(
    called: tuple[Any, list[Any], dict[str, Any]], rules: Mapping[str, Any], precision: str
) -> torch.Tensor | None:
    """The operator's result by ``rules``; None where it is not emulated."""
    function, args, kwargs = called
    mode = Emulation("the profile", json.dumps({"rules": dict(rules)}, sort_keys=True), precision)
    result = mode._run(function, args, kwargs)
    return None if mode.noted or not isinstance(result, torch.Tensor) else result


def _call(run: Run, launch: Launch) -> tuple[Any, list[Any], dict[str, Any]] | None:
    """The operator without ``out``, and what it was given; None where something was not kept or is no product."""
    name = (launch.operation or "").removeprefix("aten.").partition(".")[0]
    if name not in ("mm", "bmm", "addmm", "baddbmm", "convolution"):
        return None
    function = getattr(torch.ops.aten, name).default
    recorded = {arg.name: arg for arg in launch.args}
    args, kwargs = [], {}
    for wanted in function._schema.arguments:
        arg = recorded.get(wanted.name)
        if arg is None and not wanted.has_default_value():
            return None
        value = wanted.default_value if arg is None else arg.value
        if arg is not None and arg.role != "scalar" and arg.storage is not None:
            value = tensor_of(run, arg, after=False)
            if value is None:
                return None
        if wanted.kwarg_only:
            kwargs[wanted.name] = value
        else:
            args.append(value)
    return function, args, kwargs
