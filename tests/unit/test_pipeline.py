"""Running passes in order: what is verified, observed and timed, and which errors name the pass."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mlir import ir

from torchport.errors import CompilationError, OptionError, UnsupportedOperation
from torchport.pipeline import Pass, Pipeline


@dataclass(frozen=True)
class Nothing:
    name: ClassVar[str] = "nothing"

    def apply(self, module: Any) -> None:
        pass


@dataclass(frozen=True)
class Rename:
    """Give the module's only function another name."""

    name: ClassVar[str] = "rename"
    to: str

    def apply(self, module: Any) -> None:
        with module.context:
            module.body.operations[0].attributes["sym_name"] = ir.StringAttr.get(self.to)


@dataclass(frozen=True)
class Fails:
    """Call ``how`` with the module's only function."""

    name: ClassVar[str] = "fails"
    how: Callable[[Any], object]

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown(), ir.InsertionPoint.at_block_begin(module.body):
            self.how(module.body.operations[0])


@pytest.fixture
def module() -> ir.Module:
    context = ir.Context()
    return ir.Module.parse("func.func @f(%x: f32) -> f32 { return %x : f32 }", context)


def raising(error: Exception) -> Callable[[Any], object]:
    def how(function: Any) -> None:
        raise error

    return how


def unverified(function: Any) -> None:
    """An addition whose result has another type than its operands."""
    type_ = ir.IntegerType.get_signless(32)
    one = ir.Operation.create("arith.constant", [type_], [], {"value": ir.IntegerAttr.get(type_, 1)}).results[0]
    ir.Operation.create("arith.addi", [ir.IntegerType.get_signless(8)], [one, one])


def endless(function: Any) -> None:
    endless(function)


def test_passes_run_in_order_and_are_timed(module: ir.Module) -> None:
    seen = []
    passes: list[Pass] = [Rename("g"), Nothing(), Rename("h")]
    pipeline = Pipeline(passes, lambda name, m: seen.append((name, str(m.body.operations[0].attributes["sym_name"]))))
    pipeline.run(module)
    assert seen == [("rename", '"g"'), ("nothing", '"g"'), ("rename", '"h"')]
    assert [time.name for time in pipeline.times] == ["rename", "nothing", "rename"]
    assert all(time.seconds >= 0 for time in pipeline.times)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (unverified, "requires the same type"),
        (lambda f: ir.Type.parse("!nothing<"), "Unable to parse type"),
        (lambda f: ir.StringAttr(f.attributes["function_type"]), "Cannot cast"),
        (lambda f: f.attributes["axis"], "attribute"),
        (lambda f: f.regions[1], "out of range"),
        (lambda f: ir.RankedTensorType.get("x", ir.F32Type.get()), "incompatible function arguments"),
        (endless, "recursion"),
    ],
)
def test_what_unexpected_ir_raises_names_pass_and_kernel(
    module: ir.Module, how: Callable[[Any], object], message: str
) -> None:
    after: list[str] = []
    pipeline = Pipeline([Nothing(), Fails(how), Rename("g")], lambda name, _: after.append(name))
    with pytest.raises(CompilationError, match=rf"(?s)^pass 'fails' failed on kernel f_0: .*{message}") as caught:
        pipeline.run(module, kernel="f_0")
    assert (caught.value.kernel, caught.value.stage) == ("f_0", "fails")
    assert caught.value.__cause__ is not None
    assert after == ["nothing"]
    assert [time.name for time in pipeline.times] == ["nothing"]


@pytest.mark.parametrize(
    "error",
    [
        UnsupportedOperation("tt.dot", "too large"),
        OptionError("lanes must be a power of two"),
        AssertionError("a mistake in a pass"),
        AttributeError("another"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_come_out_as_they_are(module: ir.Module, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        Pipeline([Fails(raising(error))]).run(module, kernel="f_0")
    assert caught.value is error


TTIR = """module {
  tt.func public @kernel(%x: !tt.ptr<f32>) attributes {noinline = false} {
    %c = arith.constant 1.0 : f32
    tt.store %x, %c : !tt.ptr<f32>
    tt.return
  }
}
"""


def test_a_failure_ends_in_the_command_that_repeats_it(module: ir.Module) -> None:
    passes = [Nothing(), Rename(to="g"), Fails(how=raising(IndexError("no operand")))]
    with pytest.raises(CompilationError) as caught:
        Pipeline(passes).run(module, kernel="kernel", source=TTIR)
    command = shlex.split(str(caught.value).splitlines()[-1].removeprefix("Repeat it with: "))
    assert command[:2] == ["torchport", "opt"] and command[3] == "-p"
    assert Path(command[2]).read_text() == TTIR
    assert command[4].startswith("nothing,rename{to=g},fails{how=")
    Path(command[2]).unlink()


def test_the_command_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass of the CPU target that fails on a kernel fails again on what was written, run as the command says."""
    from torchport_cpu.host import host_info
    from torchport_cpu.lower import lower_ttir
    from torchport_passes.nests.form_nests import FormNests

    from torchport.cli.opt import opt

    monkeypatch.setattr(FormNests, "apply", lambda self, module: raising(IndexError("broken"))(module))
    with pytest.raises(CompilationError) as caught:
        lower_ttir(TTIR, host_info())
    first, command = str(caught.value).splitlines()
    assert first == "pass 'form-nests' failed on kernel kernel: IndexError: broken"
    file, option, passes = shlex.split(command.removeprefix("Repeat it with: torchport opt "))
    assert option == "-p"
    with pytest.raises(CompilationError, match=r"pass .form-nests. failed on kernel .*: IndexError: broken"):
        opt(file, passes=passes, after=None, until=None, output=None, target="cpu", print_after_all=False)
    Path(file).unlink()


def test_a_full_disk_takes_the_command_only(module: ir.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(CompilationError, match=r"pass 'fails' failed.*\n.*No space left on device.*no command"):
        Pipeline([Fails(how=raising(KeyError("x")))]).run(module, source=TTIR)


def test_with_dumps_the_kernel_is_written_among_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torchport_cpu.host import host_info
    from torchport_cpu.lower import lower_ttir
    from torchport_passes.nests.form_nests import FormNests

    monkeypatch.setenv("TORCHPORT_DEBUG", "3")
    monkeypatch.setenv("TORCHPORT_DUMP_DIR", str(tmp_path / "dumps"))
    monkeypatch.setattr(FormNests, "apply", lambda self, module: raising(IndexError("broken"))(module))
    with pytest.raises(CompilationError) as caught:
        lower_ttir(TTIR, host_info())
    (file,) = (tmp_path / "dumps").iterdir()
    assert f"torchport opt {file} -p " in str(caught.value) and file.read_text() == TTIR
