"""Operators of aten as problems: products, convolutions and attention, their legal variants and faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from precision_bench.faults import DOT_ORDERS, SEVERITIES, Mutant, Outputs, blend, edited, faulty_rules
from precision_bench.judging import NOISE, JudgedVariant, judge_variants
from precision_bench.operator_variants import attention_faults, attention_variants, factors_of, product_variants
from precision_bench.problems import DISTRIBUTIONS, DTYPES, draw
from torchport.numerics.graphs.special import RULES
from torchport.numerics.verdicts.operators.attention import attention_of
from torchport.numerics.verdicts.operators.calls import OperatorCall
from torchport.numerics.verdicts.operators.causes import OperatorResult, attribute_operator
from torchport.numerics.verdicts.operators.emulation import computed_by
from torchport.numerics.verdicts.operators.references import spread_of

__all__ = ["OPERATORS", "OPERATOR_SHAPES", "exact_result", "judge_operator", "operator_problems", "other_ways"]

_aten = torch.ops.aten
Draw = Callable[..., torch.Tensor]


def _mm(of: Draw, m: int, k: int) -> OperatorCall:
    return OperatorCall(_aten.mm.default, (of(m, k), of(k, 2 * k if k < 64 else 64)), {})


def _addmm(of: Draw, m: int, k: int) -> OperatorCall:
    n = 2 * k if k < 64 else 64
    return OperatorCall(_aten.addmm.default, (of(n), of(m, k), of(k, n)), {})


def _bmm(of: Draw, m: int, k: int) -> OperatorCall:
    return OperatorCall(_aten.bmm.default, (of(4, m // 4, k), of(4, k, 40)), {})


def _convolution(of: Draw, m: int, k: int) -> OperatorCall:
    """Strided, padded, of two groups and with bias; with many pixels, of one group and without."""
    if m > 1000:
        return OperatorCall(
            _aten.convolution.default,
            (of(1, 3, 64, 48), of(8, 3, 4, 4), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
            {},
        )
    return OperatorCall(
        _aten.convolution.default,
        (of(2, 32, 14, 14), of(24, 16, 3, 3), of(24), [2, 2], [1, 1], [1, 1], False, [0, 0], 2),
        {},
    )


def _attention(of: Draw, m: int, k: int) -> OperatorCall:
    """Few long heads; with many rows, short ones that are causal."""
    size = (1, 4, 256, 32) if m > 1000 else (2, 2, m, 64)
    function = _aten._scaled_dot_product_flash_attention_for_cpu.default
    return OperatorCall(function, (of(*size), of(*size), of(*size)), {"is_causal": m > 1000})


OPERATORS: dict[str, Callable[[Draw, int, int], OperatorCall]] = {
    "aten.mm": _mm, "aten.addmm": _addmm, "aten.bmm": _bmm, "aten.convolution": _convolution,
    "aten.attention": _attention,
}  # fmt: skip
OPERATOR_SHAPES = ((61, 257), (1024, 48))
"""Rows and terms of products; the second one is long and thin."""


def operator_problems(
    names: Sequence[str] = tuple(OPERATORS), shapes: Sequence[tuple[int, int]] = OPERATOR_SHAPES
) -> Iterator[tuple[str, str, str, tuple[int, int]]]:
    """Arguments of ``judge_operator`` for everything there is."""
    for name in names:
        for dtype in ("fp32", "bf16", "fp16"):
            for distribution in DISTRIBUTIONS:
                for shape in shapes:
                    yield name, dtype, distribution, shape


def judge_operator(name: str, dtype: str, distribution: str, shape: tuple[int, int], seed: int) -> list[JudgedVariant]:
    """Everything of one problem, judged as a recorded launch of the operator is, in a process of the pool."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    called = OPERATORS[name](lambda *size: draw(size, DTYPES[dtype], distribution, generator), *shape)
    exact, right = exact_result(called), called.run()[0]
    spread = spread_of(called)
    assert spread is not None, name
    found = {"result": spread.reference(0, exact, right.dtype)}
    noise = spread_of(called, 5000 + seed, orders=False)  # a seed that no verdict has seen
    assert noise is not None, name

    def attributed(outputs: Outputs) -> str:
        shares = attribute_operator(OperatorResult(called, 0, outputs["result"], found["result"], {}, {}))[0].shares
        return shares[0][0] if shares else "nothing"

    return judge_variants(
        JudgedVariant(name, dtype, distribution, shape, 0, "native", 0.0, ""),
        found,
        {"result": right},
        [(what, {"result": value}) for what, value in _legal(called)],
        [{"result": (exact + one[0].reshape(exact.shape)).to(right.dtype)} for one in noise.moved[:NOISE]],
        _mutants(called, dtype, {"result": right}, generator),
        attributed,
    )


def exact_result(called: OperatorCall) -> torch.Tensor:
    """Its first result in float64."""
    wide = called.with_floats(lambda value: value.double())
    rule = RULES.get(str(called.function))
    return rule({}, *wide.args, **wide.kwargs)[0] if rule is not None else wide.run()[0]


def _legal(called: OperatorCall) -> Iterator[tuple[str, torch.Tensor]]:
    """Orders of sums, splits, libraries' other ways."""
    for rule in DOT_ORDERS:
        for backwards in (False, True):
            results = computed_by(called, {"dot": rule}, apart=True, backwards=backwards)
            assert results is not None
            yield f"dot {rule}{', backwards' if backwards else ''}", results[0]
    yield from other_ways(called)


def other_ways(called: OperatorCall) -> Iterator[tuple[str, torch.Tensor]]:
    """The same by PyTorch's own operations."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield "without mkldnn", called.run()[0]
    if (attention := attention_of(called)) is not None:
        yield from attention_variants(attention)
        return
    yield from product_variants(factors_of(called), called.dtype)
    for change in ("transposed", "channels last"):
        yield change, replace(called, args=tuple(_laid_out(one, change) for one in called.args)).run()[0]


def _laid_out(value: Any, change: str) -> Any:
    """The same elements in another order in memory."""
    if not isinstance(value, torch.Tensor) or value.dim() < 2:
        return value
    if change == "channels last":
        return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value.clone()
    return value.mT.contiguous().mT


def _mutants(called: OperatorCall, dtype: str, right: Outputs, generator: torch.Generator) -> Iterator[Mutant]:
    turn = int(torch.randint(5, (), generator=generator))
    for number, fault, cause, rules in faulty_rules(("dot",), (), dtype, turn):
        results = computed_by(called, rules)
        assert results is not None
        for severity in SEVERITIES:
            yield Mutant(number, fault, severity, blend(right, {"result": results[0]}, severity), cause)
    yield from edited(right, generator)
    if (attention := attention_of(called)) is not None:
        for number, fault, wrong in attention_faults(attention):
            for severity in SEVERITIES:
                yield Mutant(number, fault, severity, blend(right, {"result": wrong}, severity))
        return
    factors = factors_of(called)
    shorter = replace(factors, a=factors.a[..., :-1], b=factors.b[..., :-1, :])
    yield Mutant(1, "last term left out", 1.0, {"result": shorter.result(called.dtype)})
    if factors.bias is not None:
        wrong = right["result"].clone()
        last = replace(factors, bias=None).result(called.dtype)
        wrong[-1] = last[-1]
        yield Mutant(1, "no bias in the last row", 1.0, {"result": wrong})
