"""What every test shares: the backend under test, private caches, and threads that fit the machine."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Helper modules: model_zoo and accuracy (shared with the benchmark), inputs, opcheck, kernels, processes, training,
# jobs.
sys.path[:0] = [str(Path(__file__).parent.parent / "tools"), str(Path(__file__).parent / "backend")]
sys.path[:0] = [str(Path(__file__).parent / name) for name in ("unit", "models", "distributed")]

CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHPORT_CACHE_DIR")
QUICK = {
    # Stock Inductor's C++ is compared with, no more: scalar code and no precompiled header are built the fastest.
    "TORCHINDUCTOR_VEC_ISA_OK": "0",
    "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
    # Results on symbolic indices serve the next graph, too, and no graph has its garbage collected on its own.
    "SYMPY_CACHE_SIZE": "50000",
    "TORCH_DYNAMO_RUN_GC_AFTER_COMPILE": "0",
    "TORCHPORT_PROGRESS": "0",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--compile-backend",
        default="torchport",
        help="backend given to torch.compile; 'inductor' tells a fault of torchport from one of a test",
    )
    parser.addoption("--targets", default="", help="run all language tests on these targets, with commas between")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cpu_only(reason): a language test of what is promised for the CPU target only")
    config.addinivalue_line("markers", "may_fall_back: torchport may hand this operation to aten; the result counts")
    # Empty caches: a stale one would hide a compiler that no longer works. Set once, before pytest-xdist starts its
    # workers, which inherit them; a directory the user has set is kept.
    for name in CACHES:
        if name not in os.environ:
            folder = tempfile.TemporaryDirectory(prefix="torchport-tests-")
            config.add_cleanup(folder.cleanup)
            os.environ[name] = folder.name
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)
    # PyTorch's many objects stay: looking through them every few thousand allocations takes a tenth of the time.
    gc.set_threshold(50_000, 20, 20)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark slow what slow.txt names. A name that no test of a file has any more is an error."""
    lines = Path(__file__).with_name("slow.txt").read_text().splitlines()
    names: dict[str, list[str]] = {}
    for name in lines:
        if name and not name.startswith("#"):
            names.setdefault(name.partition("::")[0], []).append(name)
    files, found = set(), set()
    for item in items:
        file = item.nodeid.partition("::")[0]
        files.add(file)
        for name in names.get(file, ()):
            if item.nodeid.startswith(name):
                found.add(name)
                item.add_marker(pytest.mark.slow)
    if config.option.keyword or any("::" in argument for argument in config.args):
        return
    gone = [name for file in files for name in names.get(file, ()) if name not in found]
    if gone:
        raise pytest.UsageError(f"slow.txt names tests that are not there: {', '.join(gone)}")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Register the torch device before any test computes a gradient: autograd counts devices at the first."""
    if any("torch_device" in item.path.name for item in session.items):
        from torchport.torch_device.targets import targets

        if targets():
            import torchport

            torchport.device(0)


@pytest.fixture(scope="session")
def compile_backend(request: pytest.FixtureRequest) -> str:
    """Name of the backend that torch.compile is given."""
    return str(request.config.getoption("--compile-backend"))


@pytest.fixture
def no_fallback(request: pytest.FixtureRequest, compile_backend: str) -> Iterator[None]:
    """Fail the test where torchport sent a kernel or a graph elsewhere: it would test another compiler."""
    if compile_backend != "torchport" or request.node.get_closest_marker("may_fall_back"):
        yield
        return
    from torchport.runtime import events

    with events.capture() as found:
        yield
    fallbacks = [str(event) for event in found if isinstance(event, events.Fallback)]
    assert not fallbacks, "\n".join(fallbacks)


@pytest.fixture(autouse=True)
def torch_state() -> Iterator[None]:
    """Fresh Dynamo state, a fixed seed, and this worker's share of the cores; threads are given back."""
    import torch
    import unmeasured  # noqa: F401

    threads = torch.get_num_threads()
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()
    torch.set_num_threads(threads)
