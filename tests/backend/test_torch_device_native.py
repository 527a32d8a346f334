"""The C++ part of the device: guard, generators, storages and figures that PyTorch asks for in C++."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.cpp_extension import get_cxx_compiler

from torchport.errors import CompilationError, TargetError
from torchport.locks import locked
from torchport.torch_device import native
from torchport.torch_device.targets import targets

pytestmark = [
    pytest.mark.skipif(not targets(), reason="no target here has memory of its own"),
    pytest.mark.skipif(shutil.which(get_cxx_compiler()) is None, reason="no C++ compiler"),
]

START = """
import pathlib, torch, torchport
from torchport.torch_device import native
native._folder = lambda: pathlib.Path({folder!r})
first = torchport.device(0)
"""
"""Kernels are cached where they always are; the C++ part is this module's."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the C++ part is, compiled once in a run, by the worker that comes first."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    shared = tmp_path_factory.mktemp("part") if run is None else tmp_path_factory.getbasetemp().parent / f"part-{run}"
    shared.mkdir(exist_ok=True)
    made = shared / "device"
    with locked(shared, patience=300), pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_folder", lambda: made)
        if native.find() is None:
            native.build()
    return made


def in_a_process(code: str, folder: Path, **environment: str) -> str:
    """What ``code`` prints in a Python process of its own, which ends without an error."""
    done = subprocess.run(
        [sys.executable, "-c", START.format(folder=str(folder)) + code],
        check=False,
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


TWO_DEVICES = """
import threading

if torch.accelerator.device_count() < 2:
    print("one device")
    raise SystemExit
second = torch.device("torchport:1")
x, w = torch.randn(4, 8), torch.randn(8, 5)

def gradients(x, w, middle=lambda y: y, function=lambda y: y.softmax(-1)):
    x, w = x.requires_grad_(), w.requires_grad_()
    function(middle(x) @ w).square().sum().backward()
    assert x.grad.device == x.device and w.grad.device == w.device
    return x.grad.cpu(), w.grad.cpu()

wanted = gradients(x.clone(), w.clone())
def check(found):
    for mine, theirs in zip(found, wanted):
        torch.testing.assert_close(mine, theirs)

compiled = torch.compile(lambda y: y.softmax(-1), backend="torchport")
for device in (second, first):
    check(gradients(x.to(device), w.to(device)))
    check(gradients(x.to(device), w.to(device), function=compiled))
check(gradients(x.to(first), w.to(second), lambda y: y.to(second)))

failures = []
def work(device):
    try:
        torch.accelerator.set_device_index(device.index)
        for _ in range(5):
            assert torch.zeros(1, device="torchport").device == device
            check(gradients(x.to(device), w.to(device)))
    except Exception as error:
        failures.append(error)

threads = [threading.Thread(target=work, args=(device,)) for device in (first, second, second)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures
assert torch.torchport.current_device() == 0, "threads have devices of their own"
with torch.accelerator.device_index(1):
    assert torch.zeros(1, device="torchport").device == second
    assert torch.Generator(device="torchport").device == second
numbers = [torch.rand(9, device=d, generator=torch.Generator(d).manual_seed(3)).cpu() for d in (first, second)]
assert numbers[0].equal(numbers[1])
count = torch.accelerator.device_count()
for wrong in (lambda: torch.accelerator.set_device_index(count), lambda: torch.Generator(device=f"torchport:{count}")):
    try: wrong()
    except RuntimeError as error: print(str(error).replace(str(count), "N"))
print(dict(torchport.fallbacks()))
"""


def test_gradients_on_several_devices(folder: Path) -> None:
    """PoCL shows its CPU twice if asked to."""
    printed = in_a_process(TWO_DEVICES, folder, POCL_DEVICES="pthread pthread")
    if printed == "one device\n":
        pytest.skip("PoCL's CPU has another name here")
    assert printed == "there is no device torchport:N; there are N, from torchport:0\n" * 2 + "{}\n"


GENERATORS = """
import copy, pickle

generator = torch.Generator(device=first)
assert generator.device == first and generator.initial_seed() == torch.Generator().initial_seed()
p = torch.tensor([0.1, 0.2, 0.7], device=first)
draws = (
    lambda g: torch.rand(5, device=first, generator=g),
    lambda g: torch.randint(0, 9, (5,), device=first, generator=g),
    lambda g: torch.randperm(9, device=first, generator=g),
    lambda g: torch.empty(9, device=first).random_(5, generator=g),
    lambda g: torch.poisson(p * 100, generator=g),
)
for draw in draws:
    generator.manual_seed(7)
    state = generator.get_state()
    one, other = draw(generator).cpu(), draw(generator).cpu()
    assert not one.equal(other), draw.__code__.co_firstlineno
    assert draw(generator.set_state(state)).cpu().equal(one)
    torch.manual_seed(7)
    draw(generator)
    assert draw(None).cpu().equal(one), "the generator is not the device's own, and draws as it does"
for twin in (generator.clone_state(), pickle.loads(pickle.dumps(generator))):
    before = generator.get_state()
    assert draws[0](twin).cpu().equal(draws[0](generator).cpu())
    generator.set_state(before)
print(sorted(torchport.fallbacks()))
"""


def test_generators(folder: Path) -> None:
    assert in_a_process(GENERATORS, folder) == "['aten.poisson.default']\n"


FIGURES = """
import gc, os, signal

def error(function):
    try: function()
    except Exception as problem: return type(problem).__name__

made = torch.UntypedStorage(100, device=first)
assert made.device == first and torch.accelerator.memory_allocated() == 100
made.fill_(3)
made.resize_(300)
assert len(made) == 300 and made[99] == 3
del made
gc.collect()  # tracing leaves cycles
assert torch.accelerator.memory_allocated() == 0 and torch.accelerator.max_memory_allocated() >= 400
torch.accelerator.reset_peak_memory_stats()
assert torch.accelerator.max_memory_allocated() == 0 < torch.accelerator.memory_reserved()
torch.accelerator.empty_cache()
assert torch.accelerator.memory_reserved() == 0
x = torch.arange(5.0, device=first)
view = x[1:]
x.untyped_storage().resize_(80)
assert view.tolist() == [1, 2, 3, 4]
assert error(lambda: torch.UntypedStorage(1 << 50, device=first)) == "DeviceMemoryError"
assert torch.empty(4, pin_memory=True).sum().is_pinned() is False

start, end = torch.Event(first, enable_timing=True), torch.Event(first, enable_timing=True)
start.record()
y = torch.rand(300, 300, device=first)
for _ in range(5): y = y @ y
end.record()
assert start.elapsed_time(end) > 0 and end.query()
weight = torch.rand(4, 3, device=first)
stream = torch.Stream(first)
for wait in (torch.accelerator.synchronize, stream.synchronize, stream.query, end.synchronize):
    torch.nn.functional.embedding(torch.tensor([1, 7]).to(first), weight)
    assert error(wait) == "KernelAssertionError", wait
x = x.requires_grad_()
(x * x).sum().backward()
if os.fork() == 0:
    signal.alarm(30)
    print(error(torch.accelerator.synchronize), error(lambda: torch.Generator(first).manual_seed(1)), flush=True)
    os._exit(0)
assert os.wait()[1] == 0
for _ in range(20): x = (x * x) / 2
x.sum().backward(retain_graph=True)
"""


def test_storages_figures_and_waiting(folder: Path) -> None:
    """In a forked process the device is refused; what is still to do when the process ends is no crash."""
    assert in_a_process(FIGURES, folder) == "TargetError None\n"


def test_what_was_not_built_here_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "device"
    shutil.copytree(folder, own)
    monkeypatch.setattr(native, "_folder", lambda: own)
    path = native.find()
    assert path is not None and path.parent == own
    path.chmod(0o622)
    with pytest.raises(TargetError, match=f"only you can write.*{native.COMMAND}"):
        native.find()
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TargetError, match=f"damaged: run {native.COMMAND}"):
        native.find()
    own.chmod(0o777)
    with pytest.raises(TargetError, match="can be written by others"):
        native.find()
    monkeypatch.setattr(native.torch, "__version__", "9.9")
    assert native.find() is None


def test_errors_of_the_compiler_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_folder", lambda: tmp_path / "device")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CompilationError, match=r"no-such-compiler cannot be started .*set CXX"):
        native.build()
    monkeypatch.delenv("CXX")
    source = tmp_path / "native.cpp"
    source.write_text("this is no C++\n")
    monkeypatch.setattr(native, "_SOURCE", source)
    with pytest.raises(CompilationError, match=r"does not compile.*\n.*error"):
        native.build()
    assert native.find() is None
