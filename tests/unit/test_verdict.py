"""Measures and gates: what is legal passes, what is not is named."""

from __future__ import annotations

import math

import pytest
import torch

from torchport.arithmetic.formats import format_of
from torchport.arithmetic.spacing import spacing
from torchport.numerics.verdicts.classes import allowed_classes, class_errors
from torchport.numerics.verdicts.measure import BINS, excess, measure, root
from torchport.numerics.verdicts.references import Reference, reference_of
from torchport.numerics.verdicts.verdict import judge_tensor, worst_level

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def noisy(exact: torch.Tensor, size: float, count: int = 16) -> list[torch.Tensor]:
    return [exact * (1 + size * numbers(*exact.shape, seed=100 + i)) for i in range(count)]


def made(dtype: torch.dtype = torch.float32, size: float = 2.0**-22, n: tuple[int, ...] = (64, 100)) -> Reference:
    exact = numbers(*n)
    return reference_of(exact, exact.to(dtype), noisy(exact, size))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_spacing_is_the_distance_between_neighbours(dtype: torch.dtype) -> None:
    format_, info = format_of(dtype), torch.finfo(dtype)
    one = torch.tensor([1.0, 1.5, 2.0, 0.0, info.smallest_normal / 2], dtype=torch.float64)
    least = float(torch.finfo(dtype).smallest_normal * info.eps)
    assert spacing(one, format_).tolist() == [info.eps, info.eps, 2 * info.eps, least, least]
    assert format_.unit == info.eps / 2


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float64, torch.float8_e4m3fnuz], ids=str)
def test_the_table_of_formats_agrees_with_pytorch(dtype: torch.dtype) -> None:
    format_, info = format_of(dtype), torch.finfo(dtype)
    assert (format_.unit, 2.0**format_.least, format_.largest) == (info.eps / 2, info.smallest_normal, info.max)
    assert format_.infinities == bool(torch.tensor(torch.inf).to(dtype).float().isinf())


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_no_excess_of_what_is_correctly_rounded(dtype: torch.dtype) -> None:
    grid = torch.linspace(-3, 3, 4001, dtype=torch.float64)
    y = grid.float().to(dtype).double()  # every value here is far from a tie of f32
    assert float(excess(y, grid, format_of(dtype)).max()) <= 3 * 2.0**-24


def test_excess_below_a_power_of_two_counts_from_the_nearer_neighbour() -> None:
    format_ = format_of(torch.float32)
    y, eps = torch.tensor([1.0], dtype=torch.float64), 2.0**-23
    assert float(excess(y, y - eps / 4, format_)) == 0
    assert float(excess(y, y - eps / 2, format_)) == eps / 4
    assert float(excess(y, y + eps / 2, format_)) == 0


def test_figures_of_known_errors() -> None:
    exact = torch.full((4, 8), 1.0, dtype=torch.float64)
    y = exact.float()
    y[1, 2] += 4 * 2.0**-23
    errors = measure(y, exact, torch.full_like(exact, 2.0**-23))
    assert errors.maximum == 4.0
    assert errors.z_max == 3.5  # half a unit is the final rounding
    assert errors.worst[0] == (10, float(y[1, 2]), 1.0)
    assert errors.misrounded == 1 / 32
    assert errors.balance == 1.0
    assert len(errors.ulp_histogram) == BINS
    assert sum(errors.ulp_histogram) == 32
    assert errors.ulp_histogram[0] == 31
    assert errors.relative_l2 == pytest.approx(4 * 2.0**-23 / math.sqrt(32))


def test_an_empty_tensor_is_exact() -> None:
    empty = torch.zeros(0, 3, dtype=torch.float64)
    assert judge_tensor(empty.float(), reference_of(empty, empty.float(), [empty, empty])).level == "EXACT"


@pytest.mark.parametrize("dtype", FLOATS[:3], ids=str)
def test_legal_noise_passes_whatever_the_type(dtype: torch.dtype) -> None:
    found = made(dtype)
    for seed in range(20):
        y = (found.values * (1 + 2.0**-22 * numbers(64, 100, seed=seed))).to(dtype)
        assert judge_tensor(y, found).level in ("EXACT", "EXPECTED"), judge_tensor(y, found)


@pytest.mark.parametrize("dtype", FLOATS[:3], ids=str)
def test_one_wrong_tile_fails(dtype: torch.dtype) -> None:
    found = made(dtype)
    y = found.values.to(dtype)
    y[3, 8:16] = 0
    verdict = judge_tensor(y, found)
    assert verdict.level == "FAIL"
    assert verdict.errors is not None
    assert {index for index, _, _ in verdict.errors.worst} <= set(range(308, 316))


