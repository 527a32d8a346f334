"""The module ``triton.language.extra.libdevice`` of torchport's targets.

Triton's frontend looks up the functions of the generic libdevice here, because the target's ``get_module_map()`` says
so. Every function becomes a ``tt.extern_elementwise`` with the symbol ``tp_<function>_<type>`` (``tp_erf_f32``,
``tp_umulhi_u32``); the type is that of the first floating-point argument, else of the first argument. Nothing defines
those symbols: the pass ``lower-math`` replaces them (docs/math.md says how, and how exact the results are).

Names, argument types and result types are those of ``triton.language.extra.cuda.libdevice``, but predicates return
``int1`` at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from triton.language import core

_SHORT = {"fp32": "f32", "fp64": "f64", "int32": "i32", "uint32": "u32", "int64": "i64", "uint64": "u64"}

# function -> (argument types, result type) of each overload; types are separated by spaces.
_OVERLOADS: dict[str, tuple[tuple[str, str], ...]] = {}


def _same(names: str, arity: int, *types: str) -> None:
    """Functions whose arguments and result have one type."""
    for name in names.split():
        _OVERLOADS[name] = tuple((" ".join([t] * arity), t) for t in types)


def _add(names: str, *overloads: tuple[str, str]) -> None:
    for name in names.split():
        _OVERLOADS[name] = overloads


_ROUNDINGS = ("rn", "rz", "rd", "ru")

_same(
    "acos acosh asin asinh atan atanh cbrt ceil cos cosh cospi cyl_bessel_i0 cyl_bessel_i1 erf erfc erfcinv erfcx "
    "erfinv exp exp10 exp2 expm1 floor j0 j1 lgamma log log10 log1p log2 logb nearbyint normcdf normcdfinv rcbrt rint "
    "round rsqrt sin sinh sinpi sqrt tan tanh tgamma trunc y0 y1",
    1, "fp32", "fp64",
)  # fmt: skip
_same("atan2 copysign fdim fmod hypot nextafter remainder rhypot", 2, "fp32", "fp64")
_same("fma norm3d rnorm3d", 3, "fp32", "fp64")
_same("norm4d rnorm4d", 4, "fp32", "fp64")
_same("abs", 1, "int32", "int64", "fp32", "fp64")
_same(
    "fast_cosf fast_exp10f fast_expf fast_log10f fast_log2f fast_logf fast_sinf fast_tanf fast_tanhf "
    "rsqrt_rn saturatef",
    1, "fp32",
)  # fmt: skip
_same("fast_dividef fast_powf", 2, "fp32")
_same("rcp64h", 1, "fp64")
_same("brev", 1, "int32", "int64")
_same("mulhi", 2, "int32", "uint32", "int64", "uint64")
_same("mul24 hadd rhadd", 2, "int32", "uint32")
_same("byte_perm", 3, "int32")
for _mode in _ROUNDINGS:
    _same(f"add_{_mode} sub_{_mode} mul_{_mode} div_{_mode}", 2, "fp32", "fp64")
    _same(f"rcp_{_mode} sqrt_{_mode}", 1, "fp32", "fp64")
    _same(f"fma_{_mode}", 3, "fp32", "fp64")
    _add(f"double2float_{_mode}", ("fp64", "fp32"))
    for _from, _float in (("float", "fp32"), ("double", "fp64")):
        _add(f"{_from}2int_{_mode} {_from}2uint_{_mode}", (_float, "int32"))
        _add(f"{_from}2ll_{_mode} {_from}2ull_{_mode}", (_float, "int64"))
        _add(f"ll2{_from}_{_mode}", ("int64", _float))
        _add(f"ull2{_from}_{_mode}", ("uint64", _float))
    _add(f"int2float_{_mode}", ("int32", "fp32"))
    _add(f"uint2float_{_mode}", ("uint32", "fp32"))
_add("int2double_rn", ("int32", "fp64"))
_add("uint2double_rn", ("uint32", "fp64"))
_add("clz popc ffs", ("int32", "int32"), ("int64", "int32"))
_add("sad", ("int32 int32 uint32", "int32"), ("uint32 uint32 uint32", "uint32"))
_add("isnan isinf signbit", ("fp32", "int1"), ("fp64", "int1"))
_add("finitef", ("fp32", "int1"))
_add("isfinited", ("fp64", "int1"))
_add("ilogb", ("fp32", "int32"), ("fp64", "int32"))
_add("llrint llround", ("fp32", "int64"), ("fp64", "int64"))
_add("ldexp scalbn", ("fp32 int32", "fp32"), ("fp64 int32", "fp64"))
_add("jn yn", ("int32 fp32", "fp32"), ("int32 fp64", "fp64"))
_add("pow", ("fp32 int32", "fp32"), ("fp64 int32", "fp64"), ("fp32 fp32", "fp32"), ("fp64 fp64", "fp64"))
_add("int_as_float", ("int32", "fp32"))
_add("uint_as_float", ("uint32", "fp32"))
_add("float_as_int", ("fp32", "int32"))
_add("float_as_uint", ("fp32", "int32"))
_add("longlong_as_double", ("int64", "fp64"))
_add("double_as_longlong", ("fp64", "int64"))
_add("hiloint2double", ("int32 int32", "fp64"))
_add("double2loint double2hiint", ("fp64", "int32"))


def _symbol(name: str, arguments: list[str]) -> str:
    shown = next((a for a in arguments if a.startswith("fp")), arguments[0])
    unsigned_twin = shown.startswith("u") and len(_OVERLOADS[name]) > 1
    return f"tp_{'u' if unsigned_twin else ''}{name}_{_SHORT[shown]}"


def _function(name: str, overloads: tuple[tuple[str, str], ...]) -> Callable[..., Any]:
    table = {
        tuple(core.dtype(a) for a in arguments.split()): (_symbol(name, arguments.split()), core.dtype(result))
        for arguments, result in overloads
    }
    arity = len(overloads[0][0].split())

    def call(*args: Any, _semantic: Any = None) -> Any:
        if len(args) != arity:
            raise TypeError(f"libdevice.{name} takes {arity} arguments, not {len(args)}")
        return core.extern_elementwise("", "", list(args), table, is_pure=True, _semantic=_semantic)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"libdevice.{name}: " + "; ".join(f"({a}) -> {r}" for a, r in overloads)
    builtin: Callable[..., Any] = core.extern(call)
    return builtin


globals().update({name: _function(name, overloads) for name, overloads in _OVERLOADS.items()})

__all__ = sorted(_OVERLOADS)  # noqa: PLE0605  # pyright: ignore[reportUnsupportedDunderAll]
