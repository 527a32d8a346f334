"""``torchport impact``: measures how other arithmetic changes a causal language model's output."""

from __future__ import annotations

import json

from torchport.cli.model import load_model
from torchport.precision.impact import Impact, impact, logits_of, next_tokens

__all__ = ["show"]


def show(model: str, a: str, b: str, *, as_json: bool) -> None:
    """Run ``model`` (``FILE.py:FUNCTION``) in both arithmetics on the same tokens and print the differences.

    Raises OptionError and TargetError.
    """
    module, inputs = load_model(model)
    first = logits_of(module, inputs, a)
    result = impact(first, logits_of(module, inputs, b), next_tokens(inputs, first))
    print(json.dumps(result.as_json(), indent=1) if as_json else _text(result, a, b))


def _text(result: Impact, a: str, b: str) -> str:
    lines = [
        f"{b} against {a}, {result.positions} positions, {result.vocabulary} tokens",
        f"logits: off by {result.rms:.2g} (root mean square), {result.largest:.2g} at most",
        f"divergence: {result.kl:.2g} nats a position (Kullback-Leibler), {result.kl_largest:.2g} at most",
        f"likeliest token: another in {result.flips} positions, {result.flip:.2%} "
        f"(95 % interval {result.flip_low:.2%} to {result.flip_high:.2%})",
        f"sampled token: another with probability {result.sampled:.2g}",
    ]
    if result.flips:
        lines.insert(4, f"largest lead overturned: {result.overturned:.2g} logits")
    if result.nll_a is not None and result.nll_b is not None:
        lines.append(f"loss: {result.nll_a:.6g} and {result.nll_b:.6g} nats a token")
    return "\n".join(lines)
