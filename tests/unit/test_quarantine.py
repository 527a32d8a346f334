"""Quarantine: the file, and that kernels in it are avoided, in a fresh process, until a version changes."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from typer.testing import CliRunner

from torchport import explain, quarantine
from torchport.cli.app import app
from torchport.errors import OptionError, TargetError
from torchport.inductor import without_graph_caches
from torchport.inductor.capture import KernelSource, capture_kernels
from torchport.inductor.quarantined import STEPS, fitted
from torchport.plugin import backend_for
from torchport.runtime import events
from torchport.target import Target

CPU = Target("cpu")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "state" / "quarantine.json"
    monkeypatch.setenv("TORCHPORT_QUARANTINE", str(path))
    return path


def test_entries_are_kept_and_forgotten(file: Path) -> None:
    assert quarantine.entries() == () and quarantine.digest(CPU) == ""
    entry = quarantine.add(CPU, "k1", "XBLOCK=64 num_warps=1", "NaN", name="poi")
    quarantine.add(Target.parse("cuda:90"), "k1", "XBLOCK=64 num_warps=4", "off by 22.5")
    again = quarantine.add(CPU, "k1", "XBLOCK=64 num_warps=1", "still NaN")
    assert quarantine.active(CPU) == {("k1", "XBLOCK=64 num_warps=1"): again}
    assert len(quarantine.entries()) == 2 and entry.key == again.key
    assert json.loads(file.read_text())["schema"] == quarantine.SCHEMA
    before = quarantine.digest(CPU)
    quarantine.add(CPU, "k2", "XBLOCK=64 num_warps=1", "NaN")
    assert before and quarantine.digest(CPU) not in ("", before)
    assert quarantine.clear(CPU) == 2 and not quarantine.active(CPU) and len(quarantine.entries()) == 1
    assert quarantine.clear() == 1 and quarantine.entries() == ()
    with pytest.raises(TargetError):
        quarantine.add(Target("nothing"), "k", "XBLOCK=1", "")


def test_another_version_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    quarantine.add(CPU, "k", "XBLOCK=64 num_warps=1", "NaN")
    quarantine.add(CPU, "l", "XBLOCK=64 num_warps=1", "NaN")
    from torchport.triton.compiler import TritonCompiler

    monkeypatch.setattr(TritonCompiler, "fingerprint", lambda self: "another compiler")
    assert quarantine.active(CPU) == {} and quarantine.digest(CPU) == "" and len(quarantine.entries()) == 2
    quarantine.add(CPU, "k", "XBLOCK=64 num_warps=1", "still NaN")
    assert len(quarantine.active(CPU)) == 1 and len(quarantine.entries()) == 3
    assert quarantine.clear(expired=True) == 2 and len(quarantine.active(CPU)) == 1
    monkeypatch.undo()


def test_a_driver_of_another_version_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = backend_for(CPU).driver(CPU)
    monkeypatch.setattr(driver, "version", "1", raising=False)
    quarantine.add(CPU, "k", "XBLOCK=64 num_warps=1", "NaN")
    assert quarantine.active(CPU)
    monkeypatch.setattr(driver, "version", "2", raising=False)
    assert not quarantine.active(CPU)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "null", '{"schema": "torchport.quarantine/9", "entries": []}', '{"schema": "torchport.quarantine/1"}'],
)
def test_a_damaged_file_is_kept_aside(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.warns(RuntimeWarning, match="kernels to avoid") as caught:
        assert quarantine.entries() == ()
        assert quarantine.entries() == ()
    assert len(caught) == 1
    (aside,) = file.parent.glob("*.damaged-*")
    assert aside.read_text() == content
    quarantine.add(CPU, "k", "XBLOCK=64 num_warps=1", "NaN")
    assert len(quarantine.entries()) == 1


ENTRY = {"target": "cpu", "kernel": "k", "config": "XBLOCK=1", "reason": "", "versions": ""}


@pytest.mark.parametrize(
    "entry",
    [
        {**ENTRY, "config": "XBLOCK=many"},
        {**ENTRY, "config": ["XBLOCK=1"]},
        {**ENTRY, "kernel": None},
        {**ENTRY, "more": 1},
        {"target": "cpu"},
        [],
    ],
)
def test_entries_of_wrong_types_count_as_none(file: Path, entry: object) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"schema": quarantine.SCHEMA, "entries": [entry]}))
    with pytest.warns(RuntimeWarning, match="kernels to avoid"):
        assert quarantine.digest(CPU) == ""


def is_renamed(path: Path, make: Callable[[Path], object]) -> bool:
    """Whether what ``make`` makes is put aside with one warning, in a folder in which a list can then be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    with pytest.warns(RuntimeWarning, match=r"kernels to avoid cannot be read") as caught:
        assert quarantine.entries() == quarantine.entries() == ()
    assert len(caught) == 1
    if path.exists():
        return False
    assert quarantine.add(CPU, "k", "XBLOCK=64 num_warps=1", "NaN") in quarantine.entries()
    return True


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        os.mkfifo,
        lambda path: path.write_bytes(b"[" * 100_000),
        lambda path: path.write_bytes(b'{"schema": "\xff"}'),
        lambda path: path.write_text('{"schema": NaN, "entries": []}'),
        lambda path: path.symlink_to(path.name),
        lambda path: path.open("wb").truncate(2**40),
    ],
    ids=["folder", "pipe", "deep", "bytes", "nan", "circle", "huge"],
)
def test_what_is_no_list_is_renamed(file: Path, make: Callable[[Path], object]) -> None:
    assert is_renamed(file, make)


