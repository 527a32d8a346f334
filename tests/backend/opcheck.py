"""Check a family of operations in one compiled function against float64, with a bound for every element.

The bound follows from the dtype and the operation. With u the unit roundoff and spacing(y) the distance between
neighbouring numbers of a dtype at magnitude |y|:

    |y - y64| <= spacing_out(y64) / 2      the last rounding, where the operation computes in a wider dtype
               + ulps * spacing_c(y64)     the operation's own error in the dtype c it computes in
               + u_c * shadow              operations that cancel: the magnitude that was lost (sum of |terms|, ...)

c is float32 for float16 and bfloat16, else the dtype itself. Where eager is worse than that at an element, eager's own
error there is allowed. float64 has no better reference: it is compared with eager, both errors counted. NaN and the
infinities must be where eager has them, and zeros must have eager's sign, or that of float64 (`exact_zero`). Integers
and bools must be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accuracy import InFloat64, classes_differ
from torch._dynamo.exc import BackendCompilerFailed

Function = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Op:
    """One operation of a family.

    `ulps`: error bound in ulps of the dtype computed in. `shadow(*inputs64)`: see the module. `signed_zero`: whether
    the sign of a zero result is defined (it is not for sums whose terms may be taken in any order). `exact_zero`: that
    sign is the float64 reference's, for an operation whose sign of zero in eager depends on the machine. `exact`: a
    more accurate form of `fn` for the reference, where float64 eager is the less accurate one.
    """

    fn: Function
    ulps: float = 1.0
    shadow: Function | None = None
    signed_zero: bool = True
    exact_zero: bool = False
    exact: Function | None = None


Family = Mapping[str, Op]


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that operations on `dtype` compute in."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def spacing(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Distance between neighbouring numbers of `dtype` at the magnitude of `value`, float64, subnormals included."""
    info = torch.finfo(dtype)
    _, exponent = torch.frexp(value.abs().clamp(max=info.max))
    gap = torch.ldexp(torch.full_like(value, info.eps), exponent - 1)
    return torch.where(value == 0, 0.0, gap).clamp(min=info.tiny * info.eps)  # frexp gives 0 the exponent of 0.5


def in_float64(fn: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> Any:
    """Run `fn` in float64 on copies of `inputs`."""
    wide = [x.to(torch.float64, copy=True) if x.is_floating_point() else x.clone() for x in inputs]
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # what integers are promoted to
    try:
        with InFloat64():
            return fn(*wide)
    finally:
        torch.set_default_dtype(default)


def check(family: Family, inputs: tuple[torch.Tensor, ...], backend: str, *, dynamic: bool | None = None) -> None:
    """Compile all operations of the family as one function and check every result.

    Raises AssertionError with one line for each wrong operation; where the family does not compile, it names the
    operations that do not compile alone.
    """

    def together(*args: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: op.fn(*args) for name, op in family.items()}

    def exactly(*args: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: (op.exact or op.fn)(*args) for name, op in family.items()}

    eager = together(*inputs)
    reference = in_float64(exactly, inputs)
    try:
        compiled = torch.compile(together, backend=backend, dynamic=dynamic, fullgraph=True)(*inputs)
    except BackendCompilerFailed as error:
        raise AssertionError("\n".join(culprits(family, inputs, backend, dynamic, error))) from error
    problems = []
    for name, op in family.items():
        problems += [f"{name}: {p}" for p in judge(op, compiled[name], eager[name], reference[name], inputs)]
    kinds = ", ".join(f"{x.dtype} {tuple(x.shape)}" for x in inputs)
    assert not problems, f"{backend} on ({kinds}):\n" + "\n".join(problems)


def culprits(
    family: Family, inputs: tuple[torch.Tensor, ...], backend: str, dynamic: bool | None, error: Exception
) -> list[str]:
    """The operations that do not compile by themselves, with the last line of their message."""
    found = []
    for name, op in family.items():
        torch._dynamo.reset()
        try:
            torch.compile(op.fn, backend=backend, dynamic=dynamic, fullgraph=True)(*inputs)
        except BackendCompilerFailed as single:
            found.append(f"{name} does not compile: {last_line(single)}")
    return found or [f"the family does not compile, though each operation alone does: {last_line(error)}"]


def last_line(error: Exception) -> str:
    """The line of a compiler error that says what is wrong: the first of the innermost exception."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return f"{type(error).__name__}: {str(error)[:300]}"


def judge(
    op: Op, got: torch.Tensor, eager: torch.Tensor, reference: torch.Tensor, inputs: tuple[torch.Tensor, ...]
) -> list[str]:
    """What is wrong with one result; an empty list is a pass."""
    if got.dtype != eager.dtype or got.shape != eager.shape:
        return [f"{got.dtype} {tuple(got.shape)}, eager gives {eager.dtype} {tuple(eager.shape)}"]
    if not eager.is_floating_point():
        wrong = got != eager
        return [describe(wrong, got, eager)] if wrong.any() else []
    problems = []
    if classes_differ(got, reference.to(got.dtype)) and (differ := classes_differ(got, eager)):
        problems.append(differ)
    allowed = bound(op, eager, reference, inputs)
    finite = torch.isfinite(got) & torch.isfinite(eager) & torch.isfinite(reference)
    wrong = finite & ((got.to(torch.float64) - reference).abs() > allowed)
    if wrong.any():
        ratio = ((got.to(torch.float64) - reference).abs() / allowed)[wrong].max()
        problems.append(f"{describe(wrong, got, reference)}, worst {float(ratio):.3g}x the bound")
    if op.signed_zero:
        expected = reference if op.exact_zero else eager
        zero = (got == 0) & (op.exact_zero | (eager == 0))
        wrong = zero & (torch.signbit(got) != torch.signbit(expected))
        if wrong.any():
            problems.append(f"sign of zero: {describe(wrong, got, expected)}")
    return problems


def bound(op: Op, eager: torch.Tensor, reference: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The allowed absolute error of every element, float64."""
    compute = compute_dtype(eager.dtype)
    ulps = 2 * op.ulps if eager.dtype == torch.float64 else op.ulps
    allowed = ulps * spacing(reference, compute)
    if compute != eager.dtype:
        allowed = allowed + spacing(reference, eager.dtype) / 2
    if op.shadow is not None:
        allowed = allowed + torch.finfo(compute).eps / 2 * in_float64(op.shadow, inputs).abs()
    return torch.maximum(allowed, (eager.to(torch.float64) - reference).abs())


def describe(wrong: torch.Tensor, got: torch.Tensor, expected: torch.Tensor) -> str:
    """How many elements are wrong, and the first of them."""
    first = tuple(wrong.nonzero()[0].tolist())
    return f"{int(wrong.sum())} of {wrong.numel()} wrong, first at {first}: {got[first]} for {expected[first]}"
