"""Kernels are compiled in another process while code is generated: forked, or, beside gloo's threads, a clean one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch._inductor.graph import GraphLowering

from torchport import phases
from torchport.inductor import helpers
from torchport.inductor.ahead import BackgroundCompiler
from torchport.phases import Phase
from torchport.runtime import ranks


@pytest.fixture(params=[False, True], ids=["alone", "beside gloo"])
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[bool]:
    if request.param:
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        yield request.param
    finally:
        if request.param:
            torch.distributed.destroy_process_group()
            helpers.end()


def test_kernels_are_compiled_while_code_is_generated(
    group: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first kernel is waited for before the second is generated, so that no machine is too slow to show it."""
    monkeypatch.setenv("TORCHPORT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setattr(ranks, "spare_processor", lambda: True)
    answered: list[int] = []
    clean: list[bool] = []
    submit = BackgroundCompiler.submit

    def first_is_waited_for(self: BackgroundCompiler, key: str, name: str, source: str) -> None:
        submit(self, key, name, source)
        helper, deadline = self._helper, time.monotonic() + 120
        assert helper is not None
        while helper.alive and not (answered or helper.answered) and time.monotonic() < deadline:
            helper.exchange(1)
        answered.append(helper.answered)
        clean.append(helper.clean)

    monkeypatch.setattr(BackgroundCompiler, "submit", first_is_waited_for)

    generate, generated = GraphLowering.codegen, []

    def timed(self: GraphLowering) -> Any:
        started = time.perf_counter()
        found = generate(self)
        generated.append((started, time.perf_counter()))
        return found

    monkeypatch.setattr(GraphLowering, "codegen", timed)

    def function(x: torch.Tensor) -> torch.Tensor:
        first = torch.softmax(x * (2.0625 if group else 1.0625), 0) @ x
        second = torch.softmax(first * (2.1875 if group else 1.1875), 1) @ x
        return (second * (2.3125 if group else 1.3125)).sin() @ x

    x = torch.randn(48, 48)
    with torch._inductor.config.patch(force_disable_caches=True):
        phases.start()
        found = torch.compile(function, backend="torchport")(x)
        spans = phases.stop()
    torch.testing.assert_close(found.double(), function(x.double()), atol=1e-4, rtol=1e-4)
    assert len(answered) >= 3 and answered[0] == 1 and set(clean) == {group}
    (code,) = generated
    theirs = [one for one in spans if one.lane != phases.MAIN]
    within = {one.phase for one in theirs if code[0] <= one.start and one.start + one.seconds <= code[1]}
    assert within >= {Phase.FRONTEND, Phase.PASSES, Phase.LLVM}
