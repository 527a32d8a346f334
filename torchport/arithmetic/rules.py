"""The language of arithmetic rules (docs/numerics/rules.md): checking them, and rules of dots by operand type."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torchport.errors import OptionError
from torchport.files import parse_json

__all__ = ["DOT_TYPES", "FLOATS", "DotRule", "check", "dot_rule", "parse"]

FLOATS = ("f32", "f16", "bf16", "f8")
DOT_TYPES = ("f32", "tf32", "f16", "bf16", "f8")
"""Types of operands that a dot's rule may tell apart; ``tf32`` are f32 operands that are cut to it."""

_ORDERS = ("forward", "reversed", "swapped", "split", "strided")
_SUMS = ("sequential", "reversed", "pairwise", "split")
_Test = Callable[[Any], bool]
_COUNT = re.compile(r"[0-9]{1,4}")


def _among(*values: str) -> tuple[_Test, str]:
    return lambda value: isinstance(value, str) and value in values, " or ".join(map(repr, values))


def _whole(low: int, high: int) -> tuple[_Test, str]:
    return (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high,
        f"a whole number {low}..{high}",
    )


def _ordered(*words: str) -> tuple[_Test, str]:
    def test(value: Any) -> bool:
        word, _, count = str(value).partition(":")
        return word in words and (
            (word in ("split", "strided")) == (bool(_COUNT.fullmatch(count)) and 2 <= int(count) <= 1024)
        )

    return test, ", ".join(w + ":n" * (w in ("split", "strided")) for w in words) + " (n from 2 to 1024)"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_YES_NO: tuple[_Test, str] = (lambda v: isinstance(v, bool), "true or false")
_ROUNDING = _among("rne", "rz", "rd")
_DOT: dict[str, tuple[_Test, str]] = {
    "inputs": _among("tf32", "bf16", "f16"),
    "group": _whole(0, 4096),
    "fraction": (lambda v: v is None or (isinstance(v, int) and 1 <= v <= 48), "null or a whole number 1..48"),
    "rounding": _ROUNDING,
    "accumulator": _among("f32", "e8m13", "f16", "bf16", "f64"),
    "within": _among("fused", "pairwise", "sequential", "fma"),
    "stages": (lambda v: v is None or (isinstance(v, int) and 1 <= v <= 48), "null or a whole number 1..48"),
    "flush": _YES_NO,
    "signed": _YES_NO,
    "zero": (lambda v: v is None or _whole(0, 64)[0](v), "null or a whole number 0..64"),
    "limit": _YES_NO,
    "apart": _YES_NO,
    "nan": (lambda v: v in (None, "ones"), "null or 'ones'"),
    "promote": _YES_NO,
    "order": _ordered(*_ORDERS),
    "default": _among("tf32", "ieee"),
}
_FUNCTION: dict[str, tuple[_Test, str]] = {
    "ulp": (lambda v: _number(v) and 0 <= v <= 1e6, "a number of ULP"),
    "range": (
        lambda v: isinstance(v, (list, tuple)) and len(v) == 2 and all(map(_number, v)) and v[0] < v[1],
        "[low, high]",
    ),
    "ulp_x": (lambda v: _number(v) and 0 <= v <= 1e6, "a number of ULP for each unit of |x|"),
    "abs": (lambda v: _number(v) and 0 <= v <= 1e6, "an absolute error"),
    "flush": _YES_NO,
    "via": _among("exp2", "reciprocal", "exp"),
    "bias": _YES_NO,
}
_CASTS: dict[str, tuple[_Test, str]] = {
    "saturate": _YES_NO,
    "nan": (lambda v: v == 0 and not isinstance(v, bool), "0"),
    "rounding": _among("rne", "rz", "odd"),
    "elide": _YES_NO,
}
_REDUCTIONS: dict[str, tuple[_Test, str]] = {
    "order": _ordered(*_SUMS),
    "accumulator": _among("f32", "f16", "bf16", "f64"),
    "rounding": _among("rne", "rz"),
}
_FLUSH = _among("flush", "keep")


