"""The language tests run on every target that executes here: kernels take CPU tensors on all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import torchport
from torchport.errors import TargetError
from torchport.plugin import backend_for
from torchport.target import Target

QUICK = frozenset({"test_elementwise", "test_control_flow"})
"""Modules that run on targets besides the CPU in every run; the others do with --all."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = metafunc.config.getoption("--targets")
    module = metafunc.module.__name__.rpartition(".")[2]
    marks = () if chosen or module in QUICK else (pytest.mark.slow,)
    targets = chosen.split(",") if chosen else ["cpu", "opencl"]
    params = [pytest.param(name, marks=() if name == "cpu" else marks) for name in targets]
    metafunc.parametrize("target", params, indirect=True)


@pytest.fixture(autouse=True)
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """The target that kernels of the test are launched on."""
    name = str(request.param)
    if name == "cpu":
        yield name
        return
    if (marker := request.node.get_closest_marker("cpu_only")) is not None:
        pytest.skip(f"for the CPU target: {marker.args[0]}")
    parsed = Target.parse(name)
    try:
        backend_for(parsed).driver(parsed)
    except TargetError as error:
        pytest.skip(str(error))
    with torchport.use(parsed):
        yield name
