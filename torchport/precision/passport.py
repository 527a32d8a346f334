"""Passports beside each other, and beside a profile."""

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
    """One value of a passport, what was expected, and whether it is that. ``expected`` is None where nothing was."""

    place: str
    measured: Any
    expected: Any
    agrees: bool


def flat(passport: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured, by place (``dot.f16.group``)."""
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
    """Every value measured, beside what the profile says of it; errors of functions are at most the profile's.

    A function that the profile has computed by another one (``via``) is not bounded, nor is what has no rule.
    """
    rules = profile.rules()
    functions = rules.get("functions", {})
    denormals = rules.get("denormals", "keep")
    denormals = {"f32": denormals} if isinstance(denormals, str) else denormals
    flushed = {type_ for type_, what in denormals.items() if what == "flush"}
    expected = dict(_dots(rules, flushed | ({"bf16", "tf32"} if "f32" in flushed else set())))
    casts = {"saturate": False, "nan": None, "rounding": "rne", **rules.get("casts", {})}
    found = []
    for place, measured in flat(passport).items():
        kind, _, rest = place.partition(".")
        if kind == "functions":
            name, _, type_ = rest.partition(".")
            rule = functions.get(name, functions.get("*", {}))
            bounded = "ulp" in rule and not {"via", "ulp_x", "abs", "range"} & set(rule) and type_ == "f32"
            most = float(rule["ulp"]) if bounded else None
            found.append(Finding(place, measured, most, most is None or measured <= most + 0.01))
            continue
        if kind == "denormals":
            value = denormals.get(rest, "keep")
        elif kind == "casts":
            value = casts.get(rest.partition(".")[2])
        elif kind == "reductions":
            value = rules.get("reductions", {}).get("order")
            value = None if value is not None and ":" in value else value  # runs have no name in a passport
        else:
            value = expected.get(place)
            if place not in expected:
                found.append(Finding(place, measured, None, True))
                continue
        unbound = kind == "reductions" and value is None
        found.append(Finding(place, measured, value, unbound or measured == value))
    return found


def _dots(rules: Mapping[str, Any], flushed: set[str]) -> Iterator[tuple[str, Any]]:
    """``flushed``: types of operands that are flushed when they are widened."""
    dot = rules.get("dot", {})
    for type_ in ("f32", "tf32", "f16", "bf16", "f8"):
        rule = dot_rule(dot, type_)
        if rule is None or rule.plain:
            continue
        yield from ((f"dot.{type_}.{key}", value) for key, value in _shown(rule, type_ in flushed).items())
    if "default" in dot:
        yield "dot.default", dot["default"]


def _shown(rule: DotRule, flushed: bool) -> dict[str, Any]:
    """A rule as a passport shows what it does. One term after another is a group of 1, whoever rounds the product."""
    within = "sequential" if rule.group == 1 else rule.within
    if rule.within == "fused" and rule.fraction is None and rule.group > 1:
        within = "exact"
    return {
        "group": 1 if rule.within == "sequential" else rule.group,
        "within": within,
        "fraction": rule.fraction if within == "fused" else None,
        "rounding": rule.rounding,
        "accumulator": rule.accumulator or "f32",
        "flush": rule.flush or flushed,
        "stages": rule.stages is not None,
    }
