"""Cases of Triton's language, element by element: loads and stores, arithmetic, comparisons, functions, casts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from torchport.conformance.bounds import DEFAULT_ULP, equal, function_bound, within
from torchport.conformance.case import Bench, Case, Measured
from torchport.conformance.kernels import Guarded, check, launch
from torchport.conformance.values import FLOATS, FP8, INTEGERS, TORCH, draw, exact, flushed, is_float

__all__ = ["cases", "elementwise"]

_BLOCK = 256
_SIZE = 1009
"""A prime: the last of its blocks is masked."""

ARITHMETIC: dict[str, tuple[str, Callable[..., Any], float]] = {
    "add": ("x + y", np.add, 0.5), "sub": ("x - y", np.subtract, 0.5), "mul": ("x * y", np.multiply, 0.5),
}  # fmt: skip
"""Text, reference, and units in the last place of a correctly rounded result."""

EXACT_FLOAT: dict[str, tuple[str, Callable[..., Any]]] = {
    "neg": ("-x", lambda x, y: -x), "abs": ("tl.abs(x)", lambda x, y: x.abs()),
    "where": ("tl.where(x > y, x, y)", lambda x, y: torch.where(x > y, x, y)),
}  # fmt: skip

ROUNDING = ("floor", "ceil")

MINMAX: dict[str, tuple[str, Callable[..., Any]]] = {
    "maximum": ("tl.maximum(x, y)", torch.fmax), "minimum": ("tl.minimum(x, y)", torch.fmin),
    "maximum_nan": ("tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)", torch.maximum),
    "minimum_nan": ("tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)", torch.minimum),
}  # fmt: skip
"""Without ``propagate_nan``, the number where one of the two is NaN."""

COMPARISONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "lt": ("x < y", torch.lt), "le": ("x <= y", torch.le), "eq": ("x == y", torch.eq), "ne": ("x != y", torch.ne),
    "gt": ("x > y", torch.gt), "ge": ("x >= y", torch.ge),
}  # fmt: skip

INTEGER: dict[str, tuple[str, Callable[..., Any]]] = {
    "add": ("x + y", torch.add), "sub": ("x - y", torch.sub), "mul": ("x * y", torch.mul),
    "and": ("x & y", torch.bitwise_and), "or": ("x | y", torch.bitwise_or), "xor": ("x ^ y", torch.bitwise_xor),
    "not": ("~x", lambda x, y: torch.bitwise_not(x)), "neg": ("-x", lambda x, y: -x),
    "maximum": ("tl.maximum(x, y)", torch.maximum), "minimum": ("tl.minimum(x, y)", torch.minimum),
    "shl": ("x << (y & 7)", lambda x, y: x << (y & 7)), "shr": ("x >> (y & 7)", lambda x, y: x >> (y & 7)),
    # A divisor that is neither 0 nor -1: both are undefined for some dividends. C's rules: toward zero.
    "div": ("x // ((y & 15) + 2)", lambda x, y: torch.div(x, (y & 15) + 2, rounding_mode="trunc")),
    "mod": ("x % ((y & 15) + 2)", lambda x, y: torch.fmod(x, (y & 15) + 2)),
}  # fmt: skip

FUNCTIONS: dict[str, tuple[str, Callable[..., Any], str]] = {
    "div": ("x / y", np.divide, "wide"),
    "sqrt": ("tl.sqrt(x)", np.sqrt, "positive"), "rsqrt": ("tl.rsqrt(x)", lambda x: 1 / np.sqrt(x), "positive"),
    "exp": ("tl.exp(x)", np.exp, "wide"), "exp2": ("tl.exp2(x)", np.exp2, "wide"),
    "log": ("tl.log(x)", np.log, "positive"), "log2": ("tl.log2(x)", np.log2, "positive"),
    "sin": ("tl.sin(x)", np.sin, "wide"), "cos": ("tl.cos(x)", np.cos, "wide"),
    "fma": ("tl.fma(x, y, x)", lambda x, y: x * y + x, "randn"),
    "erf": ("tl.erf(x)", lambda x: torch.special.erf(torch.from_numpy(np.float64(x))).numpy(), "randn"),
    "tanh": ("libdevice.tanh(x)", np.tanh, "wide"), "tan": ("libdevice.tan(x)", np.tan, "randn"),
    "expm1": ("libdevice.expm1(x)", np.expm1, "wide"), "log1p": ("libdevice.log1p(x)", np.log1p, "positive"),
    "log10": ("libdevice.log10(x)", np.log10, "positive"), "pow": ("libdevice.pow(x, y)", np.power, "positive"),
    "atan2": ("libdevice.atan2(x, y)", np.arctan2, "randn"), "atan": ("libdevice.atan(x)", np.arctan, "wide"),
    "asin": ("libdevice.asin(x)", np.arcsin, "unit"), "acos": ("libdevice.acos(x)", np.arccos, "unit"),
    "sinh": ("libdevice.sinh(x)", np.sinh, "randn"), "cosh": ("libdevice.cosh(x)", np.cosh, "randn"),
    "asinh": ("libdevice.asinh(x)", np.arcsinh, "wide"), "atanh": ("libdevice.atanh(x)", np.arctanh, "unit"),
    "hypot": ("libdevice.hypot(x, y)", np.hypot, "wide"), "cbrt": ("libdevice.cbrt(x)", np.cbrt, "wide"),
    "erfc": ("libdevice.erfc(x)", lambda x: torch.special.erfc(torch.from_numpy(np.float64(x))).numpy(), "randn"),
    "fmod": ("libdevice.fmod(x, y)", np.fmod, "randn"), "trunc": ("libdevice.trunc(x)", np.trunc, "wide"),
}  # fmt: skip
"""Text, reference, and the distribution that stays in its domain."""

_PLAIN = ("fp32", "fp64")  # tl.math and libdevice take these; other floats are cast first
_LEAST = ("add", "sub", "mul", "div", "sqrt", "exp", "log", "where")  # operations no target may refuse


def elementwise(
    bench: Bench, text: str, inputs: dict[str, torch.Tensor], out: torch.dtype, size: int = _SIZE
) -> torch.Tensor:
    """``text`` of ``x`` (and ``y``) on ``size`` elements in masked blocks; the output's surroundings are looked at."""
    guarded = Guarded((size,), out)
    loads = "\n".join(f"    {name} = tl.load({name}_ptr + i, m)" for name in inputs)
    names = ", ".join(f"{name}_ptr" for name in inputs)
    source = (
        f"@triton.jit\ndef kernel({names}, z_ptr, n):\n"
        f"    i = tl.program_id(0) * {_BLOCK} + tl.arange(0, {_BLOCK})\n    m = i < n\n{loads}\n"
        f"    tl.store(z_ptr + i, {text}, m)\n"
    )
    before = {name: x.clone() for name, x in inputs.items()}
    arguments: dict[str, Any] = {f"{name}_ptr": x for name, x in inputs.items()}
    arguments |= {"z_ptr": guarded.tensor, "n": size}
    launch(bench, source, arguments, (-(-size // _BLOCK), 1, 1), _BLOCK)
    check({"z": guarded}, inputs, before)
    return guarded.tensor


def cases() -> Iterator[Case]:
    """All cases of this file."""
    yield from _moves()
    yield from _float_operations()
    yield from _integer_operations()
    yield from _functions()
    yield from _casts()


def _case(
    op: str, dtype: str, distribution: str, run: Callable[[Bench], Measured], *more: str, full: bool = False
) -> Case:
    types = tuple(dict.fromkeys((dtype, *more)))
    least = op in _LEAST or op.startswith(("load_store", "cast_"))
    return Case(
        "language", op, dtype, (_SIZE,), distribution, run, types, "full" if full else "quick", required=least
    )  # fmt: skip


def _same(text: str, reference: Callable[..., Any], dtype: str, distribution: str, signs: bool = True) -> Any:
    """A run that is compared bit for bit, whatever NaN."""

    def run(bench: Bench) -> Measured:
        x, y = (draw(dtype, (_SIZE,), distribution, name) for name in "xy")
        wanted = reference(x, y)
        arguments = {"x": x, "y": y} if "y" in text else {"x": x}
        return equal(elementwise(bench, text, arguments, wanted.dtype), wanted, bench.able, signs)

    return run


def _moves() -> Iterator[Case]:
    for dtype in TORCH:
        yield _case("load_store", dtype, "special", _same("x", lambda x, y: x, dtype, "special"))


def _float_operations() -> Iterator[Case]:
    for dtype in FLOATS:
        for op, (text, reference, ulp) in ARITHMETIC.items():
            for distribution in ("wide", "special"):
                yield _case(op, dtype, distribution, _rounded(text, reference, dtype, distribution, ulp))
        for op, (text, moved) in {**EXACT_FLOAT, **COMPARISONS}.items():
            full = dtype in ("fp16", "fp64") and op in COMPARISONS and op != "lt"
            # Triton's -x is 0 - x: the zero's sign is not defined
            run = _same(text, moved, dtype, "special", signs=op != "neg")
            yield _case(op, dtype, "special", run, "int1", full=full)
        for op, (text, moved) in MINMAX.items():
            yield _case(op, dtype, "special", _same(text, moved, dtype, "special", signs=False))
    for dtype in _PLAIN:
        for op in ROUNDING:
            text, function = f"tl.{op}(x)", getattr(torch, op)
            yield _case(op, dtype, "special", _same(text, lambda x, y, f=function: f(x), dtype, "special", signs=False))


def _integer_operations() -> Iterator[Case]:
    for dtype in INTEGERS:
        for op, (text, reference) in INTEGER.items():
            yield _case(op, dtype, "special", _same(_typed(text, dtype), reference, dtype, "special"))
        for op, (text, reference) in COMPARISONS.items():
            yield _case(op, dtype, "special", _same(text, reference, dtype, "special"), "int1", full=op != "lt")
    for op, (text, logical) in {"and": INTEGER["and"], "or": INTEGER["or"], "xor": INTEGER["xor"]}.items():
        yield _case(op, "int1", "bits", _same(text, logical, "int1", "bits"))


def _typed(text: str, dtype: str) -> str:
    return f"({text}).to(tl.{dtype})"


def _rounded(text: str, reference: Callable[..., Any], dtype: str, distribution: str, ulp: float) -> Any:
    """A run under the bound of one function: ``ulp`` units, see ``function_bound``."""

    def run(bench: Bench) -> Measured:
        names = [name for name in "xy" if f"{name}" in text.replace("exp", "").replace("max", "").replace("hypot", "")]
        tensors = {name: draw(dtype, (_SIZE,), distribution, name) for name in names}
        call = text if dtype in _PLAIN else text.replace("(x", "(x.to(tl.float32)").replace(", y", ", y.to(tl.float32)")
        got = elementwise(bench, f"({call}).to({_TRITON[dtype]})", tensors, TORCH[dtype])
        values = [exact(x) for x in tensors.values()]
        alternatives = [values]
        if dtype not in bench.able.denormals:
            alternatives.append([flushed(one, dtype) for one in values])
        with np.errstate(all="ignore"):
            wanted = tuple(np.asarray(reference(*map(np.longdouble, one))) for one in alternatives)
            slack = 1.0 if dtype == "fp64" and wanted[0].dtype == np.float64 else 0.0  # the reference's own error
            bounds = tuple(function_bound(one, dtype, bench.able, ulp + slack) for one in wanted)
        return within(got, wanted, bounds, dtype, bench.able)

    return run


_TRITON = {"fp16": "tl.float16", "bf16": "tl.bfloat16", "fp32": "tl.float32", "fp64": "tl.float64"}


def _functions() -> Iterator[Case]:
    for dtype in FLOATS:
        for op, (text, reference, distribution) in FUNCTIONS.items():
            run = _promised(op, text, reference, dtype, distribution)
            full = dtype not in ("fp32", "fp64") or (dtype == "fp64" and "libdevice" in text)
            yield _case(op, dtype, distribution, run, "fp32", full=full)
            if dtype == "fp32" and op in ("exp", "exp2", "log", "sqrt", "div", "sin", "tanh", "erf", "rsqrt"):
                run = _promised(op, text, reference, dtype, "special")
                yield _case(op, dtype, "special", run)


def _promised(op: str, text: str, reference: Callable[..., Any], dtype: str, distribution: str) -> Any:
    def run(bench: Bench) -> Measured:
        default = 0.5 if op in ("div", "sqrt") and dtype == "fp64" else DEFAULT_ULP[op]
        ulp = bench.able.ulp.get(op, default) if dtype != "fp64" else max(default, bench.able.ulp.get(op, 0))
        measured: Measured = _rounded(text, reference, dtype, distribution, float(ulp))(bench)
        return measured

    return run


def _casts() -> Iterator[Case]:
    numbers = ("int1", *INTEGERS, *FLOATS, *FP8)
    common = ("int1", "int8", "int32", "int64", "fp16", "bf16", "fp32", "fp64")
    for source in numbers:
        for to in numbers:
            if source == to or (source in FP8 and to in FP8) or ("fp8" in source + to and "int" in source + to):
                continue  # Triton casts FP8 from and to other floats only
            full = source not in common or to not in common
            yield _case(f"cast_to_{to}", source, "wide", _cast(source, to), to, full=full)


def _cast(source: str, to: str) -> Any:
    def run(bench: Bench) -> Measured:
        # Floats out of an integer's range give whatever the chip gives: keep them in. Into fp8, no overflow either.
        x = draw(source, (_SIZE,), "small" if "fp8" in to and not is_float(source) else "wide", to)
        if is_float(source) and not is_float(to):
            x = x.to(torch.float64).clamp(-100, 100).to(x.dtype)
        if to in FP8:
            x = x.to(torch.float64).clamp(-50, 50).to(x.dtype)
        wanted = _converted(x, to)
        name = {**_TRITON, "fp8e4nv": "tl.float8e4nv", "fp8e5": "tl.float8e5"}.get(to)
        name = name or f"tl.{to.replace('fp8', 'float8')}"
        return equal(elementwise(bench, f"x.to({name})", {"x": x}, TORCH[to]), wanted, bench.able)

    return run


def _converted(x: torch.Tensor, to: str) -> torch.Tensor:
    """``x`` in another type, rounded once to nearest even: through NumPy, where PyTorch rounds twice."""
    if to == "int1":
        return x != 0
    if not x.dtype.is_floating_point and to in ("fp16", "bf16"):
        return x.to(torch.float32).to(TORCH[to]) if x.dtype != torch.int64 and x.dtype != torch.int32 else _odd(x, to)
    return x.to(TORCH[to]) if to not in ("bf16", *FP8) or x.dtype != torch.float64 else _odd(x, to)


def _odd(x: torch.Tensor, to: str) -> torch.Tensor:
    """Through fp32 rounded to odd, which makes the second rounding the only one."""
    exactly = x.to(torch.float64) if x.dtype == torch.float64 else None
    if exactly is None:
        wide = x.numpy().astype(np.longdouble)
        single = wide.astype(np.float32)
        inexact = single.astype(np.longdouble) != wide
        toward = np.abs(single.astype(np.longdouble)) > np.abs(wide)
    else:
        wide = exactly.numpy()
        single = wide.astype(np.float32)
        inexact = (single.astype(np.float64) != wide) & np.isfinite(wide)
        toward = np.abs(single.astype(np.float64)) > np.abs(wide)
    bits = single.view(np.uint32).copy()
    bits = np.where(inexact & toward, bits - 1, bits)  # truncated
    bits = np.where(inexact, bits | 1, bits)
    return torch.from_numpy(bits.astype(np.uint32).view(np.float32)).to(TORCH[to])
