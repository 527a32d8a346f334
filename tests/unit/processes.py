"""Fresh processes with PyTorch imported: forked from a server that has done nothing but import it.

One starts in a fraction of a second, an interpreter of its own in several. A test of what is imported and when, of the
path or of an installation starts an interpreter (`subprocess`).
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch._inductor.compile_fx"])


def run(
    program: str, *arguments: str, environment: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """What ``python -c program arguments`` does in this process's environment, with `environment` on top.

    Raises subprocess.TimeoutExpired once the process has been killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        for file, text in zip(files, (stdin, "", ""), strict=True):
            file.write_text(text)
        variables = {**os.environ, **(environment or {})}
        process = SERVER.Process(target=_main, args=(program, arguments, variables, files))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(program, timeout)
        return subprocess.CompletedProcess(arguments, process.exitcode, files[1].read_text(), files[2].read_text())


def _main(program: str, arguments: tuple[str, ...], variables: dict[str, str], files: list[Path]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    for number, file in enumerate(files):
        os.dup2(os.open(file, os.O_RDWR), number)
    sys.stdin, sys.stdout, sys.stderr = open(0, closefd=False), open(1, "w"), open(2, "w")  # noqa: SIM115
    importlib.import_module("unmeasured")
    sys.argv = ["-c", *arguments]
    main = sys.modules["__main__"] = ModuleType("__main__")
    exec(compile(program, "<string>", "exec"), main.__dict__)
