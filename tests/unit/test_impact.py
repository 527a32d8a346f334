"""What other arithmetic does to a language model's task."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from torchport.errors import OptionError
from torchport.precision.impact import IGNORED, impact, logits_of, next_tokens, wilson


def test_equal_logits_have_no_impact() -> None:
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    found = impact(logits, logits.clone())
    assert (found.rms, found.kl, found.flips, found.sampled) == (0.0, 0.0, 0, 0.0)
    assert found.positions == 10
    assert found.flip_low == 0.0 and 0.2 < found.flip_high < 0.35  # ten positions decide little


def test_a_constant_added_to_a_position_changes_nothing() -> None:
    logits = torch.randn(3, 4, 6, dtype=torch.float64)
    found = impact(logits, logits + torch.randn(3, 4, 1, dtype=torch.float64))
    assert found.largest < 1e-12
    assert found.kl < 1e-12


def test_figures_of_two_tokens_by_hand() -> None:
    a = torch.tensor([[[math.log(3.0), 0.0]]])
    b = torch.tensor([[[0.0, math.log(3.0)]]])
    found = impact(a, b, torch.tensor([[0]]))
    assert found.kl == pytest.approx(0.75 * math.log(3) + 0.25 * math.log(1 / 3), rel=1e-6)
    assert found.sampled == pytest.approx(0.5, rel=1e-6)
    assert (found.flips, found.flip) == (1, 1.0)
    assert found.overturned == pytest.approx(math.log(3), rel=1e-6)
    assert found.largest == pytest.approx(math.log(3), rel=1e-6)
    assert found.nll_a == pytest.approx(-math.log(0.75), rel=1e-6)
    assert found.nll_b == pytest.approx(-math.log(0.25), rel=1e-6)


def test_impossible_tokens_do_not_make_the_divergence_nan() -> None:
    a = torch.tensor([[[0.0, 1.0, -math.inf]]])
    found = impact(a, torch.tensor([[[0.0, 1.5, -math.inf]]]))
    assert math.isfinite(found.kl) and found.kl > 0
    assert math.isfinite(found.rms)


@pytest.mark.parametrize(("hits", "n", "low", "high"), [(0, 100, 0.0, 3.8415 / 103.8415), (5, 5, 5 / 8.8415, 1)])
def test_wilsons_interval(hits: int, n: int, low: float, high: float) -> None:
    """At its ends: none of n reaches up to z²/(n + z²), all of n down to n/(n + z²); z² = 3.8415."""
    found = wilson(hits, n)
    assert found == pytest.approx((low, high), abs=1e-5)


def test_shapes_that_do_not_fit_and_nan_are_refused() -> None:
    logits = torch.zeros(1, 2, 3)
    with pytest.raises(OptionError, match="do not fit"):
        impact(logits, torch.zeros(1, 2, 4))
    with pytest.raises(OptionError, match="do not fit"):
        impact(logits, logits, torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(OptionError, match="NaN"):
        impact(logits, logits * math.nan)


def test_labels_are_the_next_tokens() -> None:
    tokens = torch.tensor([[5, 6, 7]])
    labels = next_tokens((tokens,), torch.zeros(1, 3, 9))
    assert labels is not None and labels.tolist() == [[6, 7, IGNORED]]
    assert next_tokens((torch.zeros(1, 3),), torch.zeros(1, 3, 9)) is None


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"logits": x}])
def test_logits_of_a_model(wrap: Any) -> None:
    logits = torch.randn(1, 2, 3)
    assert torch.equal(logits_of(lambda: wrap(logits), (), "eager"), logits)
    with pytest.raises(OptionError, match="causal"):
        logits_of(lambda: wrap(logits[0]), (), "eager")
