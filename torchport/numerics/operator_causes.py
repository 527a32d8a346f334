"""Why an operator's numbers differ: products and convolutions in other arithmetic, one cause at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torchport.numerics.attribution import CAUSES, Cause, Explained, causes_of
from torchport.numerics.emulation import Emulation
from torchport.numerics.evidence import Reference
from torchport.numerics.run import Launch, Run
from torchport.numerics.truth import tensor_of

__all__ = ["explain_operator"]

_LEAST = 0.05


def explain_operator(
    run: Run, launch: Launch, got: torch.Tensor, found: Reference, rules: Mapping[str, Any]
) -> tuple[Explained, float]:
    """What explains that ``got``, an operator's result, is not the exact one; and the share that ``rules``, the
    target's arithmetic, does altogether (0 where there are none, or the operator is none that can be emulated).

    ``found``: the result's reference. Causes are those of ``rules``, or where there are none what chips are known for.
    """
    assert found.sigma is not None
    sigma = found.sigma.reshape(got.shape)
    base = found.y64.to(got.dtype).reshape(got.shape)
    total = _energy(got, base, sigma)
    causes: Sequence[Cause] = causes_of(rules) if rules else [one for one in CAUSES if set(one.rules) == {"dot"}]
    shares: dict[str, float] = {}
    if not total or _call(run, launch) is None:
        return Explained((), 1.0), 0.0
    for cause in causes:
        for precision in ("ieee", "tf32"):
            share = 1 - _energy(got, _again(run, launch, cause.rules, precision), sigma) / total
            name = f"{cause.name}, TF32 inputs" if precision == "tf32" and rules else cause.name
            shares[name] = max(shares.get(name, 0.0), share)
            if got.dtype != torch.float32 or not rules:
                break  # the operands have no other precision
    whole = 0.0
    if rules:
        whole = max(
            1 - _energy(got, _again(run, launch, rules, precision), sigma) / total for precision in ("ieee", "tf32")
        )
    ranked = sorted(((name, share) for name, share in shares.items() if share >= _LEAST), key=lambda one: -one[1])
    return Explained(tuple(ranked), 1 - (ranked[0][1] if ranked else 0.0)), whole


def _again(run: Run, launch: Launch, rules: Mapping[str, Any], precision: str) -> torch.Tensor | None:
    """The operator's result by ``rules``; None where it is not emulated."""
    called = _call(run, launch)
    if called is None:
        return None
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


def _energy(a: torch.Tensor, b: torch.Tensor | None, sigma: torch.Tensor) -> float:
    """Energy of the difference in sigmas; infinite where there is nothing to compare with."""
    if b is None or b.shape != a.shape:
        return float("inf")
    z = torch.nan_to_num((a.double() - b.double()) / sigma, nan=0.0, posinf=1e6, neginf=-1e6)
    return float(z.square().sum())
