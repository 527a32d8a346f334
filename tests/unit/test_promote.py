"""The option ``arithmetic``, and what pass ``promote`` refuses and leaves."""

from __future__ import annotations

import pytest
from torchport_passes.arithmetic.passes_for import passes_for
from torchport_passes.arithmetic.promote import Promote
from torchport_passes.frontend.importer import import_ttir

from torchport.errors import OptionError, UnsupportedOperation


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", []),
        ("{}", []),
        ('{"promote": false}', []),
        ('{"promote": true}', [Promote()]),
        ('{"noise": {}, "promote": true}', [Promote(noise=True)]),
        ('{"noise": {"scale": 2, "seed": 5, "ulp": {"sin": 4, "exp": 2}}, "promote": true}',
         [Promote(noise=True, ulp="exp:2;sin:4")]),
    ],
)  # fmt: skip
def test_arithmetic_is_a_list_of_passes(text: str, passes: list[Promote]) -> None:
    assert passes_for(text) == passes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("promote", "is not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"golden": true}', "no 'golden'; it knows algebra, noise, order, promote, rules"),
        ('{"noise": {}}', "noise without promote"),
        ('{"noise": {"size": 1}, "promote": true}', "noise has no 'size'"),
        ('{"noise": {"ulp": {"exp": "two"}}, "promote": true}', "table of numbers"),
        ('{"promote": true, "rules": {}}', "both promote and rules"),
    ],
)
def test_arithmetic_that_says_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        passes_for(text)


def test_kernels_of_other_arithmetic_are_other_kernels() -> None:
    import triton  # noqa: F401  # it imports its backends
    from torchport_cpu.options import CPUOptions
    from torchport_passes.frontend.triton_options import accepted_options

    options = [CPUOptions(**accepted_options({"arithmetic": text})) for text in ("", '{"promote": true}')]
    assert options[0] == CPUOptions(**accepted_options({}))
    assert options[0].hash() != options[1].hash()


KERNEL = """module {{
  tt.func public @kernel(%p: !tt.ptr<{pointee}>, %i: i64) attributes {{noinline = false}} {{
{body}
    tt.return
  }}
}}"""


def promoted(body: str, pointee: str = "f32", *, keep_pointees: bool = True, noise: bool = False) -> str:
    module = import_ttir(KERNEL.format(body=body, pointee=pointee), keep_pointees=keep_pointees)
    Promote(noise=noise).apply(module)
    module.operation.verify()
    return str(module)


@pytest.mark.parametrize(
    ("body", "pointee", "message"),
    [
        ("%q = tt.load %p : !tt.ptr<!tt.ptr<f32>>", "!tt.ptr<f32>", "pointers kept in memory"),
        (
            "%q = tt.bitcast %p : !tt.ptr<f32> -> !tt.ptr<i32>\n%r = tt.load %q : !tt.ptr<i32>",
            "f32",
            "a pointer to f32 is used as one to i32",
        ),
        ("%q = tt.bitcast %p : !tt.ptr<i32> -> !tt.ptr<f16>", "i32", "a pointer to i32 is used as one to f16"),
        ("%q = tt.int_to_ptr %i : i64 -> !tt.ptr<f32>", "f32", "addresses made of integers"),
    ],
)
def test_what_promotion_cannot_widen_is_refused(body: str, pointee: str, message: str) -> None:
    with pytest.raises(UnsupportedOperation, match=message):
        promoted(body, pointee)


def test_pointers_of_unknown_pointee_are_refused() -> None:
    with pytest.raises(UnsupportedOperation, match="without them"):
        promoted("%q = tt.addptr %p, %i : !tt.ptr<f32>, i64", keep_pointees=False)


@pytest.mark.parametrize(
    ("pointee", "size"), [("f32", 8), ("bf16", 8), ("f8E5M2", 8), ("f64", 8), ("i32", 4), ("i1", 1)]
)
def test_pointers_to_floats_count_in_f64(pointee: str, size: int) -> None:
    text = promoted(f"%q = tt.addptr %p, %i : !tt.ptr<{pointee}>, i64", pointee)
    assert f"elem_bytes = {size} : i64}}" in text


@pytest.mark.parametrize(("pointee", "other"), [("i1", "i8"), ("f64", "i64")])
def test_pointers_seen_as_others_stay_where_nothing_is_widened(pointee: str, other: str) -> None:
    body = f"%q = tt.bitcast %p : !tt.ptr<{pointee}> -> !tt.ptr<{other}>"
    assert "tt.bitcast" in promoted(body, pointee)


CONSTANTS = """    %c = arith.constant dense<[0.1, 2.5]> : tensor<2xf32>
    %d = arith.constant dense<[1, 2]> : tensor<2xi32>
    %e = arith.constant 0xFF800000 : f32
    %f = arith.constant dense<0.1> : tensor<4xbf16>"""


def test_constants_keep_the_value_they_had() -> None:
    text = promoted(CONSTANTS)
    assert "dense<[0.10000000149011612, 2.500000e+00]> : tensor<2xf64>" in text
    assert "dense<[1, 2]> : tensor<2xi32>" in text
    assert "0xFFF0000000000000 : f64" in text
    assert "dense<0.10009765625> : tensor<4xf64>" in text


EXACT = """    %x = tt.load %p : !tt.ptr<f32>
    %zero = arith.constant 0.0 : f32
    %quarter = arith.constant 0.25 : f32
    %one = arith.constant -1.0 : f32
    %a = arith.addf %x, %zero : f32
    %b = arith.divf %a, %quarter : f32
    %c = arith.negf %b : f32
    %m = arith.mulf %c, %one : f32
    %d = arith.maximumf %m, %x : f32
    tt.store %p, %d : !tt.ptr<f32>"""


def test_operations_that_are_exact_get_no_noise() -> None:
    assert "arith.bitcast" not in promoted(EXACT, noise=True)
    assert "arith.bitcast" in promoted(EXACT.replace("0.25", "0.3"), noise=True)
