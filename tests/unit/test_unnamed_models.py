"""The models that are only timed: each answers, and a group's name stands for its models."""

from __future__ import annotations

import pytest
import torch
from model_bench.models import build, expanded

OWN = expanded(["unnamed"])


@pytest.mark.parametrize("name", OWN)
def test_each_answers_with_numbers(name: str) -> None:
    built = build(name, "small", torch.float32)
    with torch.no_grad():
        outputs = built.outputs(built.module(**built.inputs))
    assert outputs
    assert all(bool(torch.isfinite(value).all()) and bool(value.any()) for value in outputs.values())


def test_groups_stand_for_their_models() -> None:
    zoo = expanded(["all"])
    assert "bert" in zoo and "mixer" in OWN and not set(zoo) & set(OWN)
    assert expanded(["bert", "unnamed"]) == ["bert", *OWN]
