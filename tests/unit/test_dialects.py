"""Declarations of the dialects tt and tp: complete, true of what the passes make, and false of malformed operations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mlir import ir
from torchport_cpu.host import host_info
from torchport_cpu.lower import lower_ttir
from torchport_passes import registry
from torchport_passes.frontend.importer import new_context
from torchport_passes.ir.dialects.tp import ATTRIBUTES
from torchport_passes.ir.dialects.verify import DECLARED, verify
from torchport_passes.ir.traits import TRAITS
from torchport_simt import SIMTCompiler, Spelling
from torchport_simt.compilation import lower

from torchport.capabilities import Capabilities
from torchport.errors import CompilationError, TorchportError
from torchport.pipeline import Pipeline
from torchport.target import Target

ROOT = Path(__file__).parents[2]
LIT = ROOT / "passes" / "test"
MALFORMED = {
    "a nest without a shape": ('"tp.nest"() ({ "tp.yield"() : () -> () }) : () -> ()', "tp.nest.*no attribute 'shape'"),
    "a nest without a body": ('"tp.nest"() {shape = array<i64: 4>} : () -> ()', "tp.nest.*0 regions in place of 1"),
    "a nest with another shape": (
        '"tp.nest"() ({ "tp.yield"() : () -> () }) {shape = 4 : i64} : () -> ()',
        "tp.nest.*attribute 'shape' is 4 : i64, which is no integers",
    ),
    "a nest with another end": (
        '"tp.nest"() ({ "tt.return"() : () -> () }) {shape = array<i64: 4>} : () -> ()',
        "tp.nest.*region does not end in tp.yield",
    ),
    "a nest with one attribute too many": (
        '"tp.nest"() ({ "tp.yield"() : () -> () }) {shape = array<i64: 4>, axes = 0 : i64} : () -> ()',
        "tp.nest.*attribute 'axes' is not declared",
    ),
    "a load from a number": ('%v = "tt.load"(%f) : (f32) -> f32', "tt.load.*is f32, which is no pointer"),
    "a load with a float mask": ('%v = "tt.load"(%p, %f) : (!llvm.ptr, f32) -> f32', "tt.load.*f32, which is no bool"),
    "a load of more than it points to": (
        '%v = "tt.load"(%p) : (!llvm.ptr) -> tensor<4xf32>',
        r"tt.load.*shapes \(\), \(4,\)",
    ),
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


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ("{tp.price = 1.0 : f64}", "builtin.module.*'tp.price' is not declared"),
        ("{tp.cost = 1 : i64}", "builtin.module.*'tp.cost' is 1 : i64, which is no float"),
    ],
)
def test_a_fact_that_nobody_declared_is_named(attributes: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify(ir.Module.parse(f"module attributes {attributes} {{}}", new_context()))


class Breaks:
    name: ClassVar[str] = "breaks"

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown(), ir.InsertionPoint.at_block_begin(module.body):
            ir.Operation.create("tp.barrier", [], [])


class Removes:
    name: ClassVar[str] = "removes"
    removes: ClassVar[frozenset[str]] = frozenset({"tp.lane"})

    def apply(self, module: Any) -> None:
        pass


def test_the_pass_that_breaks_an_operation_is_named() -> None:
    with pytest.raises(CompilationError, match=r"^pass 'breaks' failed .*tp\.barrier.*no attribute 'memory'"):
        Pipeline([Removes(), Breaks()], check=verify).run(module_of(""), kernel="f")


def test_a_pass_removes_what_it_says() -> None:
    module = module_of('%l = "tp.lane"() : () -> i32')
    with pytest.raises(CompilationError, match=r"^pass 'removes' failed .*tp\.lane is left over"):
        Pipeline([Removes()], check=verify).run(module, kernel="f")


def test_malformed_input_is_no_pass_s_fault() -> None:
    with pytest.raises(CompilationError, match=r"^the passes cannot take kernel f: tt\.levitate") as caught:
        Pipeline([Breaks()], check=verify).run(module_of('"tt.levitate"() : () -> ()'), kernel="f")
    assert caught.value.stage == "import"


def test_every_operation_with_traits_is_declared_and_the_other_way() -> None:
    assert set(DECLARED) == {name for name in TRAITS if name.startswith(("tt.", "tp."))}


NO_OPERATION = {"tt.divisibility", "tt.func"}
"""Triton's words in TTIR that the importer or the emitter looks for."""
BEGINNINGS = {"tt.atomic", "tt.extern", "tt.precise", "tt.precise_"}
"""What names of operations begin with."""


def test_every_name_in_the_code_is_declared() -> None:
    folders = [ROOT / "passes" / "torchport_passes", ROOT / "passes" / "torchport_simt", ROOT / "backends"]
    named = {
        name
        for folder in folders
        for path in folder.rglob("*.py")
        for name in re.findall(r"[\"'](t[tp]\.[a-z_.0-9]*[a-z_0-9])[\"']", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 60
    assert named - set(DECLARED) - set(ATTRIBUTES) - NO_OPERATION - BEGINNINGS == set()
    assert set(ATTRIBUTES) <= named


def test_every_fact_is_documented() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`tp\..*?) \|", page, re.MULTILINE)
    assert set(re.findall(r"`(tp\.\w+)`", "".join(rows))) == set(ATTRIBUTES)


def test_what_passes_remove_is_declared() -> None:
    for name in registry.names():
        for removed in getattr(registry.load(name), "removes", ()):
            assert removed in DECLARED or removed.endswith("."), name


WHOLE = sorted(path.stem for path in LIT.glob("*.ttir") if "tp." not in path.read_text().split("module", 1)[-1])
# mark_streams_powers is written for one pass: others take exponential time for its addresses
WHOLE.remove("mark_streams_powers")
ABLE = Capabilities(
    simd_width=8, simd_groups=(1, 2, 4, 8, 16, 32), lane_elements=1, block_elements=4096, grid=(65535, 65535, 65535),
    scratchpad_bytes=65536, dtypes=frozenset({"int1", "int8", "int32", "int64", "fp16", "bf16", "fp32", "fp64"}),
    dot_precisions=frozenset({"ieee"}), denormals=frozenset({"fp32"}), atomics=frozenset({"int32", "int64"}),
)  # fmt: skip


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lowerings check the IR after each pass."""
    monkeypatch.setenv("TORCHPORT_DEBUG", "4")
    monkeypatch.setenv("TORCHPORT_DUMP_DIR", str(tmp_path))
    run = Pipeline.run

    def checked_run(self: Pipeline, *args: Any, **keywords: Any) -> None:
        assert self.check is verify
        run(self, *args, **keywords)

    monkeypatch.setattr(Pipeline, "run", checked_run)


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize("name", WHOLE)
def test_what_the_passes_make_is_declared(name: str) -> None:
    """After each pass of the CPU target, on the kernels of the lit tests, with and without the sanitizer."""
    ttir = (LIT / f"{name}.ttir").read_text()
    for sanitize in (False, True):
        try:
            lower_ttir(ttir, host_info(), sanitize=sanitize)
        except TorchportError as error:  # a lit test's kernel may have what the target refuses
            assert not re.search("malformed|left over", str(error))
        except RuntimeError as error:
            assert "invalidated" in str(error)


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize("name", WHOLE)
def test_what_the_simt_passes_make_is_declared(name: str) -> None:
    """After each pass of the SIMT lowering, likewise."""
    try:
        lower((LIT / f"{name}.ttir").read_text(), SIMTCompiler(Target("null"), Spelling("plain C", "c", ""), ABLE))
    except TorchportError as error:
        assert not re.search("malformed|left over", str(error))
