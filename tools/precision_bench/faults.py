"""The ten faults a validator must find, put into kernels, and legal variants to pass (docs/numerics/evaluation.md).

A fault is other arithmetic in the kernel (a rule of the option ``arithmetic``), another kernel, or bytes that change in
what a correct kernel wrote.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from precision_bench.problems import Problem
from torchport.numerics.verdicts.replay import Replay, view

__all__ = [
    "DOT_ORDERS", "NARROW", "SEVERITIES", "Mutant", "Outputs", "blend", "controls", "edited", "faulty_rules",
    "mutants", "outputs_of",
]  # fmt: skip

SEVERITIES = (0.03, 0.1, 0.3, 1.0)
"""How much of a fault's effect is put into the output: rounded once more, for the curve below the noise floor."""

Outputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Mutant:
    """Outputs of a problem with a fault.

    number: of the fault, 1 to 10.
    severity: how much of the fault's effect is in the outputs.
    outputs: by argument.
    cause: what attribution should say.
    """

    number: int
    fault: str
    severity: float
    outputs: Outputs
    cause: str = ""


def outputs_of(problem: Problem, rules: Mapping[str, Any] | None = None, replay: Replay | None = None) -> Outputs:
    """What the kernel writes, with rules of arithmetic or another kernel in its place."""
    after = (replay or problem.replay).run(problem.storages, {"rules": dict(rules)} if rules else None)
    return {one.name: view(one, after[one.storage]).clone() for one in problem.outputs if one.storage is not None}


def blend(right: Outputs, wrong: Outputs, share: float) -> Outputs:
    """The fault's effect scaled down, rounded to the output's type. Integers and what is not finite: all or nothing."""
    mixed = {}
    for name, good in right.items():
        bad = wrong[name]
        if not good.dtype.is_floating_point or share == 1.0:
            mixed[name] = bad
            continue
        wide, other = good.double(), bad.double()
        between = wide + share * (other - wide)
        mixed[name] = torch.where(torch.isfinite(wide) & torch.isfinite(other), between, other).to(good.dtype)
    return mixed


_CUT, NARROW = "truncating accumulation", "narrow accumulator"
_UNITS = ((4, 23), (8, 24), (16, 25), (2, 23), (32, 24))
"""Terms a step and bits kept of units that truncate; attribution knows some of them."""

_BF16_SUM, _F16_SUM = {"reductions": {"accumulator": "bf16"}}, {"reductions": {"accumulator": "f16"}}
_IN_ORDER_RZ = {"reductions": {"order": "sequential", "rounding": "rz"}}
_E8M13 = {"dot": {"group": 32, "fraction": 13, "rounding": "rz", "accumulator": "e8m13"}}


def faulty_rules(
    traits: Collection[str], functions: Sequence[str], dtype: str, turn: int
) -> Iterator[tuple[int, str, str, dict[str, Any]]]:
    """(number, fault, cause, rules) of the faults that are arithmetic."""
    if "dot" in traits:
        group, fraction = _UNITS[turn % len(_UNITS)]
        unit = {"group": group, "fraction": fraction, "rounding": "rz"}
        yield 2, f"products added up toward zero, {group} by {group}", _CUT, {"dot": unit}
        if dtype == "fp32":
            yield 3, "TF32 instead of IEEE", "TF32 inputs", {"dot": {"inputs": "tf32"}}
        if dtype == "bf16":
            yield 3, "bf16 sums in a product", NARROW, {"dot": {"accumulator": "bf16"}}
        yield 4, "13-bit accumulator", "13-bit accumulator", _E8M13
    if "sum" in traits:
        yield 2, "sums rounded toward zero", _CUT, _IN_ORDER_RZ
        yield 7, "sums in bf16", NARROW, _BF16_SUM
        yield 7, "sums in fp16", NARROW, _F16_SUM
    if "gradient" in traits:
        flush = {"f32": "flush", "bf16": "flush", "f16": "flush"}
        yield 5, "denormals flushed", "flushed denormals", {"denormals": flush}
    for name in functions:
        for low, high in ((0.5, 0.6), (-1.0, -0.9), (2.0, 2.5)):
            rule = {"ulp": 4096, "range": [low, high]}
            yield 9, f"{name} off by 4,096 ULP in [{low}, {high}]", _FUNCTIONS, {"functions": {name: rule}}
        yield 9, f"{name} off by 64 ULP", _FUNCTIONS, {"functions": {name: {"ulp": 64}}}


_FUNCTIONS = "approximate functions"


