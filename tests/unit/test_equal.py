"""``torchport equal``: kernels that compute the same algebra, those that do not, and those of which it is not known."""

from __future__ import annotations

import json
from pathlib import Path

import equal_cases as cases
import pytest
import torch
from typer.testing import CliRunner

from torchport.cli.app import app
from torchport.errors import OptionError
from torchport.precision.equal import equal

FILE = Path(cases.__file__)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("online_16", "online_64"),
        ("online_16", "whole"),
        ("online_64", "online_half"),
        ("product_16", "product_32"),
        ("product_16", "product_deep"),
        ("layer_norm", "layer_norm_welford"),
        ("sort", "ranks"),
    ],
)
def test_the_same_algebra_is_proven(a: str, b: str) -> None:
    found = equal(getattr(cases, a)(), getattr(cases, b)())
    assert (found.verdict, found.reason) == ("PROVEN", "")
    assert found.elements == 3 * (33 * 20 if a.startswith("product") else cases.ROWS * cases.COLUMNS)


def test_atomic_sums() -> None:
    found = equal(cases.atomics_16(), cases.atomics_64())
    assert (found.verdict, found.elements) == ("PROVEN", 9)


def test_the_same_order() -> None:
    def order(a: str, b: str) -> str:
        return equal(getattr(cases, a)(), getattr(cases, b)(), seeds=1, order=True).verdict

    assert order("product_16", "product_32") == "PROVEN"  # blocks of rows, and terms in the same steps
    assert order("product_16", "product_deep") == "REFUTED"
    assert order("online_16", "online_64") == "REFUTED"
    assert order("online_64", "online_half") == "REFUTED"  # results are rounded to bfloat16
    assert order("atomics_16", "atomics_16") == "NOT PROVABLE"


def test_rows_of_another_batch() -> None:
    def batch(rows: int, block: int) -> object:
        x = torch.zeros(rows, 40)
        return cases.online_softmax, (rows,), {"x": x, "y": torch.zeros_like(x), "n": 40, "BLOCK": block}

    assert equal(batch(1, 16), batch(3, 16)).verdict == "NOT PROVABLE"
    found = equal(batch(1, 16), batch(3, 16), order=True, rows=True)
    assert (found.verdict, found.elements) == ("PROVEN", 3 * 40)
    assert equal(batch(3, 32), batch(1, 16), seeds=1, order=True, rows=True).verdict == "REFUTED"
    assert equal(batch(3, 32), batch(1, 16), seeds=1, rows=True).verdict == "PROVEN"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("online_16", "without_rescaling"),
        ("whole", "one_short"),
        ("layer_norm", "layer_norm_epsilon"),
        ("product_16", "short_product"),
    ],
)
def test_another_algebra_is_refuted(a: str, b: str) -> None:
    found = equal(getattr(cases, a)(), getattr(cases, b)(), seeds=1)
    assert found.verdict == "REFUTED" and found.difference is not None
    assert found.difference.argument in ("y", "c") and found.difference.real is not None
    ours, theirs = found.difference.real
    assert abs(ours - theirs) > 1e-6 * abs(ours)


@pytest.mark.parametrize(("b", "why"), [("of_bits", "bits"), ("by_address", "beyond its storage")])
def test_what_has_no_algebra_is_named(b: str, why: str) -> None:
    found = equal(cases.layer_norm(), getattr(cases, b)(), seeds=1)
    assert found.verdict == "NOT PROVABLE"
    assert why in found.reason


def test_the_command() -> None:
    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["equal", *words])
        return result.exit_code, result.output

    status, output = run(f"{FILE}:online_16", f"{FILE}:whole")
    assert status == 0 and output.startswith("PROVEN: 1500 results")
    status, output = run(f"{FILE}:whole", f"{FILE}:one_short", "--json", "--seeds", "1")
    assert status == 1 and json.loads(output)["difference"]["argument"] == "y"
    status, output = run(f"{FILE}:whole", f"{FILE}:of_bits")
    assert status == 2 and "bits of a float" in output


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ((cases.whole_softmax, (1,)), "a case is"),
        ((len, (1,), {}), "no @triton.jit function"),
        ((cases.whole_softmax, (1,), {"x": torch.zeros(1)}), "needs the argument 'y'"),
        ((cases.whole_softmax, (1,), {"z": 1}), "no argument 'z'"),
        ((cases.product, (1,), cases.product_16()[2]), "cannot be paired"),
    ],
)
def test_what_is_no_case(case: object, why: str) -> None:
    with pytest.raises(OptionError, match=why):
        equal(cases.whole(), case)
