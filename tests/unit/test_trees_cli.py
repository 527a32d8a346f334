"""``torchport trees`` and ``torchport invariant`` on functions that return no launch."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchport.cli.precision.trees import invariant, trees
from torchport.errors import OptionError


@pytest.mark.parametrize("returned", ["3", "(tree_cases.row_sums, (1,), (1, 2))", "(len, (1,), {})"])
def test_what_is_no_launch_is_said_in_one_sentence(returned: str, tmp_path: Path) -> None:
    path = tmp_path / "launches.py"
    path.write_text(f"import tree_cases\n\ndef made(rows=1):\n    return {returned}\n")
    with pytest.raises(OptionError, match=r"must return \(kernel, grid, arguments\)"):
        trees(f"{path}:made", "cpu", [], as_json=False)
    with pytest.raises(OptionError, match=r"must return \(kernel, grid, arguments\)"):
        invariant(f"{path}:made", "cpu", as_json=False)