def edits(right: Outputs, generator: torch.Generator) -> Iterator[tuple[int, str, Outputs]]:
    """(number, fault, outputs) of the faults that are wrong bytes."""
    for name, good in right.items():
        if not good.dtype.is_floating_point:
            continue
        flat = good.reshape(-1)
        n = flat.numel()

        def changed(index: torch.Tensor, values: torch.Tensor, name: str = name, flat: torch.Tensor = flat) -> Outputs:
            copy = flat.clone()
            copy[index] = values.to(copy.dtype)
            return {**right, name: copy.reshape(right[name].shape)}

        start = int(torch.randint(0, max(1, n - 8), (), generator=generator))
        tile = torch.arange(start, min(n, start + 8))
        yield 1, "one tile of zeros", changed(tile, torch.zeros(len(tile)))
        yield 1, "one tile moved by one", changed(tile, flat[(tile + 1) % n])
        yield 1, "last element not written", changed(torch.tensor([n - 1]), torch.tensor([float("nan")]))
        yield 6, "saturated", changed(tile[:1], torch.tensor([torch.finfo(good.dtype).max]))
        yield 6, "infinity where a number is", changed(tile[:1], torch.tensor([float("inf")]))
        stale = torch.randint(0, n, (max(1, n // 1000),), generator=generator)
        yield 8, "stale values in a thousandth of the elements", changed(stale, flat[torch.flip(stale, (0,)) - 1])
    for name, good in right.items():
        if good.dtype == torch.int64:
            moved = good.clone()
            moved[:: max(1, moved.numel() // 2)] += 1
            yield 10, "wrong expert for two tokens", {**right, name: moved}


def edited(right: Outputs, generator: torch.Generator) -> Iterator[Mutant]:
    """Results of which some are other bytes, with every severity that makes sense."""
    for number, fault, wrong in edits(right, generator):
        small = number in (6, 10) or "not written" in fault
        for severity in (1.0,) if small else (1e-6, 1e-4, 1e-2, 1.0):
            yield Mutant(number, fault, severity, blend(right, wrong, severity))


def mutants(problem: Problem, dtype: str, generator: torch.Generator) -> Iterator[Mutant]:
    """Faults that apply to the problem, with every severity that makes sense for them."""
    right = outputs_of(problem)
    turn = int(torch.randint(len(_UNITS), (), generator=generator))
    for number, fault, cause, rules in faulty_rules(problem.traits, problem.functions, dtype, turn):
        wrong = outputs_of(problem, rules)
        for severity in SEVERITIES:
            yield Mutant(number, fault, severity, blend(right, wrong, severity), cause)
    yield from edited(right, generator)
    if problem.narrow is not None:
        wrong = outputs_of(problem, replay=problem.narrow)
        for severity in SEVERITIES:
            yield Mutant(7, "no upcast to fp32", severity, blend(right, wrong, severity), NARROW)
    if problem.shorter is not None:
        yield Mutant(1, "tail mask off by one", 1.0, outputs_of(problem, replay=problem.shorter))


DOT_ORDERS = (
    {"order": "reversed"}, {"order": "split:2"}, {"order": "split:4"}, {"order": "strided:2"}, {"order": "strided:4"},
    {"group": 2}, {"group": 4}, {"group": 8}, {"group": 16}, {"group": 0}, {"group": 4, "within": "pairwise"},
    {"group": 8, "within": "pairwise"}, {"group": 4, "within": "sequential"}, {"accumulator": "f64"},
    {"group": 8, "order": "split:2"}, {"group": 4, "order": "reversed"},
)  # fmt: skip
_SUM_ORDERS = tuple(
    {"order": order} for order in ("sequential", "reversed", "pairwise", "split:2", "split:4", "split:8", "split:16")
)


def controls(problem: Problem) -> Iterator[tuple[str, Outputs]]:
    """Legal variants: other orders, split sums, contraction, functions within their promise, casts left out."""
    for contract in (True, False):
        yield f"fma {contract}", outputs_of(problem, {"fma": contract})
    yield "casts elided", outputs_of(problem, {"casts": {"elide": True}})
    if "sum" in problem.traits:
        for order in _SUM_ORDERS:
            yield f"sums {order['order']}", outputs_of(problem, {"reductions": order})
            yield f"sums {order['order']}, no fma", outputs_of(problem, {"reductions": order, "fma": False})
    if "dot" in problem.traits:
        for rule in DOT_ORDERS:
            yield f"dot {rule}", outputs_of(problem, {"dot": rule})
    for name in problem.functions:
        for ulp in (0.5, 1, 2):
            yield f"{name} within {ulp} ULP", outputs_of(problem, {"functions": {name: {"ulp": ulp}}})
            if "sum" in problem.traits:
                rules = {"functions": {name: {"ulp": ulp}}, "reductions": {"order": "sequential"}}
                yield f"{name} within {ulp} ULP, sums in order", outputs_of(problem, rules)
