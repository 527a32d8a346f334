"""Verdicts that were given before are read, not given again; whatever they depend on has them given anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded import MemoryRun, judge, recorded

from torchport.numerics.compare.as_json import as_json
from torchport.numerics.compare.diff import Diff, compare
from torchport.numerics.compare.kept_verdicts import KeptVerdicts

Counted = tuple[Diff, int]


def judged(folder: Path, a: MemoryRun, b: MemoryRun, by: str = "compiler") -> Counted:
    """The comparison, and how many launches were judged."""
    count = 0

    def counting(*given: Any) -> Any:
        nonlocal count
        count += 1
        return judge(*given)

    kept = {name: KeptVerdicts(folder, by) for name in "AB"}
    return compare(a, b, counting, kept=kept), count


def wrong(value: torch.Tensor) -> torch.Tensor:
    return value * 1.01


def test_the_second_comparison_says_the_same_in_no_time(tmp_path: Path) -> None:
    a, b = recorded(), recorded({"mm_1": wrong})
    first, launches = judged(tmp_path, a, b)
    second, again = judged(tmp_path, a, b)
    assert launches == 20 and again <= 2, "only what differs on equal inputs is looked at again"
    assert as_json(first)["roots"] == as_json(second)["roots"] and as_json(first)["rows"] == as_json(second)["rows"]


def test_another_run_is_judged_beside_one_that_was(tmp_path: Path) -> None:
    _, launches = judged(tmp_path, recorded(), recorded({"mm_1": wrong}))
    diff, again = judged(tmp_path, recorded(), recorded({"exp": wrong}))
    assert again <= launches / 2 + 2 and [root.nodes for root in diff.roots if not root.legal] == [("exp",)]


def test_another_compiler_or_content_is_judged_anew(tmp_path: Path) -> None:
    a = recorded()
    _, launches = judged(tmp_path, a, a)
    assert judged(tmp_path, a, a, by="another compiler")[1] == launches
    flagged = replace(a, launches=[replace(one, flags=("canary: 1 element",)) for one in a.launches])
    diff, _ = judged(tmp_path, flagged, flagged)
    assert diff.level == "FAIL"


@pytest.mark.parametrize("damage", [b"", b"[1]", b'[{"seq": 1}]', b"\xff\xfe", b"[" * 100_000])
def test_damaged_files_are_left_out(tmp_path: Path, damage: bytes) -> None:
    a = recorded()
    _, launches = judged(tmp_path, a, a)
    for file in tmp_path.glob("*.json"):
        file.write_bytes(damage)
    diff, again = judged(tmp_path, a, a)
    assert again == launches and diff.level in ("EXACT", "EXPECTED")


def test_what_is_not_verified_is_tried_again_and_no_folder_is_no_error(tmp_path: Path) -> None:
    a = recorded(kept=False)
    _, launches = judged(tmp_path, a, a)
    assert judged(tmp_path, a, a)[1] == launches == 0, "only statistics: the judge is not asked"
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    b = recorded()
    assert judged(blocked, b, b)[1] > 0
    assert judged(blocked, b, b)[1] > 0
