"""The search for a smallest set: exact on additive figures, and sound where effects interact or nothing helps."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence

import pytest

from torchport.precision.minimal import smallest


def additive(errors: dict[str, float]) -> Callable[[Sequence[str]], float]:
    return lambda gone: sum(size for name, size in errors.items() if name not in gone)


def test_one_cause_is_found_wherever_it_is_ranked() -> None:
    names = [f"k{i}" for i in range(20)]
    for guilty in names:
        found = smallest(names, additive({guilty: 1.0}), 0.1)
        assert (found.chosen, found.met, found.minimal, found.smallest) == ((guilty,), True, True, True)
        assert found.trials < 30


def test_nothing_is_chosen_where_nothing_is_wrong() -> None:
    found = smallest(["a", "b"], additive({}), 0.0)
    assert (found.chosen, found.met, found.smallest, found.trials) == ((), True, True, 1)
    assert smallest([], additive({}), 0.0).met
    assert not smallest([], additive({"a": 1.0}), 0.5).met


def test_a_budget_that_cannot_be_met() -> None:
    found = smallest(["a", "b", "c"], lambda gone: 2.0 - 0.1 * len(gone), 0.0)
    assert (found.met, found.minimal, found.smallest) == (False, False, False)
    assert found.value == pytest.approx(1.7) and len(found.chosen) == 3


def test_a_fix_that_makes_things_worse_is_not_taken() -> None:
    found = smallest(["a", "b"], lambda gone: 1.0 + len(gone), 0.5)
    assert not found.met and found.chosen == () and found.value == 1.0


def test_nan_is_never_within_a_budget() -> None:
    found = smallest(["a", "b"], lambda gone: math.nan if "a" not in gone else 0.0, 1.0)
    assert found.chosen == ("a",)
    assert not smallest(["a"], lambda gone: math.nan, 1e300).met


def test_errors_that_cancel() -> None:
    """a and b cancel, c is the cause; without a alone it is worse. All together and the prefix a, b do not help."""
    values = {"a": 5.0, "b": -5.0, "c": 1.0}
    found = smallest(["a", "b", "c"], lambda gone: abs(sum(v for k, v in values.items() if k not in gone)), 0.5)
    assert found.met and found.chosen == ("c",) and found.smallest


def test_what_is_returned_was_measured_and_nothing_can_be_left_out() -> None:
    draw = random.Random(0)
    for _ in range(60):
        names = [f"k{i}" for i in range(draw.randint(1, 7))]
        table = {
            subset: draw.random() for size in range(len(names) + 1) for subset in itertools.combinations(names, size)
        }
        found = smallest(names, lambda gone, table=table: table[tuple(gone)], 0.3, trials=1000)
        assert table[found.chosen] == found.value
        assert found.met == (found.value <= 0.3)
        if found.minimal:
            assert all(table[tuple(one for one in found.chosen if one != left)] > 0.3 for left in found.chosen)
        if found.smallest:
            assert min(len(subset) for subset, value in table.items() if value <= 0.3) == len(found.chosen)


def test_trials_end() -> None:
    calls = []

    def measure(gone: Sequence[str]) -> float:
        calls.append(gone)
        return additive({"k3": 1.0, "k17": 1.0})(gone)

    names = [f"k{i}" for i in range(20)]
    found = smallest(names, measure, 0.1, trials=8)
    assert len(calls) == found.trials == 8
    assert found.met and not found.minimal and {"k3", "k17"} <= set(found.chosen)
    assert smallest(names, additive({"k3": 1.0}), 0.1, trials=1).trials == 1
