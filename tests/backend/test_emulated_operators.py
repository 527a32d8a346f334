"""What graphs call besides kernels, in chips' arithmetic: attention, convolutions, products by groups."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matrix_units import unit_sums

from torchport.numerics.emulation.attention import EmulatedAttention
from torchport.numerics.emulation.convolution import convolution, convolution_backward
from torchport.numerics.emulation.dispatch import Emulation
from torchport.runtime import events

_IEEE = json.dumps({"rules": {}})
_NARROW = {"group": 16, "fraction": 13, "rounding": "rz", "accumulator": "e8m13"}  # so narrow that f16 shows it
_CUT = json.dumps({"rules": {"dot": _NARROW}})
_aten = torch.ops.aten
_attention = _aten._scaled_dot_product_flash_attention_for_cpu
_attention_backward = _aten._scaled_dot_product_flash_attention_for_cpu_backward


def _cut_sums(a, b):
    return unit_sums(np.asarray(a, np.float64), np.asarray(b, np.float64), 16, 13, 13)


def test_attention_multiplies_16_bit_operands_on_the_unit():
    """Queries are 0, so weights are 1 before and 1/128 after: what is left is a sum of values, and one of gradients."""
    generator = torch.Generator().manual_seed(1)
    value, grad = (1 + torch.rand(1, 1, 128, 16, generator=generator).half() for _ in range(2))
    query, key, unit = torch.zeros_like(value), torch.randn(1, 1, 128, 16).half(), EmulatedAttention(_CUT, "ieee")
    out, sums = unit.forward(query, key, value)
    expected = _cut_sums(np.ones((128, 128)), value[0, 0].numpy()) / 128
    assert torch.equal(out[0, 0], expected.half()) and (expected < value[0, 0].double().mean(0)).all()
    assert torch.allclose(sums, torch.full_like(sums, math.log(128)))
    _, _, of_value = unit.backward(grad, query, key, value, out, sums, 0.0, False)
    assert torch.equal(of_value[0, 0], _cut_sums(np.full((128, 128), 1 / 128), grad[0, 0].numpy()).half())


def _exact(query, key, value, grad, mask, causal, scale):
    """Attention and its gradients in f64; rows that see nothing are 0."""
    wide = [one.double().requires_grad_() for one in (query, key, value)]
    shared = query.shape[1] // key.shape[1]
    keys, values = (one.repeat_interleave(shared, 1) for one in wide[1:])
    scores = wide[0] @ keys.transpose(-2, -1) * scale
    if mask is not None:
        scores = scores + mask.double()
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -math.inf)
    weights = torch.where(scores.isneginf().all(-1, keepdim=True), 0.0, scores).softmax(-1)
    out = torch.where(scores.isneginf().all(-1, keepdim=True), 0.0, weights) @ values
    return out.detach(), torch.autograd.grad(out, wide, grad.double())


@pytest.mark.parametrize(
    "dtype, lengths, heads, masked, scale, limit",
    [
        pytest.param(torch.float32, (70, 45), (2, 2), True, None, 2e-6, marks=pytest.mark.slow),
        (torch.float32, (70, 70), (4, 2), False, 0.3, 2e-6),
        (torch.float16, (33, 130), (2, 2), True, -0.2, 2e-3),
    ],
)
def test_attention_is_exact_up_to_rounding(dtype, lengths, heads, masked, scale, limit):
    (rows, keys), causal = lengths, not masked
    # Size 24 fills no block; heads lie between positions, as models have them.
    query, grad = (torch.randn(2, rows, heads[0], 24).to(dtype).transpose(1, 2) for _ in range(2))
    key, value = (torch.randn(2, keys, heads[1], 24).to(dtype).transpose(1, 2) for _ in range(2))
    mask = torch.randn(rows, keys) if masked else None
    if mask is not None:
        mask[:, keys // 2] = mask[3] = -math.inf
        mask = mask.to(dtype).expand(2, 1, rows, keys)
    out, grads = _exact(query, key, value, grad, mask, causal, 1 / math.sqrt(24) if scale is None else scale)
    unit = EmulatedAttention(_IEEE, "ieee")
    found, sums = unit.forward(query, key, value, 0.0, causal, attn_mask=mask, scale=scale)
    again = unit.backward(grad, query, key, value, found, sums, 0.0, causal, attn_mask=mask, scale=scale)
    for one, other in zip((found, *again), (out, *grads), strict=True):
        assert one.dtype == dtype and one.shape == other.shape
        assert (one.double() - other).norm() < limit * other.norm()
    if masked:
        assert not found[:, :, 3].any() and sums[:, :, 3].isneginf().all() and not again[0][:, :, 3].any()


def test_attention_of_a_compiled_model_is_emulated_and_laid_out_as_the_operator_does():
    query, key, value = (torch.randn(1, 40, 2, 16).half().transpose(1, 2) for _ in range(3))
    with events.capture() as happened:
        options = {"target": "cpu", "emulate": "h100"}
        found = torch.compile(lambda *a: F.scaled_dot_product_attention(*a), backend="torchport", options=options)(
            query, key, value
        )
    assert not [one for one in happened if isinstance(one, events.Fallback)]
    expected = F.scaled_dot_product_attention(query, key, value)
    assert found.stride() == expected.stride() and (found - expected).abs().max() < 2e-3
    assert "attention" in {one.name for one in happened if isinstance(one, events.Kernel)}


_CONVOLUTIONS = [
    (n, [stride, *[1] * (n - 1)], [padding, *[1] * (n - 1)], [dilation, *[1] * (n - 1)], transposed, groups)
    for n, stride, padding, (dilation, groups), transposed in itertools.product(
        (1, 2, 3), (1, 3), (0, 5), ((1, 1), (2, 2)), (False, True)
    )
]


def test_convolutions_are_these_products():
    """Their geometry alone, with torch's products in f64."""
    tried = 0
    for n, stride, padding, dilation, transposed, groups in _CONVOLUTIONS:
        x = torch.randn(2, 4, *[9, 6, 5][:n], dtype=torch.float64)
        weight = torch.randn(4, 4 // groups, *[3, 2, 3][:n], dtype=torch.float64)
        rest = (
            stride,
            padding,
            dilation,
            transposed,
            [1 if stride[0] > 1 and transposed else 0, *[0] * (n - 1)],
            groups,
        )
        try:
            expected = _aten.convolution(x, weight, None, *rest)
        except RuntimeError:  # nothing is left of the image
            continue
        assert torch.allclose(convolution(torch.bmm, x, weight, None, *rest), expected)
        grad = torch.randn_like(expected)
        found = convolution_backward(torch.bmm, grad, x, weight, None, *rest, [True, True, False])
        others = _aten.convolution_backward(grad, x, weight, None, *rest, [True, True, False])
        assert all(torch.allclose(found[i], others[i]) for i in (0, 1)) and found[2] is None
        tried += 1
    assert tried > 40


@pytest.mark.parametrize("dtype, limit", [(torch.float32, 1e-5), (torch.float16, 3e-3)])
def test_convolutions_are_laid_out_as_the_operators_do(dtype, limit):
    x = torch.randn(2, 4, 9, 7).to(dtype).to(memory_format=torch.channels_last)
    weight, bias, rest = (
        torch.randn(6, 2, 3, 2).to(dtype),
        torch.randn(6).to(dtype),
        ([2, 1], [1, 0], [1, 2], False, [0, 0], 2),
    )
    with Emulation("ieee", _IEEE, "ieee") as mode:
        found = _aten.convolution(x, weight, bias, *rest)
        grad = torch.ones_like(found)
        grads = _aten.convolution_backward(grad, x, weight, [6], *rest, [True, False, True])
    expected = _aten.convolution(x, weight, bias, *rest)
    assert found.stride() == expected.stride() and (found - expected).abs().max() < limit * expected.abs().max()
    others = _aten.convolution_backward(grad, x, weight, [6], *rest, [True, False, True])
    assert grads[1] is None and grads[0].stride() == others[0].stride()
    assert all((grads[i] - others[i]).abs().max() < limit * others[i].abs().max() for i in (0, 2))
    assert not mode.noted


def test_gradients_of_weights_are_one_sum_on_the_unit():
    x, grad = (1 + torch.rand(2, 3, 5, 5).half()), 1 + torch.rand(2, 4, 5, 5).half()
    weight = torch.zeros(4, 3, 3, 3).half()
    rest = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    with Emulation("narrow", _CUT, "ieee"):
        _, found, _ = _aten.convolution_backward(grad, x, weight, None, *rest, [False, True, False])
    columns = F.unfold(x.double(), 3, padding=1).transpose(1, 2).reshape(50, 27)
    left = grad.transpose(0, 1).reshape(4, 50).double()
    assert torch.equal(found.reshape(4, 27), _cut_sums(left, columns).half())


def test_nothing_to_convolve():
    x, weight = torch.randn(0, 4, 5, 5), torch.randn(6, 4, 3, 3)
    with Emulation("narrow", _CUT, "ieee") as mode:
        assert _aten.convolution(x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1).shape == (0, 6, 3, 3)
    assert mode.noted  # says that it did not run on the unit


def test_products_of_scaled_8_bit_floats():
    a, b = torch.randn(20, 64).to(torch.float8_e4m3fn), torch.randn(24, 64).to(torch.float8_e4m3fn).t()
    scale_a, scale_b, bias = torch.rand(20, 1), torch.rand(1, 24), torch.randn(24).bfloat16()
    with Emulation("ieee", _IEEE, "ieee") as mode:
        found = torch._scaled_mm(a, b, scale_a, scale_b, bias, out_dtype=torch.bfloat16)
    exact = (a.double() @ b.double()) * scale_a * scale_b + bias
    assert not mode.noted and (found.double() - exact).abs().max() < 2.0**-8 * exact.abs().max()


@torch.library.custom_op("torchport_test::two_products", mutates_args=())
def _two_products(a: torch.Tensor) -> torch.Tensor:
    return (a @ a) @ a


def test_operators_made_of_products_are_emulated_and_others_noted():
    a = 1 + torch.rand(16, 16).half()
    with Emulation("narrow", _CUT, "ieee") as mode:
        found = _two_products(a)
        torch.linalg.matrix_exp(a.float())
    once = _cut_sums(a.numpy(), a.numpy()).half()
    assert torch.equal(found, _cut_sums(once.numpy(), a.numpy()).half())
    assert mode.noted == {"aten.linalg_matrix_exp.default"}


@pytest.mark.parametrize("profile", ["webgpu", "opencl"])
def test_errors_that_grow_with_the_argument_have_none_at_infinity(profile):
    """Masks hold -inf: exp of it is 0 on every chip, also on one whose error is so many units for each unit of x."""
    x = torch.tensor([-math.inf, -1e38, -200.0, -1.0, 0.0, 1.0, 80.0, math.inf, math.nan])
    found = torch.compile(torch.exp, backend="torchport", options={"emulate": profile}, dynamic=False)(x)
    assert torch.equal(found.isnan(), x.isnan()) and torch.equal(found.isinf(), x.exp().isinf())
    finite = x[3:7]
    off = (found[3:7].double() / finite.double().exp() - 1).abs()
    assert (off <= (3 + 2 * finite.abs()) * 2**-23).all() and (found[:3] == x[:3].exp()).all()
