"""Compiled objects are linked only where they fit: the CPU, the ABI, the arguments, the kernel they were made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import processes
import pytest
from torchport_cpu import objects
from torchport_cpu.host import host_info
from torchport_cpu.objects import open_object

from torchport.container import bind, pack, unbind, unpack
from torchport.errors import CompilationError

FACTS = {"name": "k", "tp_signature": ["*fp32", "i32", "fp32"]}


def changed(**facts: Any) -> bytes:
    about, image = unpack(objects.pack_object(FACTS, b"code", ["exp"]))
    return pack({**about, **facts}, image)


def test_what_was_packed_here_is_opened() -> None:
    facts, image = open_object(changed(), ["*i64", "i32", "fp32"])
    assert (facts["symbol"], facts["imports"], image) == ("k", ["exp"], b"code")
    open_object(changed(tp_signature=["i1", "i8", "fp64"]), ["u1", "u8", "fp64"])


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"abi": objects.ABI + 1}, "ABI"),
        ({"abi": None}, "ABI"),
        ({"triple": "riscv64-linux-gnu"}, "riscv64-linux-gnu"),
        ({"features": ["avx10.9", "sse2"]}, "avx10.9, which this one has not"),
    ],
)
def test_another_cpu_or_abi_is_refused(facts: Mapping[str, Any], message: str) -> None:
    with pytest.raises(CompilationError, match=f"kernel k was compiled for .*{message}"):
        open_object(changed(**facts))


@pytest.mark.parametrize("signature", [[], ["*fp32", "i32"], ["i64", "i32", "fp32"], ["*fp32", "i64", "fp32"]])
def test_other_arguments_are_refused(signature: list[str]) -> None:
    with pytest.raises(CompilationError, match="would be called with"):
        open_object(changed(), signature)


def test_a_lower_level_of_this_cpu_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    here = host_info()
    less = ",".join(f for f in here.features.split(",") if not f.startswith("+avx"))
    monkeypatch.setattr(objects, "host_info", lambda: replace(here, features=less))
    data = objects.pack_object(FACTS, b"code", [])
    higher = changed(features=sorted(f[1:] for f in here.features.split(",") if f.startswith("+avx")) or ["avx"])
    with pytest.raises(CompilationError, match="avx"):
        open_object(higher)
    monkeypatch.undo()
    open_object(data)


SAME_NAMES = """
import torch
from torchport.runtime import events
with events.capture() as seen:
    for size in (64, 1 << 16):
        x = torch.ones(size)
        assert torch.equal(torch.compile(lambda x: x + size, backend="torchport")(x), x + size)
        torch._dynamo.reset()
print([type(event).__name__ for event in seen if isinstance(event, events.Fallback)])
print([event.cached for event in seen if isinstance(event, events.Kernel)])
"""
USER_KERNELS = """
import sys, torch, triton, triton.language as tl
@triton.jit
def fill(out, N: tl.constexpr):
    tl.store(out + tl.arange(0, N), 1.0)
for size in (64, 1 << 16):
    x = torch.zeros(size)
    fill[(1,)](x, N=size)
    assert torch.equal(x, torch.ones(size))
"""


def exchange(files: list[Path]) -> None:
    """Put each file's content in the place of the next one's."""
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, [*contents[1:], contents[0]], strict=True):
        file.write_bytes(content)


def test_objects_exchanged_in_all_caches_are_compiled_again(tmp_path: Path) -> None:
    """Kernels of one name and signature: with the other's object, the small one would write beyond its tensor."""
    caches = {name: str(tmp_path) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHPORT_CACHE_DIR")}
    for suffixes, cached in (((), False), ((), True), (("kernel",), False), (("kernel", "obj"), False)):
        for suffix in suffixes:
            exchange(sorted(tmp_path.rglob(f"*.{suffix}")))
        done = processes.run(SAME_NAMES, environment=caches)
        assert (done.returncode, done.stdout) == (0, f"[]\n[{cached}, {cached}]\n"), done.stderr


def test_objects_of_another_cpu_are_compiled_again(tmp_path: Path) -> None:
    caches = {name: str(tmp_path) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHPORT_CACHE_DIR")}
    assert processes.run(SAME_NAMES, environment=caches).returncode == 0
    for file in tmp_path.rglob("*.kernel"):
        about, data = unpack(unbind(file.read_bytes(), file.stem))
        if "format" in about:  # a Binary, with the object in it
            facts, image = unpack(data)
            moved = pack(about, pack({**facts, "features": ["avx10.9"]}, image))
        else:
            moved = pack({**about, "features": ["avx10.9"]}, data)
        file.write_bytes(bind(moved, file.stem))
    for file in tmp_path.rglob("*.obj"):
        file.unlink()
    for cached in (False, True):
        done = processes.run(SAME_NAMES, environment=caches)
        assert (done.returncode, done.stdout) == (0, f"[]\n[{cached}, {cached}]\n"), done.stderr


def test_objects_exchanged_in_tritons_cache_are_refused(tmp_path: Path) -> None:
    caches = {name: str(tmp_path) for name in ("TRITON_CACHE_DIR", "TORCHPORT_CACHE_DIR")}
    path = tmp_path / "program.py"
    path.write_text(USER_KERNELS)
    program = f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')"
    for _ in range(2):
        assert (done := processes.run(program, environment=caches)).returncode == 0, done.stderr
    exchange(sorted(tmp_path.rglob("*.obj")))
    done = processes.run(program, environment=caches)
    assert done.returncode == 1 and "kernel fill is damaged or another one's (it is not the one" in done.stderr
