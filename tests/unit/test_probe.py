"""Probes give an emulated chip's profile back: what they measure is what was put in."""

import copy
import json

import pytest

from torchport.arithmetic.profile import Profile, names
from torchport.cli.precision.probe import probe
from torchport.errors import OptionError
from torchport.inductor.products.lowering import flushes
from torchport.plugin import backend_for
from torchport.precision.passport import against_passport, against_profile
from torchport.precision.probe import passport
from torchport.precision.prober import Prober
from torchport.target import Target
from torchport.triton.active_target import use


@pytest.mark.parametrize("name", names())
def test_matrix_units_are_given_back(name):
    profile = Profile.load(name)
    type_ = "bf16" if name == "avx512bf16" else "f16"  # the only type that its rules name
    with use("cpu"):
        prober = Prober({"arithmetic": profile.arithmetic()})
        found = {
            "dot": {type_: prober.dot(type_), "default": prober.inputs("")},
            "reductions": {"order": prober.reductions()},
        }
    findings = against_profile(found, profile)
    assert len(findings) == 9 and [one for one in findings if not one.agrees] == []
    assert sum(one.expected is not None for one in findings) >= 7  # fraction and order of runs have no value everywhere


@pytest.mark.slow  # test_matrix_units_are_given_back has most of it, for every profile
def test_a_passport_is_the_profile_and_no_other():
    found = passport("cpu", "h100")
    assert found["unmeasured"] == {}
    assert [one for one in against_profile(found, Profile.load("h100")) if not one.agrees] == []
    places = {one.place for one in against_profile(found, Profile.load("mi210")) if not one.agrees}
    assert {"dot.f16.group", "dot.f16.within", "dot.f16.flush", "dot.default", "functions.exp2.f32"} <= places


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_passports_of_all_profiles(name):
    findings = against_profile(passport("cpu", name), Profile.load(name))
    assert [one for one in findings if not one.agrees] == []


def test_a_rule_that_no_chip_has_is_measured_too():
    rules = {"dot": {"group": 8, "fraction": 11, "rounding": "rz", "accumulator": "e8m13"}, "denormals": "flush"}
    with use("cpu"):
        prober = Prober({"arithmetic": json.dumps({"rules": rules})})
        found = prober.dot("f16")
        assert prober.denormals("f32") == "flush" and prober.denormals("f16") == "keep"
    assert (found["group"], found["fraction"], found["rounding"]) == (8, 11, "rz")


def test_conversions_are_measured():
    rules = {"casts": {"saturate": True, "nan": 0, "rounding": "rz"}}
    with use("cpu"):
        found = Prober({"arithmetic": json.dumps({"rules": rules})}).casts("f16")
        assert found == {"saturate": True, "nan": 0.0, "rounding": "rz"}
        assert Prober({}).casts("bf16") == {"saturate": False, "nan": None, "rounding": "rne"}


def test_passports_are_compared(tmp_path, capsys):
    old = {"target": "cpu", "dot": {"f16": {"group": 4}}, "functions": {"exp": {"f32": 0.8}}}
    new = copy.deepcopy(old)
    assert against_passport(new, old) == []
    new["functions"]["exp"]["f32"] = 1.7
    (found,) = against_passport(new, old)
    assert (found.place, found.measured, found.expected) == ("functions.exp.f32", 1.7, 0.8)


def test_what_cannot_be_asked_is_said(tmp_path):
    with pytest.raises(OptionError, match="emulated on target cpu only"):
        passport("null", "h100")
    file = tmp_path / "old.json"
    file.write_text("{}")
    with pytest.raises(OptionError, match="is no passport"):
        probe("cpu", None, None, file, None)


def test_products_of_bf16_are_what_the_profile_says_of_them(monkeypatch):
    """Hardware beside profile and capabilities: with the option by its rule, without it nothing is flushed."""
    able = backend_for(Target("cpu")).capabilities(Target("cpu"))
    parts = ("dot.bf16", "products.bf16")
    measurements = Prober.measurements
    monkeypatch.setattr(
        Prober, "measurements", lambda self: {k: v for k, v in measurements(self).items() if k in parts}
    )
    exact, pairs = passport("cpu", bf16_products="exact"), passport("cpu", bf16_products="pairs")
    assert exact["unmeasured"] == pairs["unmeasured"] == {} and exact["bf16_products"] == "exact"
    assert exact["dot"]["bf16"]["flush"] is False and exact["products"]["bf16"]["flush"] is flushes()
    assert exact["products"]["bf16"]["by"] == "library" or not able.bf16_pairs
    rule = [one for one in against_profile(pairs, Profile.load("avx512bf16")) if one.place.startswith("dot.bf16.")]
    assert len(rule) == 7 and all(one.agrees for one in rule) == able.bf16_pairs
    assert {one.place for one in against_passport(pairs, exact)} >= (
        {"bf16_products", "dot.bf16.flush", "dot.bf16.within"} if able.bf16_pairs else {"bf16_products"}
    )
    if able.bf16_pairs and able.fast_pairs:
        assert pairs["products"]["bf16"] == {
            "by": "torchport", "group": 1, "within": "swapped", "fraction": None, "flush": True,
        }  # fmt: skip


def test_which_numbers_are_flushed_is_told_apart():
    class Flushing(Prober):
        def dots(self, type_, problems, precision="ieee"):
            return [0.0 if len(terms) and terms[0][0] < 2.0**-126 else 1.0 for terms, _ in problems]

    assert Flushing({}).flushed("bf16", "ieee") == "operands"
    assert Flushing({}).flushed("f16", "ieee") is False


def test_options_that_exclude_each_other():
    for options in ({"bf16_products": "fast"}, {"bf16_products": "pairs", "profile": "h100"}):
        with pytest.raises(OptionError, match="bf16_products"):
            passport("cpu", **options)
