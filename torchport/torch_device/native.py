"""The C++ part of the device (native.cpp): compiled for the installed PyTorch when asked for, loaded if it is there.

The file is kept in a folder of torchport's cache. Its name has a hash of all that it was made of, so that another
version of PyTorch or Python does not find it, and the hash of its content.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sysconfig
import tempfile
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import torch

from torchport.config import config
from torchport.errors import CompilationError, TargetError
from torchport.files import read_bytes, write_whole
from torchport.runtime.cache_folder import fault_of

__all__ = ["COMMAND", "build", "find", "load"]

COMMAND = "torchport device build"
"""What makes the C++ part."""

_SOURCE = Path(__file__).with_name("native.cpp")
_NAME = "_torch_device"
_LIBRARIES = ("c10", "torch_cpu", "torch_python")
_LINES = 20
"""Of a compiler's message, the first so many are shown."""


def build() -> Path:
    """Compile the C++ part for the installed PyTorch and Python; returns its file.

    Raises CompilationError with the compiler's message, TargetError if the cache's folder cannot be trusted.
    """
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_folder(folder)
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / f"{_NAME}.so"
        _compile(made)
        content = made.read_bytes()
    path = folder / f"{_key()}-{_digest(content)}{EXTENSION_SUFFIXES[0]}"
    for other in _files(folder):
        other.unlink(missing_ok=True)
    write_whole(path, content)
    path.chmod(0o600)
    return path


def find() -> Path | None:
    """The file that ``build`` made for the installed PyTorch and Python, if there is one.

    Raises TargetError for one that this user did not make, or that was changed.
    """
    if config().cache_dir is None:
        return None
    folder = _folder()
    found = _files(folder)
    if not found:
        return None
    _check_folder(folder)
    (path, *_) = found
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise TargetError(f"{path} is no file that only you can write, and it has code: remove it, then run {COMMAND}")
    if _digest(read_bytes(path)) not in path.name:
        raise TargetError(f"{path} is damaged: run {COMMAND}")
    return path


def load() -> ModuleType | None:
    """The C++ part as a module; None if it was not built. Raises TargetError as ``find`` does."""
    path = find()
    if path is None:
        return None
    loader = ExtensionFileLoader(_NAME, str(path))
    spec = spec_from_file_location(_NAME, path, loader=loader)
    assert spec is not None
    try:
        module = module_from_spec(spec)
    except ImportError as error:
        raise TargetError(f"{path} cannot be loaded ({error}): run {COMMAND}") from error
    loader.exec_module(module)
    return module


def _compile(made: Path) -> None:
    from torch.utils.cpp_extension import get_cxx_compiler, include_paths, library_paths  # imports setuptools

    if os.name != "posix":
        raise CompilationError(f"{COMMAND} knows the compilers of Linux and macOS only")
    command = [get_cxx_compiler(), "-std=c++20", "-O1", "-fPIC", "-shared", str(_SOURCE), "-o", str(made)]
    command += [f"-I{folder}" for folder in (*include_paths(), sysconfig.get_path("include"))]
    command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    command += [f"-L{folder}" for folder in library_paths()] + [f"-l{name}" for name in _LIBRARIES]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise CompilationError(
            f"{command[0]} cannot be started ({error.strerror}): install a C++ compiler, or set CXX"
        ) from error
    if done.returncode:
        message = "\n".join(done.stderr.splitlines()[:_LINES])
        raise CompilationError(f"{command[0]} does not compile {_SOURCE} for torch {torch.__version__}:\n{message}")


def _folder() -> Path:
    cache = config().cache_dir
    if cache is None:
        raise TargetError("there is no home folder to keep compiled code in: set TORCHPORT_CACHE_DIR")
    return cache / "device"


def _check_folder(folder: Path) -> None:
    for each in (folder.parent, folder):
        fault = fault_of(each.stat())
        if fault is not None:
            raise TargetError(f"{each} {fault}: set TORCHPORT_CACHE_DIR to a folder that only you can write")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_key()}-*{EXTENSION_SUFFIXES[0]}"))


def _key() -> str:
    """A hash of what the file depends on."""
    parts = (_SOURCE.read_text(), torch.__version__, str(torch.version.git_version), EXTENSION_SUFFIXES[0])
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
