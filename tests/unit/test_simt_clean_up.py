"""Cleaning up of lanes' code: loops that carry very many values take no minutes."""

from __future__ import annotations

import time

from mlir import ir
from torchport_simt.distribute.build import clean_up


def loop(count: int) -> ir.Module:
    """A loop that carries ``count`` values, all of them the same sum."""
    names = [f"%a{i}" for i in range(count)]
    carried = ", ".join(f"{name} = %x" for name in names)
    types = ", ".join(["f32"] * count)
    sums = "\n".join(f"  %t{i} = arith.addf %t{i - 1}, {name} : f32" for i, name in enumerate(names) if i)
    text = f"""func.func @kernel(%x: f32, %n: index) -> ({types}) {{
      %zero = arith.constant 0 : index
      %one = arith.constant 1 : index
      %r:{count} = scf.for %i = %zero to %n step %one iter_args({carried}) -> ({types}) {{
        %t0 = arith.addf %a0, %x : f32
    {sums}
        scf.yield {", ".join([f"%t{count - 1}"] * count)} : {types}
      }}
      return {", ".join(f"%r#{i}" for i in range(count))} : {types}
    }}"""
    with ir.Context(), ir.Location.unknown():
        return ir.Module.parse(text)


def carried(module: ir.Module) -> int:
    return str(module).split("iter_args(")[1].split(")")[0].count("=")


def test_equal_carried_values_are_one_where_there_are_few() -> None:
    module = loop(8)
    with module.context:
        clean_up(module)
    assert carried(module) == 1


def test_very_many_are_not_compared_in_pairs() -> None:
    """The pattern's name is upstream's and the compiler's: one that is not known would disable nothing."""
    module = loop(400)
    started = time.process_time()
    with module.context:
        clean_up(module)
    assert carried(module) > 1 and time.process_time() - started < 5
