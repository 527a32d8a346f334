"""The table of operations: complete, and equal to the sets of names that passes kept before there was a table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torchport_passes
import torchport_simt
from torchport_passes.ir import traits
from torchport_passes.ir.dialects.tp import ATTRIBUTES

ATOMICS = {"tt.atomic_rmw", "tt.atomic_cas"}
SETS = {  # derived set, and the one it replaced
    "ir/ops ELEMENTWISE": (
        traits.ELEMENTWISE,
        {
            "tt.addptr", "tt.bitcast", "tt.int_to_ptr", "tt.ptr_to_int", "tt.extern_elementwise", "tt.clampf",
            "tt.mulhiui", "tt.precise_sqrt", "tt.precise_divf", "tt.fp_to_fp", "ub.poison", "tp.check",
        },
    ),
    "ir/ops INDEX_MAPS": (traits.INDEX_MAPS, {"tt.splat", "tt.broadcast", "tt.expand_dims", "tt.trans", "tt.reshape"}),
    "bounds, strides, guard_program, exchange": (traits.REPEATS, {"tt.splat", "tt.broadcast", "tt.expand_dims"}),
    "scalarize _PURE": (
        traits.WITHOUT_ARITHMETIC,
        {
            "tt.splat", "tt.broadcast", "tt.expand_dims", "tt.trans", "tt.reshape", "arith.constant", "tt.make_range",
            "tt.unsplat",
        },
    ),
    "vector_dimension, which sees no tt.unsplat": (
        traits.WITHOUT_ARITHMETIC - {"tt.unsplat"},
        {"tt.splat", "tt.broadcast", "tt.expand_dims", "tt.trans", "tt.reshape", "tt.make_range", "arith.constant"},
    ),
    "ir/ops root_pointer, which stopped at tt.unsplat": (
        traits.SAME_MEMORY - {"tt.unsplat"},
        {"tt.addptr", "tt.splat", "tt.broadcast", "tt.expand_dims", "tt.reshape", "tt.trans", "tt.bitcast"},
    ),
    "provenance _THROUGH": (
        traits.SAME_MEMORY,
        {
            "tt.addptr", "tt.splat", "tt.unsplat", "tt.broadcast", "tt.expand_dims", "tt.reshape", "tt.trans",
            "tt.bitcast",
        },
    ),
    "strides _LEAVES": (
        traits.POSITIONAL | {"arith.constant"},
        {"tt.make_range", "tp.read", "tt.reduce", "arith.constant", *ATOMICS},
    ),
    "lane_values level_of": (traits.POSITIONAL, {"tt.make_range", "tp.read", "tt.reduce", *ATOMICS}),
    "guard_program, lower_kernel": (traits.PROGRAM_IDS, {"tt.get_program_id", "tt.get_num_programs"}),
    "nest LOADS": (traits.LOADS, {"tt.load", "tp.read"}),
    "nest WRITES": (traits.WRITES, {"tt.store", "tp.write", *ATOMICS}),
    "nest ANCHORS": (traits.ANCHORS, {"tt.store", "tt.reduce", "tt.assert", "tt.print", "tp.write", *ATOMICS}),
    "vector_dimension _MEMORY": (traits.MEMORY_ACCESSES, {"tt.load", "tt.store", "tp.read", "tp.write", *ATOMICS}),
    "cost": (traits.PLAIN_ACCESSES, {"tt.load", "tt.store", "tp.read", "tp.write"}),
    "simt ACCESSES": (traits.GLOBAL_ACCESSES, {"tt.load", "tt.store", *ATOMICS}),
    "grouping _EFFECTS": (
        traits.ORDERED,
        {"tt.load", "tt.store", "tt.assert", "tt.print", "llvm.intr.assume", *ATOMICS},
    ),
    "grouping _ENDS_DEFERRAL": (traits.ENDS_DEFERRAL, {"tt.load", "tt.print", *ATOMICS}),
    "guard_program _EFFECTS": (traits.EFFECTS, {"tt.store", "tt.assert", "tt.print", "func.call", *ATOMICS}),
    "scalarize effects": (traits.SCALAR_EFFECTS, {"tt.store", "tt.assert", *ATOMICS}),
    "buffers _WHOLE": (
        traits.WHOLE_TENSORS,
        {
            "tt.scan", "tt.gather", "tt.histogram", "tt.split", "tt.cat", "tt.join", "tt.map_elementwise", "tp.sort",
            "tp.flip",
        },
    ),
    "scalarize, guard_program, noise": (traits.COMBINES, {"tt.reduce", "tt.scan"}),
    "distribute _PURE": (
        traits.REMOVABLE,
        {"tt.load", "tp.scratch_load", "tt.addptr", "tp.extern", "tp.fp_to_fp", "tt.get_program_id", "tp.lane",
         "tp.wide_load", "tp.wide_scratch_load"},
    ),
    "promote, rounding": (traits.CONVERSIONS, {"arith.extf", "arith.truncf", "tt.fp_to_fp"}),
    "emulate_denormals": (traits.FUNCTIONS, {"tt.extern_elementwise", "tt.precise_sqrt", "tt.precise_divf"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_a_derived_set_is_the_one_it_replaced(name):
    derived, before = SETS[name]
    assert derived == before


def test_masks_and_costs_are_those_before():
    assert traits.MASKS == {"tt.load": 1, "tt.store": 2, "tt.atomic_rmw": 2, "tt.atomic_cas": 3}
    assert {
        "arith.divf": 6.0, "math.sqrt": 6.0, "tt.precise_sqrt": 6.0, "tt.precise_divf": 6.0,
        "tt.extern_elementwise": 12.0, "arith.remf": 20.0, **dict.fromkeys((*ATOMICS, "tt.reduce"), traits.ONCE),
    } == traits.RECOMPUTE_COSTS  # fmt: skip


def test_every_operation_that_a_pass_names_has_a_row():
    folders = [Path(package.__file__).parent for package in (torchport_passes, torchport_simt)]
    sources = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    named = {name for source in sources for name in re.findall(r"\"(t[tp]\.[a-z_]+(?:\.return)?)\"", source)}
    attributes = {"tt.divisibility", "tt.func", *ATTRIBUTES}
    attributes |= {"tt.precise_", "tt.extern", "tt.atomic", "tt.precise"}  # beginnings of names
    assert len(named) > 50
    assert named - attributes <= set(traits.TRAITS)


def test_every_form_of_the_importer_has_a_row():
    from torchport_passes.frontend.importer import _FORMS

    assert {f"tt.{name}" for name in _FORMS} <= set(traits.TRAITS)


def test_rows_agree_with_themselves():
    for name, row in traits.TRAITS.items():
        has = row.traits.__contains__
        assert not has(traits.Trait.REPEATS) or has(traits.Trait.INDEX_MAP), name
        assert not has(traits.Trait.ATOMIC) or has(traits.Trait.WRITE), name
        assert (row.mask is not None) == has(traits.Trait.GLOBAL), name
        assert not (has(traits.Trait.ELEMENTWISE) and has(traits.Trait.WHOLE_TENSOR)), name
