"""Declarations of the dialects tt and tp: complete, true of what the passes make, and false of malformed operations."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlir import ir
from torchport_cpu.host import host_info
from torchport_cpu.lower import lower_ttir
from torchport_passes.frontend.importer import new_context
from torchport_passes.ir.dialects.verify import DECLARED, verify
from torchport_passes.ir.traits import TRAITS

from torchport.errors import TorchportError
from torchport.pipeline import Pipeline

LIT = Path(__file__).parents[2] / "passes" / "test"
MALFORMED = {
    "a nest without a shape": ('"tp.nest"() ({ "tp.yield"() : () -> () }) : () -> ()', "tp.nest.*no attribute 'shape'"),
    "a nest without a body": ('"tp.nest"() {shape = array<i64: 4>} : () -> ()', "tp.nest.*0 regions in place of 1"),
    "a load from a number": ('%v = "tt.load"(%f) : (f32) -> f32', "tt.load.*is f32, which is no pointer"),
    "a load with a float mask": ('%v = "tt.load"(%p, %f) : (!llvm.ptr, f32) -> f32', "tt.load.*f32, which is no bool"),
    "a store of nothing": ('"tt.store"(%p) : (!llvm.ptr) -> ()', "tt.store.*the any at position 1 is missing"),
    "a range with an operand": (
        '%r = "tt.make_range"(%f) {start = 0 : i32, end = 4 : i32} : (f32) -> tensor<4xi32>',
        "tt.make_range.*there are 1",
    ),
    "a splat to a scalar": ('%s = "tt.splat"(%f) : (f32) -> f32', "tt.splat.*results .*f32, which is no tensor"),
    "a write to a tensor": ('"tp.write"(%t, %t) : (tensor<4xf32>, tensor<4xf32>) -> ()', "tp.write.*no buffer"),
    "an operation nobody knows": ('"tt.levitate"() : () -> ()', "tt.levitate.*no dialect declares it"),
}


def module_of(operation: str) -> ir.Module:
    arguments = "%p: !llvm.ptr, %f: f32, %t: tensor<4xf32>"
    return ir.Module.parse(f"func.func @f({arguments}) {{\n{operation}\nreturn\n}}", new_context())


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_operation_is_named(what: str) -> None:
    operation, message = MALFORMED[what]
    with pytest.raises(ValueError, match=message):
        verify(module_of(operation))


def test_well_formed_operations_pass() -> None:
    verify(module_of('%v = "tt.load"(%p) : (!llvm.ptr) -> f32\n"tt.store"(%p, %f) : (!llvm.ptr, f32) -> ()'))


def test_every_operation_with_traits_is_declared_and_the_other_way() -> None:
    assert set(DECLARED) == {name for name in TRAITS if name.startswith(("tt.", "tp."))}


WHOLE = sorted(path.stem for path in LIT.glob("*.ttir") if "tp." not in path.read_text().split("module", 1)[-1])


@pytest.mark.parametrize("name", [name for name in WHOLE if name != "mark_streams_powers"])
def test_what_the_passes_make_is_declared(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each pass of the CPU target, on the kernels of the lit tests, with and without the sanitizer."""
    original = Pipeline.run

    def checked(self: Pipeline, *args: object, **keywords: object) -> None:
        self.check = verify
        original(self, *args, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(Pipeline, "run", checked)
    ttir = (LIT / f"{name}.ttir").read_text()
    for sanitize in (False, True):
        try:
            lower_ttir(ttir, host_info(), sanitize=sanitize)
        except TorchportError as error:  # a lit test's kernel may have what the target refuses
            assert "malformed" not in str(error)
        except RuntimeError as error:
            assert "invalidated" in str(error)
