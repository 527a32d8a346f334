"""Batch invariance: what depends on the batch is found, by how much, and what does not is not blamed."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from torchport.cli.app import app
from torchport.errors import OptionError
from torchport.precision.batch import batch_invariance
from torchport.precision.batch_orders import kernel_orders

x = torch.randn(5, 33, generator=torch.Generator().manual_seed(0))


def test_rows_of_their_own_do_not_depend_on_the_batch() -> None:
    (found,) = batch_invariance(lambda x: torch.softmax(x * 2, -1), (x,))
    assert (found.examples, found.different, found.ulp) == (2, 0, 0.0)


def test_what_the_batch_changes_is_found() -> None:
    rows, total = batch_invariance(lambda x, scale: (x * scale + 1e-6 * x.mean(), x * scale), (x, torch.tensor(3.0)))
    assert rows.different == 2
    assert 0 < rows.relative_l2 < 1e-5
    assert rows.ulp >= 1
    assert total.different == 0


def test_no_batch_is_an_error() -> None:
    with pytest.raises(OptionError, match="two examples"):
        batch_invariance(torch.relu, (x[:1],))
    with pytest.raises(OptionError, match="no output"):
        batch_invariance(torch.sum, (x,))


def test_the_command(tmp_path: object) -> None:
    file = f"{tmp_path}/model.py"
    with open(file, "w") as out:
        out.write("import torch\n\ndef make():\n    return torch.nn.Softmax(-1), (torch.ones(3, 8),)\n")
    done = CliRunner().invoke(app, ["batch", f"{file}:make"])
    assert done.exit_code == 0, done.output
    assert "float32" in done.output
    assert "CERTIFIED" in done.output


def test_the_order_of_a_models_kernels() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.LayerNorm(33), torch.nn.Linear(33, 40), torch.nn.Softmax(-1))
    found = kernel_orders(model, (x[:1],), (x,), 5)
    assert {one.verdict for one in found} == {"CERTIFIED", "NOT COVERED"}
    assert [one.name for one in found if one.verdict == "NOT COVERED"] == ["aten.mm.out"]
    mixed = kernel_orders(lambda x: x - x.mean(0), (x[:1],), (x,), 5)
    assert "CERTIFIED" not in {one.verdict for one in mixed}
    lanes = kernel_orders(torch.nn.Softmax(-1), (x[:1],), (x,), 5, {"target": "opencl"})
    assert {one.verdict for one in lanes} == {"CERTIFIED"}
    elsewhere = kernel_orders(torch.nn.Softmax(-1), (x[:1],), (x,), 5, {"target": "linalg"})
    assert {(one.verdict, one.reason.split(" ")[0]) for one in elsewhere} == {("NOT KNOWN", "target")}
