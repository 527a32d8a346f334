"""Models in the arithmetic of chips that are not here: options, errors, what is said of what is not emulated."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from matrix_units import unit_sums

import torchport
from torchport.arithmetic.profile import Profile
from torchport.compile import request
from torchport.errors import OptionError
from torchport.numerics.emulation.dispatch import Emulation
from torchport.ops import flash_attention
from torchport.precision.predict import predict
from torchport.runtime import events
from torchport.triton.source import arithmetic_of, in_arithmetic, rules_of


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.out = torch.nn.Linear(64, 64), torch.nn.Linear(64, 8)

    def forward(self, x):
        return self.out(torch.nn.functional.gelu(self.into(x))).softmax(-1)


def test_tf32_is_what_a_chip_makes_of_a_model():
    torch.manual_seed(0)
    own, ieee, tf32 = predict(Small(), (torch.randn(16, 64),), ["h100", "h100-tf32"])
    assert own.name == "cpu" and own.worst.against_cpu == 0 and own.worst.against_truth < 1e-6
    assert ieee.worst.against_truth < 1e-6 and 1e-5 < tf32.worst.against_truth < 1e-2
    assert tf32.worst.p99 <= tf32.worst.worst and tf32.worst.nan == tf32.worst.inf == 0
    assert tf32.kernels > 0 and not tf32.not_emulated


def test_training_is_emulated_too():
    torch.manual_seed(0)
    model, x = Small(), torch.randn(16, 64)
    gradients = []
    for options in ({}, {"emulate": "h100-tf32"}):
        torch._dynamo.reset()
        model.zero_grad()
        torch.compile(model, backend="torchport", options={"target": "cpu", **options})(x).square().sum().backward()
        gradients.append(model.into.weight.grad.clone())
    difference = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    assert 1e-5 < difference < 1e-1


def test_kernels_of_operators_are_emulated_too(tmp_path):
    """Queries are 0, so attention is the mean of values, whose sum the unit cuts to 13 bits."""
    profile = tmp_path / "narrow.json"
    rule = {"group": 16, "fraction": 13, "rounding": "rz", "accumulator": "e8m13", "source": "made up"}
    profile.write_text(json.dumps({"name": "narrow", "chip": "none", "rules": {"dot": {"types": {"f16": rule}}}}))
    query, value = torch.zeros(1, 1, 128, 16).half(), 1 + torch.rand(1, 1, 128, 16).half()
    with events.capture() as happened, torchport.record(tmp_path / "run"):
        compiled = torch.compile(flash_attention, backend="torchport", options={"emulate": str(profile)})
        found = compiled(query, query, value)
    sums = unit_sums(np.ones((128, 128)), value[0, 0].double().numpy(), 16, 13, 13)
    assert torch.equal(found[0, 0], torch.as_tensor(sums / 128).half())
    assert not [event for event in happened if isinstance(event, events.Fallback)]
    kernels = [json.loads(one.read_text())["source"] for one in (tmp_path / "run" / "kernels").iterdir()]
    assert [rules_of(source)["dot"]["types"]["f16"]["fraction"] for source in kernels] == [13]


def test_other_targets_emulate_nothing():
    with pytest.raises(OptionError, match="target cpu only"):
        request(None, {"target": "null", "emulate": "h100"})
    with pytest.raises(OptionError, match="no profile is called 'h1000'"):
        request(None, {"target": "cpu", "emulate": "h1000"})


def test_profiles_are_in_the_cache_keys():
    emulated = ({}, {"emulate": "h100"}, {"emulate": "a100"})
    tags = {request(None, {"target": "cpu", **options}).settings().cache_tag for options in emulated}
    assert len(tags) == 3


def test_what_is_not_emulated_is_said():
    with events.capture() as happened, Emulation("h100", Profile.load("h100").arithmetic(), "ieee"):
        torch.linalg.qr(torch.randn(4, 4))
        torch.randn(4, 4).t().contiguous()
    assert ["linalg_qr" in str(one) and "the CPU's own arithmetic" in str(one) for one in happened] == [True]


@pytest.mark.parametrize(
    "shape, weight, options",
    [
        ((2, 6, 9, 8), (4, 3, 3, 3), {"stride": 2, "padding": 1, "groups": 2}),
        ((2, 4, 11), (5, 4, 3), {"padding": 2, "dilation": 2}),
    ],
)
def test_convolutions_are_products(shape, weight, options):
    x, w, bias = torch.randn(shape), torch.randn(weight), torch.randn(weight[0])
    function = torch.nn.functional.conv2d if len(shape) == 4 else torch.nn.functional.conv1d
    exact = function(x.double(), w.double(), bias.double(), **options)
    found = {}
    for precision in ("ieee", "tf32"):
        with Emulation("h100", Profile.load("h100").arithmetic(), precision):
            found[precision] = float((function(x, w, bias, **options) - exact).norm() / exact.norm())
    assert found["ieee"] < 1e-6 and 1e-5 < found["tf32"] < 1e-2


MODEL = """
import torch
def make():
    torch.manual_seed(0)
    return torch.nn.Linear(32, 8), (torch.randn(4, 32),)
"""


@pytest.mark.slow
def test_the_command_line(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    command = [
        sys.executable,
        "-m",
        "torchport.cli",
        "predict",
        f"{tmp_path}/model.py:make",
        "--as",
        "mi300x",
        "--json",
    ]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert [one["name"] for one in found["chips"]] == ["cpu", "mi300x"]
    assert found["chips"][1]["outputs"][0]["against_truth"] < 1e-6


def test_the_arithmetic_is_found_in_sources_as_generated_code_holds_them():
    source = in_arithmetic("def kernel(): ...\n", '{"rules": {}}')
    assert arithmetic_of(source) == arithmetic_of("\n" + source) == '{"rules": {}}'
    assert arithmetic_of("\ndef kernel(): ...\n") == ""
