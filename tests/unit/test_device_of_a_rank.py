"""In a job of several ranks a target without a number is the device of the local rank."""

from __future__ import annotations

import pytest

from torchport.target import Target
from torchport.torch_device import api


@pytest.mark.parametrize(
    ("asked", "local", "expected"),
    [("opencl", 0, "opencl"), ("opencl", 1, "opencl:1"), ("opencl", 2, "opencl"), ("opencl:1", 0, "opencl:1"),
     ("webgpu", 1, "webgpu"), ("cuda", 1, "cuda")],
)  # fmt: skip
def test_device(asked: str, local: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tuple(map(Target.parse, ("opencl", "opencl:1", "webgpu")))
    monkeypatch.setattr(api, "targets", lambda: there)
    monkeypatch.setenv("RANK", str(local + 4))
    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert api._of_this_rank(Target.parse(asked)) == Target.parse(expected)
    monkeypatch.delenv("RANK")
    assert api._of_this_rank(Target.parse(asked)) == Target.parse(asked)
