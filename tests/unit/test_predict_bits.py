"""The bits of a model on a chip that is not here: what they are, what they rest on, and where they are not known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from unit_models.models import UNITS

from torchport.arithmetic.profile import Profile, names
from torchport.cli.precision import predict as command
from torchport.precision.bits import predict_bits
from torchport.precision.known_bits import of_kernel, of_operator


@triton.jit
def one(a, b, out, K: tl.constexpr):
    i, k = tl.arange(0, 32), tl.arange(0, K)
    square = i[:, None] * 32 + i[None, :]
    left, right = tl.load(a + i[:, None] * K + k[None, :]), tl.load(b + k[:, None] * 32 + i[None, :])
    tl.store(out + square, tl.dot(left, right))


def product(a, b):
    out = torch.empty(32, 32)
    one[(1,)](a, b, out, K=a.shape[1])
    return out, (a.float() @ b.float()).relu(), out + 1


def operands(dtype):
    torch.manual_seed(0)
    return torch.randn(32, 64).to(dtype), torch.randn(64, 32).to(dtype)


def expected(unit, a, b):
    sums = UNITS[unit].dots(a.double().numpy(), b.double().numpy(), np.zeros((32, 32)))
    return tuple(f"{bits:08x}" for bits in sums.view(np.uint32).flatten())


def test_bits_of_dots_are_known_and_those_of_libraries_are_not():
    a, b = operands(torch.float16)
    h100, mi210 = predict_bits(product, (a, b), ["h100", "mi210"])
    for found, unit in ((h100, ("h100", "f16")), (mi210, ("mi210", "f16"))):
        dot, library, more = found.outputs
        assert dot.known and dot.bits == expected(unit, a, b) and dot.unknown == ()
        assert more.known and more.assumed == dot.assumed
        assert not library.known and library.unknown == ("aten.mm.out: a library's order is unknown",)
    (line,) = h100.outputs[0].assumed
    assert line.startswith(
        "one: tl.dot 32x32x64 of f16, sums in f32: wgmma m64nNk16 or mma m16n8k16, 16 terms a step, "
    )


def test_f32_is_what_the_chip_makes_of_it():
    a, b = operands(torch.float32)
    a100, mi100 = predict_bits(product, (a, b), ["a100", "mi100"])
    cut = [(x.view(torch.int32) & -8192).view(torch.float32) for x in (a, b)]
    assert "of tf32" in a100.outputs[0].assumed[0] and a100.outputs[0].bits == expected(("a100", "tf32"), *cut)
    assert "of f32" in mi100.outputs[0].assumed[0] and mi100.outputs[0].bits == expected(("mi100", "f32"), a, b)


def test_parts_outside_of_one_graph_are_not_followed():
    def broken(a, b):
        out = product(a, b)[0]
        torch._dynamo.graph_break()
        return out.exp(), out + 1

    (found,) = predict_bits(broken, operands(torch.float16), ["h100"])
    assert not any(one.known for one in found.outputs)
    assert {line for one in found.outputs for line in one.unknown if "of exp only" in line}


DOT = "%3 = tt.dot %0, %1, %2{} : tensor<{}x64x{}> * tensor<64x32x{}> -> tensor<{}x32x{}>"


def dot(type_, rows=64, sums="f32", options=""):
    return DOT.format(options, rows, type_, type_, rows, sums)


@pytest.mark.parametrize(
    "chip, ttir, reason",
    [
        ("h100", dot("f8E4M3FN", rows=16), "takes blocks of 64 rows"),
        ("mi300x", dot("f8E4M3FN"), "no instruction of mi300x"),
        ("mi100", dot("f8E5M2"), "no instruction of mi100"),
        ("v100", dot("bf16"), "no instruction of v100"),
        ("h100", dot("f32", options=", inputPrecision = tf32x3"), "no instruction of h100"),
        ("h100", dot("f64", sums="f64"), "no instruction of h100"),
        ("h100", "%1 = math.exp %0 : tensor<64xf32>", "of exp only the error is known"),
        ("h100", '%1 = tt.extern_elementwise %0 {pure = true, symbol = "tp_exp_f32"} : x', "of exp only the error"),
        ("h100", "%1 = arith.divf %0, %0 : tensor<64xf32>", "of division only the error"),
        ("h100", '%1 = "tt.reduce"(%0) ({\n  %2 = arith.addf %a, %b : f32\n  }) : x', "in tl.sum is unknown"),
        ("h100", "%1 = tt.atomic_rmw fadd, relaxed, gpu, %p, %v", "order of atomic sums"),
        ("h100", "%1 = tt.dot_scaled %a scale %s", "scaled blocks"),
        ("h100", None, "TTIR was not recorded"),
    ],
)
def test_what_has_no_known_bits_is_said(chip, ttir, reason):
    (found,) = of_kernel("k", ttir, Profile.load(chip)).unknown
    assert found.startswith("k: ") and reason in found


def test_eight_bit_dots_of_few_warps_take_another_instruction():
    ttir, h100 = dot("f8E5M2"), Profile.load("h100")
    assert of_kernel("k", ttir, h100).assumed and of_kernel("k", ttir, h100, warps=1).unknown


def test_kernels_that_were_generated_have_other_blocks_on_the_chip():
    (found,) = of_kernel("k", dot("f16"), Profile.load("h100"), generated=True).unknown
    assert "the chip's order is unknown" in found


@pytest.mark.parametrize(
    "ttir",
    [
        "%1 = math.absf %0 : tensor<64xf32>",
        '%1 = tt.extern_elementwise %0 {pure = true, symbol = "tp_sqrt_rn_f32"} : x',
        '%1 = "tt.reduce"(%0) ({\n  %2 = arith.maxnumf %a, %b : f32\n  }) : x',
        "%1 = arith.addf %0, %0 : tensor<64xf32>",
        "%1 = tt.dot %0, %0, %0 : tensor<16x32xi8> * tensor<32x16xi8> -> tensor<16x16xi32>",
    ],
)
def test_what_is_exact_or_rounded_once_is_known(ttir):
    found = of_kernel("k", ttir, Profile.load("h100"))
    assert found.assumed == found.unknown == ()


def test_sums_that_a_kernel_wants_in_f32():
    ttir = dot("f8E5M2", options=" {maxNumImpreciseAcc = 32 : i32}")
    lines = [of_kernel("k", ttir, Profile.load(chip)).assumed[0] for chip in ("h100", "b200")]
    assert ["sums of 32 terms added in f32" in line for line in lines] == [True, False]


def test_sums_in_f16_and_moves():
    (line,) = of_kernel("k", dot("f16", sums="f16"), Profile.load("b200")).assumed
    assert "sums in f16: tcgen05.mma or mma, k16, 16 terms" in line
    assert of_operator("aten.clone.default").unknown == () and of_operator("aten.bmm.out").unknown


def test_every_unit_that_is_modelled_has_its_instruction():
    for chip, type_ in UNITS:
        kind = "f8" if type_.startswith("e") else type_.removesuffix("-f16")
        assert chip in names() and Profile.load(chip).instruction(kind) is not None


MODEL = """
import torch
def make():
    return torch.nn.ReLU(), (torch.tensor([1.0, -2.0, 0.5]),)
"""


def test_the_command_prints_bits(tmp_path, capsys):
    (tmp_path / "model.py").write_text(MODEL)
    model = f"{tmp_path / 'model.py'}:make"
    command.predict_bits(model, "h100", as_json=False, folder=None)
    text = capsys.readouterr().out
    assert "output 0, float32 [3]: bits known" in text and "3f800000 00000000 3f000000" in text
    command.predict_bits(model, "h100, mi300x", as_json=True, folder=tmp_path / "runs")
    chips = json.loads(capsys.readouterr().out)["chips"]
    assert [chip["name"] for chip in chips] == ["h100", "mi300x"] and (
        tmp_path / "runs" / "mi300x" / "run.json"
    ).exists()
    assert chips[1]["outputs"][0]["bits"] == ["3f800000", "00000000", "3f000000"]
