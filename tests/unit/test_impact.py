"""What other arithmetic does to a language model's task."""

from __future__ import annotations

import json
import math
from typing import Any, cast

import pytest
import torch

from torchport.errors import OptionError
from torchport.precision.impact import IGNORED, impact, logits_of, next_tokens
from torchport.precision.impacts import answered, impacts


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


def test_shapes_that_do_not_fit_and_nan_are_refused() -> None:
    logits = torch.zeros(1, 2, 3)
    with pytest.raises(OptionError, match="do not fit"):
        impact(logits, torch.zeros(1, 2, 4))
    with pytest.raises(OptionError, match="do not fit"):
        impact(logits, logits, torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(OptionError, match="NaN"):
        impact(logits, logits * math.nan)
    with pytest.raises(OptionError, match="no token has a probability"):
        impact(logits, logits + math.inf)


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


def test_no_interval_is_a_point() -> None:
    """Nothing flipped in 10 positions: up to 31 % may. Bootstraps of equal sequences say nothing."""
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    found = impact(logits, logits.clone())
    assert found.flip_high == pytest.approx(1 - 0.025**0.1)
    assert (found.flip_by_sequence, found.kl_interval) == (None, None)
    turned = impact(logits, -logits)
    assert turned.flips == 10 and turned.flip_low == pytest.approx(0.025**0.1) and turned.flip_high == 1.0
    single = impact(logits[:1, :1], -logits[:1, :1])
    assert (single.positions, single.flips, single.kl_interval) == (1, 1, None)
    assert single.flip_low == pytest.approx(0.025)


def test_sequences_are_the_independent_units() -> None:
    """One sequence said a hundred times over is a hundred sequences to the bootstrap, and so are its positions not."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(8, 4, 9, generator=generator)
    b = a + 0.3 * torch.randn(8, 4, 9, generator=generator)
    once, longer = impact(a, b), impact(a.repeat(1, 25, 1), b.repeat(1, 25, 1))
    assert once.kl_interval is not None and longer.kl_interval == pytest.approx(once.kl_interval)
    assert longer.flip_by_sequence == pytest.approx(once.flip_by_sequence)
    assert longer.flip_high - longer.flip_low < (once.flip_high - once.flip_low) / 3  # this one takes positions


def test_empty_logits_are_refused() -> None:
    with pytest.raises(OptionError, match="nothing to measure"):
        impact(torch.zeros(0, 3, 5), torch.zeros(0, 3, 5))


class Way:
    """A way to run a model that returns what it is given."""

    options = None

    def __init__(self, name: str, *results: Any) -> None:
        self.name, self.results = name, list(results)

    def run(self, model: Any, inputs: Any) -> Any:
        return self.results.pop(0) if len(self.results) > 1 else self.results[0]


def noisy(logits: torch.Tensor, size: float, seed: int) -> torch.Tensor:
    return logits + size * torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))


def test_several_ways_are_corrected_and_have_a_floor() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 40, 50, generator=generator)
    tokens = torch.randint(50, (12, 40), generator=generator)
    ways: list[Any] = [Way("same", logits), Way("near", noisy(logits, 1e-4, 1)), Way("far", noisy(logits, 0.3, 2))]

    def last(result: torch.Tensor) -> torch.Tensor:
        return result[:, -1].argmax(-1)

    found = impacts(None, (tokens,), cast(Any, Way("a", logits, logits)), ways, last)
    same, near, far = found.ways
    assert found.null.flips == 0 and found.null.kl == 0.0
    assert same.tokens.p == same.divergence.p == 1.0 and same.tokens.needed is None
    assert not near.tokens.decided and near.divergence.decided
    assert far.tokens.decided and far.tokens.corrected == pytest.approx(3 * far.tokens.p)
    assert far.loss is not None and far.answers is not None and far.answers.right_a is None
    assert same.answers is not None and same.answers.same == 12 and same.answers.low == pytest.approx(0.025 ** (1 / 12))
    assert same.answers.assumed and same.answers.needed > 1000
    assert json.loads(json.dumps(found.as_json()))["ways"][2]["name"] == "far"


def test_an_infinite_divergence_is_written_as_json() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    ruled_out = logits.clone()
    ruled_out[..., 0] = -math.inf
    found = impacts(None, (), cast(Any, Way("a", logits, logits)), [cast(Any, Way("b", ruled_out))])
    assert found.ways[0].impact.kl == math.inf
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["ways"][0]["impact"]["kl"] is None


def test_answers_that_are_known_to_be_right() -> None:
    right = torch.arange(50)
    a, b = right.clone(), right.clone()
    a[:12] += 1
    b[:13] += 1
    found = answered((a, right), (b, right), 2.0)
    assert (found.right_a, found.right_b, found.p, found.changed) == (38, 37, 1.0, 0.02)
    assert found.difference is not None and found.difference[0] < -0.02 < 0 < found.difference[1]
    b[:17] += 1
    assert 1500 < answered((a, right), (b, right), 2.0).needed < 2500  # of 50 questions a tenth changed


@pytest.mark.parametrize(
    ("a", "says"),
    [
        (torch.zeros(0, dtype=torch.int64), "no questions"),
        (torch.zeros(3), "whole numbers"),
        (torch.zeros(3, 2, dtype=torch.int64), "one dimension"),
        ([1, 2], "one dimension"),
        ((torch.arange(3), torch.arange(4)), "as many"),
    ],
)
def test_tasks_without_answers_are_refused(a: Any, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        answered(a, a, 2.0)


def test_questions_must_be_the_same() -> None:
    with pytest.raises(OptionError, match="other questions"):
        answered(torch.arange(3), torch.arange(4), 2.0)
    with pytest.raises(OptionError, match="other questions"):
        answered((torch.arange(3), torch.arange(3)), (torch.arange(3), torch.arange(3) + 1), 2.0)
