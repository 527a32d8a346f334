"""Which process of a job this is, with and without a process group."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed

from torchport.runtime import ranks

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ((None, None, None), (0, 1, 0)),
        (("5", "8", "1"), (5, 8, 1)),
        (("5", "8", None), (5, 8, 5)),
        (("5", None, None), (0, 1, 0)),
        (("8", "8", None), (0, 1, 0)),
        (("A", "8", "x"), (0, 1, 0)),
        (("-1", "²", ""), (0, 1, 0)),
    ],
)
def test_of_variables(
    variables: tuple[str | None, ...], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(VARIABLES, variables, strict=True):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert (ranks.rank(), ranks.world_size(), ranks.local_rank()) == expected


def test_of_a_process_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(VARIABLES, ("5", "8", "1"), strict=True):
        monkeypatch.setenv(name, value)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert (ranks.rank(), ranks.world_size(), ranks.local_rank()) == (0, 1, 1)
    finally:
        torch.distributed.destroy_process_group()
    assert (ranks.rank(), ranks.world_size()) == (5, 8)


def test_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(VARIABLES, ("5", "8", "1"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert ranks.local_world_size() == 8 and not ranks.has_group()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert ranks.local_world_size() == 4


def test_imports_nothing() -> None:
    program = (
        "import sys; from torchport.runtime import ranks; ranks.rank(), ranks.world_size(), ranks.local_rank(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
