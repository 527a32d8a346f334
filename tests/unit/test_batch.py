"""Batch invariance: what depends on the batch is found, by how much, and what does not is not blamed."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from torchport.cli.app import app
from torchport.errors import OptionError
from torchport.precision.batch import batch_invariance

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
