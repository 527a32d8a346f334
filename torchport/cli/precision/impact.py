"""``torchport impact``: what other arithmetic does to a causal language model's task."""

from __future__ import annotations

import json

from torchport.cli.model import load_model
from torchport.precision.impact import Impact, impact, logits_of, next_tokens

__all__ = ["show"]


def show(model: str, a: str, b: str, *, as_json: bool) -> None:
    """Run ``model`` (``FILE.py:FUNCTION``) both ways on the same tokens and print how its logits and tokens differ.

    Raises OptionError and TargetError.
    """
    module, inputs = load_model(model)
    first = logits_of(module, inputs, a)
    found = impact(first, logits_of(module, inputs, b), next_tokens(inputs, first))
    print(json.dumps(found.as_json(), indent=1) if as_json else _text(found, a, b))


def _text(found: Impact, a: str, b: str) -> str:
    lines = [
        f"{b} against {a}, {found.positions} positions, {found.vocabulary} tokens",
        f"logits: off by {found.rms:.2g} (root mean square), {found.largest:.2g} at most",
        f"divergence: {found.kl:.2g} nats a position (Kullback-Leibler), {found.kl_largest:.2g} at most",
        f"likeliest token: another in {found.flips} positions, {found.flip:.2%} "
        f"(95 % interval {found.flip_low:.2%} to {found.flip_high:.2%})",
        f"sampled token: another with probability {found.sampled:.2g}",
    ]
    if found.flips:
        lines.insert(4, f"largest lead overturned: {found.overturned:.2g} logits")
    if found.nll_a is not None and found.nll_b is not None:
        lines.append(f"loss: {found.nll_a:.6g} and {found.nll_b:.6g} nats a token")
    return "\n".join(lines)
