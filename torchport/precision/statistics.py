"""How sure a measurement is: exact intervals of shares, bootstrap intervals of means, paired tests, sample sizes.

Exact binomial intervals need quantiles of the beta distribution, which neither torch nor NumPy has. SciPy does, at
35 MB and a third of a second to import; a continued fraction and a bisection are what is needed of it, and tests
compare them with exact sums in integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import torch

__all__ = [
    "ALPHA",
    "Interval",
    "beta_cdf",
    "beta_quantile",
    "bootstrap",
    "exact_interval",
    "holm",
    "mcnemar",
    "mean_size",
    "median_interval",
    "paired_interval",
    "paired_size",
    "sign_flip",
    "size_without_hits",
    "student_quantile",
]

Interval = tuple[float, float]

ALPHA = 0.05
"""Intervals hold the true value with a probability of 1 - ALPHA, and a test decides below ALPHA."""

POWER = 0.8
"""The probability with which a sample of the sizes given here decides, if the difference is the one assumed."""

RESAMPLES = 4000
_FLIPS = 1 << 14
_TINY = 1e-300
_NORMAL = NormalDist()


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b), for a, b > 0 and x in [0, 1].

    By the continued fraction DLMF 8.17.22, evaluated as Lentz does; relative error about 1e-12 for a + b up to 1e7.
    """
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side
        return 1.0 - beta_cdf(1.0 - x, b, a)
    front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, 1_000_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1.0 + term * d, 1.0 + term / c
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            value *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return min(1.0, math.exp(front) * value / a)


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = p, by bisection down to neighbouring floats."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if beta_cdf(middle, a, b) < p else (low, middle)


def exact_interval(hits: int, n: int, alpha: float = ALPHA) -> Interval:
    """The exact binomial interval of a share (Clopper and Pearson, Biometrika 1934); (0, 1) where nothing was tried.

    No hit of n gives (0, 1 - (alpha/2)^(1/n)). It is never too narrow, and assumes independent trials.
    """
    if n <= 0:
        return 0.0, 1.0
    low = 0.0 if hits == 0 else beta_quantile(alpha / 2, hits, n - hits + 1)
    high = 1.0 if hits == n else beta_quantile(1 - alpha / 2, hits + 1, n - hits)
    return low, high


def paired_interval(only_a: int, only_b: int, n: int, alpha: float = ALPHA) -> Interval:
    """An interval of P(only B) - P(only A) from n pairs: both shares' exact intervals, each at half of alpha.

    It is conservative, and does not shrink to a point where no pair differs.
    """
    a, b = exact_interval(only_a, n, alpha / 2), exact_interval(only_b, n, alpha / 2)
    return max(-1.0, b[0] - a[1]), min(1.0, b[1] - a[0])


def student_quantile(p: float, degrees: int) -> float:
    """Student's t quantile, for 0 < p < 1/2, so negative."""
    x = beta_quantile(2 * p, degrees / 2, 0.5)
    return -math.sqrt(degrees * (1 - x) / x) if x > 0 else -math.inf


def bootstrap(
    units: torch.Tensor,
    statistic: Callable[[torch.Tensor], torch.Tensor],
    *,
    alpha: float = ALPHA,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """The bootstrap interval of ``statistic``, a function of sums over independent units.

    None for less than two units, and where all resamples are the same: they say nothing of other units then.

    units: [units, sums], float64, one row for each unit, such as a sequence.
    statistic: takes sums [..., sums] and returns [...].

    Percentiles are widened for few units by Student's quantile and sqrt(n / (n - 1)) (Hesterberg, The American
    Statistician 2015, section 4.1): without, two to ten units give intervals that are far too narrow.
    """
    n = units.shape[0]
    if n < 2:
        return None
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, (1 << 22) // n)
    found = []
    for start in range(0, resamples, rows):
        drawn = torch.randint(n, (min(rows, resamples - start), n), generator=generator)
        found.append(statistic(units[drawn].sum(1)))
    tail = _NORMAL.cdf(math.sqrt(n / (n - 1)) * student_quantile(alpha / 2, n - 1))
    ordered = torch.cat(found).double().sort().values
    if ordered[0] == ordered[-1]:
        return None
    place = min(int(tail * resamples), resamples - 1)
    return float(ordered[place]), float(ordered[resamples - 1 - place])


def median_interval(values: Sequence[float], alpha: float = ALPHA) -> Interval | None:
    """The interval of a median between two order statistics, exact for independent values of any distribution.

    None for fewer than six values: no two of five hold it with a probability of 95 %.
    """
    n, ordered = len(values), sorted(values)
    rank, below = 0, 0.5**n
    while 2 * below <= alpha:  # of so many or fewer values below the median
        rank += 1
        below += math.comb(n, rank) * 0.5**n
    return None if rank == 0 else (ordered[rank - 1], ordered[n - rank])


def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided exact p of McNemar's test: whether pairs that differ do so as often one way as the other."""
    n, least = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    return min(1.0, 2 * beta_cdf(0.5, n - least, least + 1))


def sign_flip(differences: Sequence[float], seed: int = 0) -> float:
    """The two-sided p of the hypothesis that paired differences are as likely to be positive as negative.

    All signs are tried for up to 14 differences that are not zero, else 16,384 random ones (and those observed). The
    least p for n of them is 2^(1-n): fewer than six decide nothing.
    """
    kept = torch.tensor([one for one in differences if one != 0.0], dtype=torch.float64)
    n = kept.numel()
    if n == 0:
        return 1.0
    if 1 << n <= _FLIPS:
        signs = 1.0 - 2.0 * ((torch.arange(1 << n)[:, None] >> torch.arange(n)) & 1).double()
    else:
        generator = torch.Generator().manual_seed(seed)
        signs = 1.0 - 2.0 * torch.randint(2, (_FLIPS, n), generator=generator).double()
        signs = torch.cat([torch.ones(1, n, dtype=torch.float64), signs])
    sums = (signs @ kept).abs()
    observed = float(kept.sum().abs())
    return float((sums >= observed * (1 - 1e-12)).double().mean())


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for how many there are (Holm, Scandinavian Journal of Statistics 1979), in their order."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    corrected, worst = [1.0] * len(values), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = worst
    return corrected


def paired_size(difference: float, discordant: float, alpha: float = ALPHA, power: float = POWER) -> int:
    """How many pairs decide that two shares differ by ``difference`` (Connor, Biometrics 1987).

    discordant: the share of pairs that differ, at least ``difference``; both in (0, 1].
    """
    discordant = max(discordant, abs(difference))
    a, b = _NORMAL.inv_cdf(1 - alpha / 2), _NORMAL.inv_cdf(power)
    square = difference * difference
    root = a * math.sqrt(discordant) + b * math.sqrt(max(0.0, discordant - square))
    return math.ceil(root * root / square)


def mean_size(mean: float, deviation: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """How many units decide that a mean is not zero, if mean and standard deviation of a unit are these; or None."""
    if not mean or not math.isfinite(mean) or not math.isfinite(deviation):
        return None
    quantile = _NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(power)
    return max(6, math.ceil((quantile * deviation / mean) ** 2))


def size_without_hits(share: float, alpha: float = ALPHA) -> int:
    """How many trials without a hit show that the true share is below ``share``, in (0, 1)."""
    return math.ceil(math.log(alpha / 2) / math.log1p(-share))
