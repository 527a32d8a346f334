"""Probes give an emulated chip's profile back: what they measure is what was put in."""

import copy
import json

import pytest

from torchport.arithmetic.profile import Profile, names
from torchport.cli.precision.probe import probe
from torchport.errors import OptionError
from torchport.precision.passport import against_passport, against_profile
from torchport.precision.probe import Prober, passport
from torchport.triton.active_target import use


@pytest.mark.parametrize("name", names())
def test_matrix_units_are_given_back(name):
    profile = Profile.load(name)
    with use("cpu"):
        prober = Prober({"arithmetic": profile.arithmetic()})
        found = {
            "dot": {"f16": prober.dot("f16"), "default": prober.inputs("")},
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
