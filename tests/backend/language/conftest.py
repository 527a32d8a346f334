"""The language tests run on every target that ``--targets`` names: kernels take CPU tensors on all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import torchport


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    targets = metafunc.config.getoption("--targets").split(",")
    metafunc.parametrize("target", targets, indirect=True, ids=None if len(targets) > 1 else [""])


@pytest.fixture(autouse=True)
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """The target that kernels of the test are launched on."""
    name = str(request.param)
    if name == "cpu":
        yield name
        return
    if (marker := request.node.get_closest_marker("cpu_only")) is not None:
        pytest.skip(f"for the CPU target: {marker.args[0]}")
    with torchport.use(name):
        yield name
