"""Intervals, tests and sample sizes, against exact sums in integers, closed forms and simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from torchport.precision.statistics import (
    beta_cdf,
    beta_quantile,
    bootstrap,
    exact_interval,
    holm,
    mcnemar,
    mean_size,
    paired_interval,
    paired_size,
    sign_flip,
    size_without_hits,
    student_quantile,
)


def tail(hits: int, n: int, share: Fraction) -> Fraction:
    """P(at least ``hits`` of n), exactly."""
    terms = (math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(hits, n + 1))
    return sum(terms, Fraction(0))


@pytest.mark.parametrize(("hits", "n"), [(1, 1), (1, 7), (3, 50), (12, 13), (40, 97), (1, 400)])
@pytest.mark.parametrize("share", [Fraction(1, 1000), Fraction(1, 10), Fraction(1, 2), Fraction(19, 20)])
def test_the_beta_function_is_the_binomial_tail(hits: int, n: int, share: Fraction) -> None:
    found = beta_cdf(float(share), hits, n - hits + 1)
    assert found == pytest.approx(float(tail(hits, n, share)), rel=1e-11, abs=1e-300)


def test_large_samples_converge() -> None:
    assert beta_cdf(0.5, 5_000_000, 5_000_000) == pytest.approx(0.5, abs=1e-6)
    low, high = exact_interval(500_000, 10_000_000)  # as the normal distribution has it
    half = 1.959964 * math.sqrt(0.05 * 0.95 / 10_000_000)
    assert (low, high) == pytest.approx((0.05 - half, 0.05 + half), abs=2e-7)


@pytest.mark.parametrize("n", [1, 2, 10, 124, 5000])
def test_no_hit_and_all_hits_have_intervals_of_their_own(n: int) -> None:
    bound = 0.025 ** (1 / n)
    assert exact_interval(0, n) == (0.0, pytest.approx(1 - bound, rel=1e-9))
    assert exact_interval(n, n) == (pytest.approx(bound, rel=1e-9), 1.0)
    assert exact_interval(0, 0) == (0.0, 1.0)


def test_exact_intervals_hold_the_share_as_often_as_they_say() -> None:
    for n in (5, 30):
        intervals = [exact_interval(hits, n) for hits in range(n + 1)]
        for share in (0.01, 0.2, 0.5, 0.93):
            held = sum(
                math.comb(n, k) * share**k * (1 - share) ** (n - k)
                for k, (low, high) in enumerate(intervals) if low <= share <= high
            )  # fmt: skip
            assert held >= 0.95


def test_quantiles_of_students_distribution() -> None:
    assert student_quantile(0.025, 1) == pytest.approx(-math.tan(0.475 * math.pi), rel=1e-9)  # Cauchy's
    assert student_quantile(0.025, 9) == pytest.approx(-2.262157, abs=1e-6)
    assert beta_quantile(0.25, 1, 1) == pytest.approx(0.25)


def test_mcnemar_counts_pairs_that_differ() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(10, 2) == pytest.approx(2 * sum(math.comb(12, k) for k in range(3)) / 4096)
    assert mcnemar(2, 10) == mcnemar(10, 2)
    assert mcnemar(0, 366) == pytest.approx(2.0**-365)


def test_paired_intervals_are_never_a_point() -> None:
    low, high = paired_interval(0, 0, 50)
    assert low == -high and 0.08 < high < 0.1
    assert paired_interval(3, 9, 200)[0] < 0.03 < paired_interval(3, 9, 200)[1]
    assert paired_interval(1, 0, 1) == (-1.0, pytest.approx(1 - 0.0125 - 0.0125, abs=1e-3))


def test_signs_are_flipped_exactly_for_few() -> None:
    assert sign_flip([1.0, 2.0, 3.0]) == pytest.approx(2 / 8)
    assert sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([1.0, -1.0, 0.0]) == 1.0
    assert sign_flip([1.0] * 30) < 0.001
    assert sign_flip([1.0, -1.0] * 15) > 0.9


def test_holm_multiplies_the_least_most() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == [] and holm([0.2]) == [0.2]


def test_sample_sizes() -> None:
    assert 1850 < paired_size(0.02, 0.097) < 1950  # 2 points where a tenth of the answers change
    assert paired_size(0.5, 0.1) == paired_size(0.5, 0.5)  # no fewer pairs differ than shares do
    assert size_without_hits(0.01) == math.ceil(math.log(0.025) / math.log(0.99))
    assert mean_size(0.0, 1.0) is None and mean_size(math.nan, 1.0) is None
    assert mean_size(1.0, 1e-9) == 6


def mean(sums: torch.Tensor) -> torch.Tensor:
    return sums[..., 0] / sums[..., 1]


def test_the_bootstrap_resamples_units_and_is_seeded() -> None:
    units = torch.stack([torch.randn(40, generator=torch.Generator().manual_seed(1)).double() + 3, torch.ones(40)], 1)
    found = bootstrap(units, mean)
    assert found is not None and found == bootstrap(units, mean)
    deviation = float(units[:, 0].std()) / math.sqrt(40)
    assert found[1] - found[0] == pytest.approx(2 * 2.02 * deviation, rel=0.1)
    repeated = units[:, None].expand(40, 25, 2)  # 25 positions that are one: no more is known than of 40 units
    clustered = bootstrap(repeated.sum(1), mean)
    assert clustered == pytest.approx(found, rel=1e-9)
    assert bootstrap(units[:1], mean) is None


def test_few_units_hold_the_mean_nearly_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for seed in range(150):
        units = torch.stack([torch.randn(6, generator=generator).double(), torch.ones(6)], 1)
        interval = bootstrap(units, mean, seed=seed, resamples=1000)
        assert interval is not None
        held += interval[0] <= 0 <= interval[1]
    assert held / 150 > 0.9  # plain percentiles: 0.83