@dataclass(frozen=True)
class DotRule:
    """How one type of operands is multiplied and added up; the fields are the keys of docs/numerics/rules.md."""

    inputs: str | None = None
    group: int = 1
    fraction: int | None = None
    rounding: str = "rne"
    accumulator: str | None = None
    within: str = "fused"
    stages: int | None = None
    flush: bool = False
    signed: bool = False
    order: str | None = None
    zero: int | None = None
    limit: bool = False
    apart: bool = False
    nan: str | None = None
    promote: bool = False

    @property
    def plain(self) -> bool:
        """Whether only inputs are narrowed, and sums are the target's own."""
        return self == DotRule(inputs=self.inputs)

    @property
    def chained(self) -> bool:
        """Whether sums are chains of fused multiply-adds in f32, which the target has itself."""
        return self == DotRule(inputs=self.inputs, within="fma")


_DOT_FIELDS = frozenset(one.name for one in fields(DotRule))


def dot_rule(rule: Mapping[str, Any], type_: str) -> DotRule | None:
    """What the rule ``dot`` says of operands of ``type_``, one of DOT_TYPES; None if it says nothing."""
    types = rule.get("types", {})
    common = {key: value for key, value in rule.items() if key in _DOT_FIELDS}
    if type_ in types and types[type_] is None:
        return None
    own = {key: value for key, value in types.get(type_, {}).items() if key in _DOT_FIELDS}
    if not common and not own:
        return None
    return DotRule(**{**common, **own})


def check(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``rules`` if they are valid. Raises OptionError, which says what is not valid and what would be."""
    valid: dict[str, Callable[[Any], None]] = {
        "dot": _check_dot,
        "functions": _check_functions,
        "denormals": _check_denormals,
        "casts": lambda v: _check("casts", v, _CASTS),
        "reductions": lambda v: _check("reductions", v, _REDUCTIONS),
        "fma": lambda v: _one("fma", v, _YES_NO),
    }
    _known("rule", rules, valid)
    for name, value in rules.items():
        valid[name](value)
    return dict(rules)


def parse(text: str) -> dict[str, Any]:
    """One rule from text: JSON, or ``key:value;key:value`` with dots for what is inside (``exp.ulp:2``)."""
    if not text.strip():
        return {}
    if text.lstrip().startswith("{"):
        return parse_json(text, dict[str, Any], f"the rules {text[:40]!r}", OptionError)
    rule: dict[str, Any] = {}
    for part in text.split(";"):
        path, colon, value = part.partition(":")
        *outer, key = path.split(".")
        inside: Any = rule
        for name in outer:
            inside = inside.setdefault(name, {}) if isinstance(inside, dict) else None
        if not colon or not isinstance(inside, dict):
            raise OptionError(f"cannot read the rule {part!r}; write key:value;key:value or JSON")
        try:
            inside[key] = parse_json(value, Any, "the value", OptionError)
        except OptionError:
            inside[key] = value
    return rule


def _known(what: str, given: Any, valid: Mapping[str, Any]) -> None:
    if not isinstance(given, Mapping):
        raise OptionError(f"{what}: {given!r} must be an object with some of: {', '.join(valid)}")
    for name in given:
        if name not in valid:
            raise OptionError(f"unknown {what} {name!r}; valid: {', '.join(valid)}")


def _one(name: str, value: Any, test: tuple[_Test, str]) -> None:
    if not test[0](value):
        raise OptionError(f"arithmetic rule {name} is {value!r}; valid: {test[1]}")


def _check(where: str, rule: Any, valid: Mapping[str, tuple[_Test, str]]) -> None:
    _known(f"key of the arithmetic rule {where}:", rule, valid)
    for key, value in rule.items():
        _one(f"{where}.{key}", value, valid[key])


def _check_dot(rule: Any) -> None:
    if not isinstance(rule, Mapping):
        _check("dot", rule, _DOT)
    types = rule.get("types", {})
    _check("dot", {key: value for key, value in rule.items() if key != "types"}, _DOT)
    _known("type of operands in the rule dot:", types, dict.fromkeys(DOT_TYPES))
    for type_, own in types.items():
        if own is not None:
            _check(f"dot.types.{type_}", own, _DOT)


def _check_functions(rule: Any) -> None:
    if not isinstance(rule, Mapping):
        _known("functions", rule, {"exp": None, "...": None})
    for name, own in rule.items():
        _check(f"functions.{name}", own, _FUNCTION)


def _check_denormals(rule: Any) -> None:
    if isinstance(rule, str):
        _one("denormals", rule, _FLUSH)
    else:
        _check("denormals", rule, dict.fromkeys(FLOATS[:3], _FLUSH))
