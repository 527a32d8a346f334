"""Compares passports with each other and with profiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torchport.arithmetic.profile import Profile
from torchport.arithmetic.rules import DotRule, dot_rule

__all__ = ["Finding", "against_passport", "against_profile", "flat"]

_ABOUT = ("target", "profile", "unmeasured")


@dataclass(frozen=True)
class Finding:
    """One value of a passport.

    place: where it stands, as ``dot.f16.group``.
    expected: None if nothing is.
    agrees: whether the measured value is the expected one.
    """

    place: str
    measured: Any
    expected: Any
    agrees: bool


def flat(passport: Mapping[str, Any]) -> dict[str, Any]:
    """The measured values by place (``dot.f16.group``)."""
    return dict(_flat("", {key: value for key, value in passport.items() if key not in _ABOUT}))


def _flat(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{place}.{key}" if place else key, inner)
    else:
        yield place, value


def against_passport(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[Finding]:
    """What differs between two passports of one kind of target."""
    one, other = flat(new), flat(old)
    places = [*one, *(place for place in other if place not in one)]
    return [Finding(p, one.get(p), other.get(p), False) for p in places if one.get(p) != other.get(p)]


def against_profile(passport: Mapping[str, Any], profile: Profile) -> list[Finding]:
    """Every measured value beside what the profile says of it; errors of functions are at most the profile's.

    A function that the profile computes by another one (``via``) is not bounded, nor is anything without a rule.
    """
    expected = _Expected(profile.rules())
    findings = []
    for place, measured in flat(passport).items():
        if place.startswith("functions."):
            most = expected.ulp(place)
            findings.append(Finding(place, measured, most, most is None or measured <= most + 0.01))
        else:
            known, value = expected.value(place)
            findings.append(Finding(place, measured, value, not known or measured == value))
    return findings


class _Expected:
    """What rules say of a passport's values."""

    def __init__(self, rules: Mapping[str, Any]) -> None:
        self.functions: Mapping[str, Any] = rules.get("functions", {})
        denormals = rules.get("denormals", "keep")
        self.denormals: Mapping[str, str] = {"f32": denormals} if isinstance(denormals, str) else denormals
        self.casts = {"saturate": False, "nan": None, "rounding": "rne", **rules.get("casts", {})}
        self.order: str | None = rules.get("reductions", {}).get("order")
        flushed = {type_ for type_, what in self.denormals.items() if what == "flush"}
        widened = {"bf16", "tf32"} if "f32" in flushed else set()
        self.dots = dict(_dots(rules, flushed | widened))

    def ulp(self, place: str) -> float | None:
        """The bound of a function's error; None if it has none that holds for all arguments."""
        name, _, type_ = place.removeprefix("functions.").partition(".")
        rule = self.functions.get(name, self.functions.get("*", {}))
        bounded = "ulp" in rule and not {"via", "ulp_x", "abs", "range"} & set(rule) and type_ == "f32"
        return float(rule["ulp"]) if bounded else None

    def value(self, place: str) -> tuple[bool, Any]:
        """Whether the rules say anything of a place, and what."""
        kind, _, rest = place.partition(".")
        if kind == "denormals":
            return True, self.denormals.get(rest, "keep")
        if kind == "casts":
            return True, self.casts.get(rest.partition(".")[2])
        if kind == "reductions":
            named = self.order is not None and ":" not in self.order  # passports have no name for orders with a count
            return named, self.order if named else None
        return place in self.dots, self.dots.get(place)


def _dots(rules: Mapping[str, Any], flushed: set[str]) -> Iterator[tuple[str, Any]]:
    """Expected values of dots by place. ``flushed``: types of operands that are flushed when they are widened."""
    dot = rules.get("dot", {})
    for type_ in ("f32", "tf32", "f16", "bf16", "f8"):
        rule = dot_rule(dot, type_)
        if rule is None or rule.plain:
            continue
        yield from ((f"dot.{type_}.{key}", value) for key, value in _shown(rule, type_ in flushed).items())
    if "default" in dot:
        yield "dot.default", dot["default"]


def _shown(rule: DotRule, flushed: bool) -> dict[str, Any]:
    """A rule in a passport's terms. Terms added one by one are groups of 1, however the product is rounded."""
    within = "sequential" if rule.group == 1 else rule.within
    if rule.within == "fused" and rule.fraction is None and rule.group > 1:
        within = "exact"
    if rule.order == "swapped":
        within = "swapped"
    return {
        "group": 1 if rule.within == "sequential" else rule.group,
        "within": within,
        "fraction": rule.fraction if within == "fused" else None,
        "rounding": rule.rounding,
        "accumulator": rule.accumulator or "f32",
        "flush": rule.flush or flushed,
        "stages": rule.stages is not None,
    }
