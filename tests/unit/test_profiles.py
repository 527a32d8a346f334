"""Profiles: they load, every value has a source, what is wrong in one is said in a sentence."""

import json

import pytest

from torchport.arithmetic.profile import Profile, names
from torchport.arithmetic.rules import check, dot_rule, parse
from torchport.errors import OptionError


def test_the_chips_that_are_promised_are_there():
    chips = {"v100", "a100", "l40s", "h100", "b200", "mi100", "mi210", "mi300x"}
    assert set(names()) == chips | {"avx512bf16", "opencl", "webgpu", "npu"}


@pytest.mark.parametrize("name", names())
def test_every_value_has_a_source(name):
    profile = Profile.load(name)
    sources = profile.sources()
    for rule, value in profile.rules().items():
        places = {
            "dot": [f"dot.types.{type_}" for type_ in value.get("types", ())] if rule == "dot" else [],
            "functions": [f"functions.{one}" for one in value] if rule == "functions" else [],
        }.get(rule, [rule])
        for place in places:
            assert len(sources[place]) > 5, place


def test_hoppers_units_are_what_the_table_says():
    dot = Profile.load("h100").rules()["dot"]
    half, eight = dot_rule(dot, "f16"), dot_rule(dot, "f8")
    assert (half.group, half.fraction, half.rounding) == (16, 25, "rz")
    assert (eight.group, eight.fraction, eight.accumulator) == (32, 13, "e8m13")
    assert dot_rule(dot, "f32").chained and dot["default"] == "tf32"


def test_tf32_of_libraries_is_a_mode_of_chips_that_have_it():
    assert Profile.load("h100-tf32").tf32 and not Profile.load("h100").tf32
    with pytest.raises(OptionError, match="no tf32 unit"):
        Profile.load("mi100-tf32")


def test_a_name_that_is_none_lists_those_there_are():
    with pytest.raises(OptionError, match="h100, h100-tf32, l40s, l40s-tf32, mi100, mi210"):
        Profile.load("h200x")


def test_a_file_is_a_profile_too(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"name": "mine", "chip": "Mine", "rules": {"fma": {"value": True, "source": "me"}}}))
    assert Profile.load(str(file)).rules() == {"fma": True}
    file.write_text(json.dumps({"name": "mine", "chip": "Mine", "rules": {"dot": {"fraction": 99}}}))
    with pytest.raises(OptionError, match=r"dot.fraction is 99; valid: null or a whole number 1..48"):
        Profile.load(str(file))


@pytest.mark.parametrize(
    "rules, message",
    [
        ({"dots": {}}, "unknown rule 'dots'"),
        ({"dot": {"rounding": "up"}}, "dot.rounding is 'up'"),
        ({"dot": {"order": "split"}}, "dot.order is 'split'"),
        ({"dot": {"types": {"f64": {}}}}, "unknown type of operands"),
        ({"functions": {"exp": {"ulps": 2}}}, "unknown key of the arithmetic rule functions.exp"),
        ({"denormals": "no"}, "denormals is 'no'"),
        ({"casts": {"nan": 1}}, "casts.nan is 1"),
        ({"reductions": {"order": "random"}}, "reductions.order is 'random'"),
        ({"fma": 1}, "fma is 1"),
    ],
)
def test_what_is_not_valid_is_said(rules, message):
    with pytest.raises(OptionError, match=message):
        check(rules)


def test_the_short_form_is_the_json_form():
    assert parse("group:16;rounding:rz;types.f8.group:32") == parse(
        '{"group": 16, "rounding": "rz", "types": {"f8": {"group": 32}}}'
    )
