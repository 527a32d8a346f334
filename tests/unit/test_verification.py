"""Where the IR is verified: at the end of a lowering, and after every pass once that fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from mlir import ir
from torchport_cpu import lower
from torchport_cpu.host import host_info

from torchport.errors import CompilationError

TTIR = """module {
  tt.func public @kernel(%out: !tt.ptr<f32>) attributes {noinline = false} {
    %one = arith.constant 1.000000e+00 : f32
    tt.store %out, %one : !tt.ptr<f32>
    tt.return
  }
}
"""


@dataclass(frozen=True)
class Breaks:
    """Leave IR that does not verify: an addition of values of two types."""

    name: ClassVar[str] = "breaks"

    def apply(self, module: Any) -> None:
        with module.context, ir.Location.unknown():
            entry = module.body.operations[0].regions[0].blocks[0]
            with ir.InsertionPoint.at_block_begin(entry):
                kinds = [ir.IntegerType.get_signless(bits) for bits in (32, 64)]
                one, two = (
                    ir.Operation.create(
                        "arith.constant", [kind], attributes={"value": ir.IntegerAttr.get(kind, 1)}
                    ).results[0]
                    for kind in kinds
                )
                ir.Operation.create("arith.addi", [kinds[0]], [one, two])


def test_the_pass_that_breaks_the_ir_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = lower.passes

    def broken(*args: Any, **kwargs: Any) -> list[Any]:
        chosen = original(*args, **kwargs)
        return [*chosen[:-2], Breaks(), *chosen[-2:]]

    monkeypatch.setattr(lower, "passes", broken)
    with pytest.raises(CompilationError, match="'breaks' failed on kernel kernel"):
        lower.lower_ttir(TTIR, host_info())


def test_a_kernel_is_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    every: list[bool] = []
    original = lower.Pipeline

    def pipeline(*args: Any, **kwargs: Any) -> Any:
        every.append(kwargs["every"])
        return original(*args, **kwargs)

    monkeypatch.setattr(lower, "Pipeline", pipeline)
    assert "ret void" in lower.lower_ttir(TTIR, host_info()).llvm_ir
    assert every == [False]
