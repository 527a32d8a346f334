"""Compares two runs as programs."""

from __future__ import annotations

from torchport.numerics.programs.data import compare_data
from torchport.numerics.programs.difference import KINDS, Programs
from torchport.numerics.programs.graph_differences import compare_graphs
from torchport.numerics.programs.pairing import pair_externals
from torchport.numerics.programs.program import program_of
from torchport.numerics.programs.provenance import conditions
from torchport.numerics.programs.sources import compare_kernels, compare_operators
from torchport.numerics.runs.reader import Run

__all__ = ["compare_programs"]


def compare_programs(a: Run, b: Run) -> Programs:
    """How run ``b`` differs from run ``a`` as a program, in what it was given, and in what it was recorded under."""
    first, second = program_of(a), program_of(b)
    found = Programs(conditions=conditions(first, second))
    if not first.dump["nodes"] or not second.dump["nodes"]:
        found.shared = False
        found.unknown.append("one of the runs has no call of a compiled graph")
        return found
    kernels, blocks, notes = compare_kernels(a, b)
    operators, unknown = compare_operators(a, b)
    externals = pair_externals(first, second)
    graphs = compare_graphs(first, second, externals, same_torch=_torch(a) == _torch(b))
    given = compare_data(first, second, externals)
    found.unknown = graphs.unknown
    if (
        first.unseen != second.unseen and graphs.differences
    ):  # what one run lacks may be in calls that were not recorded
        found.unknown.append("later calls of graphs were not recorded: record both runs with calls=N")
        graphs.differences.clear()
        given.differences = [one for one in given.differences if not one.summary.endswith(" only")]
    found.unseen = max(first.unseen, second.unseen)
    found.shared = bool(graphs.common or given.compared)
    found.differences = [*kernels, *operators, *graphs.differences, *given.differences]
    found.differences.sort(key=lambda one: list(KINDS).index(one.kind))
    found.conditions += blocks
    found.notes += [*notes, *unknown, *graphs.notes, *given.notes]
    return found


def _torch(run: Run) -> object:
    return (run.info.get("environment") or {}).get("torch")