def test_a_list_that_may_not_be_read_is_renamed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("torchport.files.read_bytes", forbidden)
        file.parent.mkdir(parents=True)
        file.write_text("secret")
        with pytest.warns(RuntimeWarning, match=r"Permission denied"):
            assert quarantine.entries() == ()
    assert not file.exists() and quarantine.add(CPU, "k", "XBLOCK=64 num_warps=1", "NaN") in quarantine.entries()


def test_what_cannot_be_renamed_is_left_with_one_warning(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    assert not is_renamed(file, Path.mkdir)


def test_a_file_in_the_place_of_the_folder_is_no_list(file: Path) -> None:
    file.parent.write_text("")
    assert quarantine.entries() == ()


def test_a_pipe_in_the_place_of_the_lock_does_not_wait(file: Path) -> None:
    file.parent.mkdir(parents=True)
    os.mkfifo(file.with_name(file.name + ".lock"))
    quarantine.add(CPU, "k", "XBLOCK=64 num_warps=1", "NaN")
    assert len(quarantine.entries()) == 1


def add_some(start: int) -> None:
    for number in range(start, start + 10):
        quarantine.add(CPU, f"k{number}", "XBLOCK=64 num_warps=1", "NaN")


def test_many_processes_add_at_once() -> None:
    """Nothing is lost: each reads, adds and writes with the others kept out."""
    processes = [
        multiprocessing.get_context("fork").Process(target=add_some, args=(start,)) for start in range(0, 60, 10)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert {entry.kernel for entry in quarantine.entries()} == {f"k{number}" for number in range(60)}


def test_kernels_are_known_by_what_they_do() -> None:
    source = "import x\n@triton.jit\ndef {0}(in_ptr0, XBLOCK):\n    y = {1}\n# in place of {0}\n"
    one = quarantine.identity(source.format("triton_poi_fused_add_0", 1), "triton_poi_fused_add_0")
    assert one == quarantine.identity(source.format("triton_poi_fused_add_7", 1), "triton_poi_fused_add_7")
    assert one != quarantine.identity(source.format("triton_poi_fused_add_0", 2), "triton_poi_fused_add_0")
    assert quarantine.configuration({"num_warps": 1, "YBLOCK": 2, "XBLOCK": 4, "num_stages": 1}) == (
        "XBLOCK=4 YBLOCK=2 num_warps=1"
    )


def test_smaller_blocks() -> None:
    assert fitted({"XBLOCK": 64, "YBLOCK": 16}, 0) == {"XBLOCK": 64, "YBLOCK": 16}
    assert fitted({"XBLOCK": 64, "YBLOCK": 16}, 3) == {"XBLOCK": 8, "YBLOCK": 16}
    assert fitted({"XBLOCK": 2}, 9) == {"XBLOCK": 1} and fitted({}, 2) == {}


def model(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x * 3 + 1)


def kernels_of(
    x: torch.Tensor, fallback: str = "auto", function: Callable[..., torch.Tensor] = model, target: Target = CPU
) -> tuple[list[KernelSource], list[Any], torch.Tensor]:
    """The kernels that ``function`` becomes now, what was recorded, and the result."""
    torch._dynamo.reset()
    with without_graph_caches(), capture_kernels() as found, events.capture() as happened:
        result = torch.compile(function, backend="torchport", options={"target": str(target), "fallback": fallback})(x)
    return found.kernels, list(happened), result


def right(x: torch.Tensor, result: torch.Tensor) -> None:
    torch.testing.assert_close(result.double(), model(x.double()), rtol=1e-5, atol=1e-7)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(128, 256)


@pytest.mark.parametrize("name", ["cpu", "opencl"])
def test_the_next_smaller_configuration_is_used(x: torch.Tensor, name: str) -> None:
    target = Target(name)
    try:
        backend_for(target).driver(target)
    except TargetError as error:
        pytest.skip(str(error))
    (kernel,), _, _ = kernels_of(x, target=target)
    quarantine.add(target, quarantine.identity(kernel.source, kernel.function), kernel.config, "for this test")
    (other,), happened, result = kernels_of(x, "error", target=target)
    assert other.config != kernel.config and other.source != kernel.source
    assert [str(e) for e in happened if isinstance(e, events.Avoided)] == [
        f"kernel {kernel.function}: {kernel.config} is in quarantine on {name}, smaller blocks: for this test"
    ]
    assert not [event for event in happened if isinstance(event, events.Fallback)]
    right(x, result)
    assert "in quarantine:\n" in str(explain(model, x, options={"target": name}))
    quarantine.clear()
    (first,), happened, _ = kernels_of(x, target=target)
    assert first.config == kernel.config and not [e for e in happened if isinstance(e, events.Avoided)]


def test_where_none_is_left_the_operations_run_in_aten(x: torch.Tensor) -> None:
    configs = []
    while True:
        kernels, happened, result = kernels_of(x)
        right(x, result)
        if not kernels:
            break
        (kernel,) = kernels
        configs.append(kernel.config)
        quarantine.add(CPU, quarantine.identity(kernel.source, kernel.function), kernel.config, "for this test")
    assert len(set(configs)) == len(configs) and 1 < len(configs) <= STEPS + 1
    fallbacks = [event for event in happened if isinstance(event, events.Fallback)]
    assert fallbacks and all(event.to == "aten" and "in quarantine on cpu" in event.reason for event in fallbacks)
    with pytest.raises(Exception, match="in quarantine on cpu: for this test"):
        kernels_of(x, "error")


def test_one_of_several_kernels(x: torch.Tensor) -> None:
    """A reduction split in two kernels, which compute the same nodes: each is avoided, and the rest stays right."""

    def softmax(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, 0)

    x = x.repeat(8, 1)
    kernels, _, _ = kernels_of(x, function=softmax)
    assert len(kernels) > 1
    for kernel in kernels:
        known = quarantine.identity(kernel.source, kernel.function), kernel.config
        quarantine.add(CPU, *known, "for this test")
        others, _, result = kernels_of(x, function=softmax)
        assert known not in [(quarantine.identity(other.source, other.function), other.config) for other in others]
        torch.testing.assert_close(result.double(), softmax(x.double()), rtol=1e-5, atol=1e-7)


PROGRAM = """
import json, sys, torch
from torchport.inductor.capture import capture_kernels
from torchport.runtime import events
def model(x):
    return torch.sigmoid(x * 3 + 1)
torch.manual_seed(0)
x = torch.randn(128, 256)
if len(sys.argv) > 1:
    from torchport.triton.compiler import TritonCompiler
    TritonCompiler.fingerprint = lambda self: sys.argv[1]
with events.capture() as happened, capture_kernels() as found:
    result = torch.compile(model, backend="torchport")(x)
torch.testing.assert_close(result.double(), model(x.double()), rtol=1e-5, atol=1e-7)
avoided = sum(isinstance(event, events.Avoided) for event in happened)
print(json.dumps([avoided, [kernel.config for kernel in found.kernels]]))
"""


def fresh(cache: Path, *arguments: str) -> Any:
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHPORT_CACHE_DIR")
    done = processes.run(PROGRAM, *arguments, environment={name: str(cache / name) for name in names})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_fresh_processes_share_it_with_caches_warm(x: torch.Tensor, tmp_path: Path) -> None:
    """Inductor's graph cache, filled before the kernel was quarantined, does not bring it back; a version does."""
    (kernel,), _, _ = kernels_of(x)
    cache = tmp_path / "caches"
    assert fresh(cache) == [0, [kernel.config]]
    quarantine.add(CPU, quarantine.identity(kernel.source, kernel.function), kernel.config, "for this test")
    avoided, (config,) = fresh(cache)
    assert avoided == 1 and config != kernel.config
    assert fresh(cache, "another compiler") == [0, [kernel.config]]


def test_the_commands(file: Path) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["quarantine", *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    assert "Nothing is in quarantine" in run("list")
    assert "XBLOCK=1024 num_warps=1" in run("add", "abc", "--config", "XBLOCK=1024", "--reason", "off by 22.5")
    (entry,) = json.loads(run("list", "--json"))
    assert entry["state"] == "avoided" and entry["kernel"] == "abc" and entry["reason"] == "off by 22.5"
    assert "off by" in run("list")
    assert "forgot 0" in run("clear", "--target", "cuda:90") and "forgot 0" in run("clear", "--expired")
    assert "forgot 1" in run("clear") and json.loads(run("list", "--json")) == []
    with pytest.raises(OptionError, match="no block size"):
        run("add", "abc", "--config", "large")
