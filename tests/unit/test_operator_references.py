"""How far legal arithmetic moves operators: against sums really rounded, term by term, and counts of terms."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import torchport.ops.attention.sdpa  # noqa: F401  it defines an operator
from torchport.numerics.graphs.special import RULES
from torchport.numerics.runs.reader import Launch
from torchport.numerics.verdicts.operators.attention import attention_of
from torchport.numerics.verdicts.operators.calls import OperatorCall
from torchport.numerics.verdicts.operators.noise import noisy_nodes
from torchport.numerics.verdicts.operators.references import sigmas_of, spread_of
from torchport.numerics.verdicts.verdict import judge_tensor

aten = torch.ops.aten
UNIT = 2.0**-24


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def call(function: Any, *args: Any, **kwargs: Any) -> OperatorCall:
    return OperatorCall(function.default, args, kwargs)


def sigmas(called: OperatorCall) -> list[torch.Tensor]:
    found = sigmas_of(called)
    assert found is not None
    return found


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("terms", [16, 600])
def test_sigma_is_what_adding_one_term_after_the_other_gives(terms: int, positive: bool) -> None:
    a, b = draw(40, terms), draw(terms, 30)
    if positive:
        a, b = a.abs(), b.abs()
    total = torch.zeros(40, 30)
    for k in range(terms):
        total = torch.addcmul(total.double(), a[:, k, None].double(), b[None, k].double()).float()  # one fma
    (sigma,) = sigmas(call(aten.mm, a, b))
    z = (total.double() - a.double() @ b.double()) / sigma
    # Rounding errors are 0.73 of their bound in the mean; terms that cancel do not have the sum's part, too.
    low, high = (0.7, 0.76) if positive else (0.5, 0.6)
    assert low < float(z.square().mean().sqrt()) < high


def test_sigma_is_of_the_terms_not_of_the_sizes_of_operands() -> None:
    a, b = draw(5000, 8), draw(8, 4)
    (sigma,) = sigmas(call(aten.mm, a, b))
    torch.testing.assert_close(sigma[:7], sigmas(call(aten.mm, a[:7], b))[0])
    sparse = torch.cat([a, torch.zeros(5000, 900)], 1), torch.cat([b, draw(900, 4)])
    torch.testing.assert_close(sigmas(call(aten.mm, *sparse))[0], sigma)


def expected(terms: torch.Tensor) -> torch.Tensor:
    """Sigma of sums over the last dimension."""
    n = torch.count_nonzero(terms, -1)
    return UNIT / math.sqrt(3) * (n / 2 * terms.square().sum(-1) + n / 3 * terms.sum(-1).square()).sqrt()


def test_factors_and_biases_count_as_terms() -> None:
    bias, a, b = draw(3), draw(5, 7), draw(7, 3)
    wide = torch.einsum("mk,kn->mnk", a.double(), b.double())
    (sigma,) = sigmas(call(aten.addmm, bias, a, b, alpha=0.5, beta=2))
    torch.testing.assert_close(sigma, expected(torch.cat([wide / 2, bias.double().expand(5, 3)[..., None] * 2], -1)))
    (sigma,) = sigmas(call(aten.addmm, bias, a, b, beta=0))
    torch.testing.assert_close(sigma, expected(wide))


def test_convolutions_count_what_each_result_adds_up() -> None:
    x, weight = draw(2, 4, 6, 6), draw(6, 2, 3, 3)
    geometry = ([2, 2], [1, 1], [1, 1], False, [0, 0], 2)
    (sigma,) = sigmas(call(aten.convolution, x, weight, None, *geometry))
    columns = torch.nn.functional.unfold(x.double(), (3, 3), 1, 1, 2).reshape(2, 2, 18, -1)
    terms = torch.einsum("ngkp,gok->ngopk", columns, weight.double().reshape(2, 3, 18))
    torch.testing.assert_close(sigma, expected(terms).reshape(sigma.shape))

    gradient = draw(*sigma.shape)
    found = sigmas(call(aten.convolution_backward, gradient, x, weight, [6], *geometry, [True, True, True]))
    terms = torch.einsum("ngop,ngkp->goknp", gradient.double().reshape(2, 2, 3, 9), columns).flatten(-2)
    torch.testing.assert_close(found[1], expected(terms).reshape(weight.shape))
    torch.testing.assert_close(found[2], expected(gradient.double().transpose(0, 1).flatten(1)))
    assert found[0].shape == x.shape


def test_gradients_of_embeddings_add_up_in_their_own_type() -> None:
    gradient, places = draw(9, 4).bfloat16(), torch.tensor([0, 2, 2, 2, 0, 2, 2, 2, 2])
    (sigma,) = sigmas(call(aten.embedding_dense_backward, gradient, places, 4, -1, False))
    wanted = expected(gradient.double()[places == 2].T) * 2**16
    torch.testing.assert_close(sigma[2], wanted)
    assert not sigma[1].any()


def test_sums_by_index_count_what_comes_to_one_place_and_integers_have_no_spread() -> None:
    values, places = draw(6, 3), [torch.tensor([1, 1, 1, 0, 3, 1])]
    whole = draw(4, 3)
    (sigma,) = sigmas(call(aten.index_put_, whole, places, values, True))
    terms = torch.cat([whole[1:2], values[places[0] == 1]]).double().T
    torch.testing.assert_close(sigma[1], expected(terms))
    torch.testing.assert_close(whole, draw(4, 3))  # the recorded tensor is as it was
    assert sigmas_of(call(aten.index_put_, whole.long(), places, values.long(), True)) is None
    assert sigmas_of(call(aten.relu, whole)) is None


def attention(
    dtype: torch.dtype, causal: bool = False, mask: torch.Tensor | None = None, ours: bool = False
) -> OperatorCall:
    q, k, v = (draw(2, 3, 40, 32, seed=one).to(dtype) for one in range(3))
    function = torch.ops.torchport.sdpa if ours else aten._scaled_dot_product_flash_attention_for_cpu
    return call(function, q, k, v, 0.0, causal, attn_mask=mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["plain", "causal", "masked"])
@pytest.mark.parametrize("ours", [False, True])
def test_attention_as_it_is_passes_and_narrow_scores_do_not(dtype: torch.dtype, kind: str, ours: bool) -> None:
    mask = None
    if kind == "masked":
        mask = (
            torch.zeros(40, 40).masked_fill(torch.rand(40, 40, generator=torch.Generator()) < 0.3, -math.inf).to(dtype)
        )
        mask[7] = -math.inf
        mask = mask[None, None]
    called = attention(dtype, kind == "causal", mask, ours)
    wide = called.with_floats(lambda value: value.double())
    exact = RULES[str(called.function)]({}, *wide.args, **wide.kwargs)
    one = attention_of(called)
    assert one is not None
    spread = spread_of(called, orders=False)
    assert spread is not None
    expectations = [
        spread.reference(index, y64, y.dtype) for index, (y64, y) in enumerate(zip(exact, called.run(), strict=True))
    ]
    apart = one.by(lambda a, b: a.float() @ b.float())
    for results in (called.run(), apart):
        levels = [judge_tensor(y, found).level for y, found in zip(results, expectations, strict=True)]
        assert set(levels) <= {"EXACT", "EXPECTED"}
    narrow = torch.bfloat16 if dtype == torch.float32 else dtype
    wrong = one.by(lambda a, b: (a.float() @ b.float()).to(narrow).float())[0]
    assert judge_tensor(wrong, expectations[0]).level in ("SUSPECT", "FAIL")


def test_an_operand_moves_by_its_own_type_and_not_by_that_of_another() -> None:
    """A scale in f32 beside an fp8 operand."""
    read = {"x": draw(64).to(torch.float8_e4m3fn), "scale": draw(64)}
    changed: dict[str, torch.Tensor] = {}

    def evaluated(launch: Any, values: dict[str, torch.Tensor], assume: bool) -> dict[str, torch.Tensor]:
        changed.update(values)
        return {}

    observed = SimpleNamespace(read_by=lambda launch: read, left_by=lambda launch: {})
    recorded: Any = SimpleNamespace(
        observed=observed, graph=SimpleNamespace(inputs={}), reference=SimpleNamespace(of_launch=evaluated)
    )
    noisy_nodes(recorded, Launch(0, "g", 0, "extern", operation="aten.mul.Tensor"), 0)
    moved = {name: float((changed[name] / value.double() - 1).abs().nan_to_num().max()) for name, value in read.items()}
    assert 2**-6 < moved["x"] <= 2**-4
    assert 0 < moved["scale"] <= UNIT