def test_narrow_arithmetic_behind_a_narrow_output_fails() -> None:
    """Errors a fortieth of the output's own rounding: no tolerance of the output's type shows them."""
    found = made(torch.bfloat16)
    y = (found.values * (1 + 2.0**-14 * numbers(64, 100, seed=1))).to(torch.bfloat16)
    assert judge_tensor(y, found).level == "FAIL"


def test_truncation_is_a_bias() -> None:
    found = made()
    y = (found.values * (1 - 2.0**-22)).float()
    verdict = judge_tensor(y, found)
    assert verdict.level in ("SUSPECT", "FAIL")
    assert any("biased" in reason for reason in verdict.reasons)
    assert verdict.errors is not None
    assert verdict.errors.balance < -0.99


def test_suspect_is_up_to_twice_the_limit() -> None:
    found = made()
    assert found.limits is not None
    assert found.sigma is not None
    y = found.values.clone()
    y[0, 0] += 1.5 * found.limits.element * found.sigma[0, 0]
    assert judge_tensor(y.float(), found).level == "SUSPECT"
    y[0, 0] += found.limits.element * found.sigma[0, 0]
    assert judge_tensor(y.float(), found).level == "FAIL"


@pytest.mark.parametrize(
    ("value", "exact", "reason"),
    [
        (math.nan, 1.0, "NaN instead of a number"),
        (math.inf, 1.0, "infinity instead of a number"),
        (-math.inf, math.inf, "infinity of the other sign"),
        (65504.0, math.inf, "largest number instead of infinity"),
        (1.0, math.inf, "number instead of infinity"),
        (0.0, math.nan, "zero instead of NaN"),
        (3.0, math.nan, "number instead of NaN"),
        (math.inf, math.nan, "infinity instead of NaN"),
        (math.nan, math.inf, "NaN instead of infinity"),
    ],
)
def test_classes_that_are_not_allowed_are_named(value: float, exact: float, reason: str) -> None:
    y64 = torch.tensor([1.0, exact], dtype=torch.float64)
    allowed = allowed_classes(y64, torch.full((2,), 1e-9, dtype=torch.float64), [], torch.float16)
    assert class_errors(torch.tensor([1.0, value], dtype=torch.float16), allowed) == {reason: 1}


def test_next_to_the_largest_number_infinity_is_legal() -> None:
    y64 = torch.tensor([65519.9, 70000.0, 60000.0], dtype=torch.float64)
    allowed = allowed_classes(y64, torch.full((3,), 1.0, dtype=torch.float64), [], torch.float16)
    inf = torch.full((3,), math.inf, dtype=torch.float16)
    assert class_errors(inf, allowed) == {"infinity instead of a number": 1}


def test_flushed_denormals_fail_though_no_norm_shows_them() -> None:
    exact = numbers(32, 32)
    exact[5] *= 1e-40
    found = reference_of(exact, exact.float(), noisy(exact, 2.0**-24))
    y = exact.float()
    y[5] = 0
    verdict = judge_tensor(y, found)
    assert verdict.level == "FAIL"
    assert verdict.errors is not None
    assert verdict.errors.relative_l2 < 1e-7


def test_integers_may_be_what_a_variant_gives_and_nothing_else() -> None:
    exact = torch.tensor([3, 1, 4])
    found = reference_of(exact, exact, [exact, torch.tensor([3, 1, 5])])
    assert judge_tensor(exact, found).level == "EXACT"
    turned = judge_tensor(torch.tensor([3, 1, 5]), found)
    assert (turned.level, len(turned.reasons)) == ("EXPECTED", 1)
    assert judge_tensor(torch.tensor([3, 2, 4]), found).level == "FAIL"


def test_other_shapes_types_and_canaries_fail() -> None:
    found = made()
    assert judge_tensor(found.values.to(torch.float16), found).level == "FAIL"
    assert judge_tensor(found.values.float()[:3], found).level == "FAIL"
    assert "never written" in judge_tensor(found.values.float(), found, canaries=2).reasons[0]


def test_worst_level() -> None:
    assert worst_level(["EXACT", "SUSPECT", "EXPECTED"]) == "SUSPECT"
    assert worst_level([]) == "UNVERIFIED"


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2048,), (2049,), (38, 64), (3, 7, 129), (40000,)])
def test_roots_have_the_bits_of_torch_s(shape: tuple[int, ...]) -> None:
    """Also where they are computed in parts; of denormals, infinities and NaN, and of views."""
    n = math.prod(shape)
    values = (numbers(n).abs() * torch.exp2(1000 * numbers(n, seed=1).clamp(-1, 1))).reshape(shape)
    flat = values.reshape(-1)
    for start, special in enumerate((0.0, -0.0, 5e-324, math.inf, math.nan, -1.0)):
        flat[start::97] = special
    for view in (values, values.transpose(0, -1).contiguous().transpose(0, -1) if values.dim() else values):
        assert torch.equal(root(view).view(torch.int64), view.sqrt().view(torch.int64))
        assert root(view).shape == view.shape
