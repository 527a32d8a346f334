"""What containers lack: a home folder, a name of the user, a locale, the working directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torchport import quarantine
from torchport.config import Config, config
from torchport.errors import OptionError
from torchport.runtime.cache import object_cache
from torchport.target import Target

PROGRAM = """
import os, pwd, shutil, warnings
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
import torch, torch._dynamo
from torchport.runtime import events
from torchport.runtime.cache import object_cache

def check(number):
    torch._dynamo.reset()
    with events.capture() as seen, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x = torch.arange(100.0)
        assert torch.equal(torch.compile(lambda x: x * number + 1, backend="torchport")(x), x * number + 1)
    assert [event.cached for event in seen if isinstance(event, events.Kernel)] == [False]
    assert not any(isinstance(event, events.Fallback) for event in seen)
    return [str(warning.message) for warning in caught if "kernel cache" in str(warning.message)]

(warning,) = check(2)
assert "there is no home folder" in warning and object_cache().directory is None
assert os.listdir() == ["модуль.py"], os.listdir()
os.environ["TORCHPORT_CACHE_DIR"] = os.path.abspath("kernels")
assert check(3) == [] and object_cache().info().entries == 2
os.environ["TORCHPORT_CACHE_DIR"] = ""
shutil.rmtree(os.getcwd())
assert check(4) == []
os.environ["TORCHPORT_CACHE_DIR"] = "relative"
assert len(check(5)) == 1
"""


def test_everything_works_in_a_bare_container(tmp_path: Path) -> None:
    folder = tmp_path / "ünï код"
    folder.mkdir()
    (folder / "модуль.py").write_text(PROGRAM, encoding="utf-8")
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment = {**kept, "LC_ALL": "C", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "индуктор")}
    command = [sys.executable, "модуль.py"]
    done = subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "TORCHPORT_CACHE_DIR", "TORCHPORT_QUARANTINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_there_is_no_folder() -> None:
    assert config().cache_dir is config().quarantine is None
    with pytest.warns(RuntimeWarning, match="no home folder.*TORCHPORT_CACHE_DIR"):
        object_cache().put("ab" * 16, b"kernel")
    assert object_cache().get("ab" * 16) == b"kernel" and not object_cache().info().writable
    assert quarantine.entries() == () and quarantine.digest(Target("cpu")) == ""
    with pytest.raises(OptionError, match="TORCHPORT_QUARANTINE"):
        quarantine.add(Target("cpu"), "k", "XBLOCK=1", "NaN")


@pytest.mark.usefixtures("homeless")
def test_a_tilde_without_a_home_is_an_error() -> None:
    with pytest.raises(OptionError, match=r"TORCHPORT_CACHE_DIR='~/kernels' is not valid.*no home folder"):
        Config.from_environment({"TORCHPORT_CACHE_DIR": "~/kernels"})
