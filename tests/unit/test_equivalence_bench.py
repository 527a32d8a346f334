"""Mutants of a kernel: those that change its results are refuted, and all kinds of them are made."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from equivalence_bench.judging import chosen, judged
from equivalence_bench.kernels import CASES
from equivalence_bench.mutants import mutants

from torchport.precision.equal import launch_of


def test_mutants_that_change_results_are_refuted() -> None:
    launch = launch_of(*CASES["norms"][0]())
    found = [judged(*one) for one in islice(chosen([("norms", launch)], 0), 8)]
    changed = [one for one in found if one is not None and one.changed]
    assert len(changed) >= 5 and {one.found.verdict for one in changed} == {"REFUTED"}


def test_kinds_of_mutants() -> None:
    kinds = Counter(mutant.kind for mutant in mutants(launch_of(*CASES["attention"][0]()).ttir))
    assert set(kinds) >= {
        "a constant", "a lost sum", "a lost term", "a mask one short", "a missing rescale", "another function",
        "another operator", "operands swapped", "the wrong axis",
    }  # fmt: skip
    assert kinds["a missing rescale"] == 2, "of the sum and of the result"
