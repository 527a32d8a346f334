"""Triton's key is computed once for an installation, and anew where one of its files changes."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import processes
import pytest
import triton

from torchport.inductor import keys


@pytest.fixture
def computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """How often the key was computed; ``tmp_path / triton`` is Triton, ``tmp_path / cache`` the folder of kernels."""
    package = tmp_path / "triton" / "_C"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "libtriton.so").write_text("machine code")
    monkeypatch.setenv("TORCHPORT_CACHE_DIR", str(tmp_path / "cache"))
    spec = SimpleNamespace(submodule_search_locations=[str(package.parent)])
    monkeypatch.setattr(keys.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(triton.runtime.cache, "triton_key", lambda: "Triton's own")
    yield []
    keys.know_triton.cache_clear()


def in_a_new_process(monkeypatch: pytest.MonkeyPatch, computed: list[str]) -> Any:
    """What Inductor takes for Triton's key in a process that torchport compiles in."""

    @functools.cache
    def compute() -> str:
        computed.append("key")
        return f"key {len(computed)}"

    inductors = SimpleNamespace(HAS_TRITON=True, triton_key=compute)
    monkeypatch.setattr(keys, "triton_compat", inductors)
    keys.know_triton.cache_clear()
    keys.know_triton()
    return inductors.triton_key()


def test_the_second_process_is_told(computed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [in_a_new_process(monkeypatch, computed) for _ in range(3)] == ["key 1"] * 3
    assert len(computed) == 1 and (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("change", ["size", "time", "new", "damaged"])
def test_it_is_computed_again_when_a_file_changes(
    computed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    library, kept = tmp_path / "triton" / "_C" / "libtriton.so", tmp_path / "cache" / "triton-key.json"
    in_a_new_process(monkeypatch, computed)
    if change == "size":
        library.write_text("other machine code")
    elif change == "time":
        os.utime(library, ns=(0, 0))
    elif change == "new":
        (library.parent.parent / "language.py").write_text("")
    else:
        kept.write_text("{")
    assert in_a_new_process(monkeypatch, computed) == "key 2" == in_a_new_process(monkeypatch, computed)
    assert json.loads(kept.read_text())["key"] == "key 2"


@pytest.mark.parametrize("variable", ["TORCHPORT_CACHE_SIZE", "mode"])
def test_nothing_is_kept_where_no_kernel_is(
    computed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    folder = tmp_path / "cache"
    if variable == "mode":  # others could write it
        folder.mkdir()
        folder.chmod(0o777)
    else:
        monkeypatch.setenv(variable, "0")
    assert [in_a_new_process(monkeypatch, computed) for _ in range(2)] == ["key 1", "key 2"]
    assert not folder.exists() or not list(folder.iterdir())


def test_a_child_computes_it_meanwhile(computed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def compute() -> str:
        computed.append("key")
        return f"of {os.getpid()}"

    monkeypatch.setattr(keys, "triton_compat", SimpleNamespace(HAS_TRITON=True, triton_key=compute))
    (tmp_path / "triton" / "_inductor").mkdir()  # it is torch, too
    monkeypatch.setattr(keys, "_torch_key", lambda: f"torch's of {os.getpid()}")
    monkeypatch.setattr(keys.ranks, "spare_processor", lambda: True)
    keys.begin()
    keys.know_triton()
    torchs = json.loads((tmp_path / "cache" / "torch-key.json").read_text())["key"]
    assert torchs.startswith("torch's of ") and torchs != f"torch's of {os.getpid()}"
    assert not computed and keys.triton_compat.triton_key() != f"of {os.getpid()}"
    assert json.loads((tmp_path / "cache" / "triton-key.json").read_text())["key"] == keys.triton_compat.triton_key()
    keys.begin()  # it is there
    assert keys._child is None


def test_a_child_that_fails_leaves_it_to_the_parent(computed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getpid()

    def compute() -> str:
        if os.getpid() != parent:
            raise OSError
        computed.append("key")
        return "key"

    monkeypatch.setattr(keys, "triton_compat", SimpleNamespace(HAS_TRITON=True, triton_key=compute))
    monkeypatch.setattr(keys.ranks, "spare_processor", lambda: True)
    keys.begin()
    keys.know_triton()
    assert computed and keys.triton_compat.triton_key() == "key"


def test_torchs_own_key_is_kept(tmp_path: Path) -> None:
    program = (
        "import torch._dynamo\n"
        "from torch._inductor import codecache\n"
        "from torchport.inductor.keys import know_torch\n"
        "read = []\n"
        "codecache.build_code_hash = lambda *found, build=codecache.build_code_hash: (read.append(1), build(*found))\n"
        "know_torch()\n"
        "told = codecache.torch_key()\n"
        "print(bool(read))\n"
        "codecache.torch_key.clear()\n"
        "print(told == codecache.torch_key())"
    )
    environment = {"TORCHPORT_CACHE_DIR": str(tmp_path)}
    runs = [processes.run(program, environment=environment) for _ in range(2)]
    assert [run.stdout.split() for run in runs] == [["True", "True"], ["False", "True"]], (
        runs[0].stderr + runs[1].stderr
    )


def test_torch_may_have_its_key_already(tmp_path: Path) -> None:
    """Another backend has compiled before, in this process."""
    program = (
        "from torch._inductor import codecache\n"
        "from torchport.inductor.keys import know_torch\n"
        "before = codecache.torch_key()\n"
        "know_torch()\n"
        "print(before == codecache.torch_key())"
    )
    runs = [processes.run(program, environment={"TORCHPORT_CACHE_DIR": str(tmp_path)}) for _ in range(2)]
    assert [run.stdout.split() for run in runs] == [["True"], ["True"]], runs[1].stderr


def test_all_of_torch_takes_it(tmp_path: Path) -> None:
    program = (
        "import triton.runtime.cache as cache\n"
        "stock = cache.triton_key\n"
        "from torchport.inductor.keys import know_triton\n"
        "know_triton()\n"
        "from torch._inductor import codecache\n"
        "from torch.utils._triton import triton_hash_with_backend\n"
        "from torch._inductor.runtime import triton_compat\n"
        "key = getattr(codecache, 'triton_key', triton_compat.triton_key)\n"  # a function of its own from 2.13 on
        "told = key(), cache.triton_key()\n"  # Inductor's name for it, and what Triton compiles with
        "triton_hash_with_backend()\n"
        "print(stock.cache_info().currsize)\n"
        "print(told == (stock(), stock()))"
    )
    environment = {"TORCHPORT_CACHE_DIR": str(tmp_path)}
    runs = [processes.run(program, environment=environment) for _ in range(2)]
    assert [run.stdout.split() for run in runs] == [["1", "True"], ["0", "True"]], runs[0].stderr + runs[1].stderr
