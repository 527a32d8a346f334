"""Pass tests whose programs are forks of lit's process, which has their modules: importing these takes most of a test.

Each is what ``python -m module`` would be: a process with arguments, standard streams and an environment of its own. A
script with more than pipelines of such programs runs in lit's shell, and a time limit is left to it, too.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import pkgutil
import re
import runpy
import sys
import tempfile
import traceback
import unittest.mock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import lit.TestRunner
from lit.formats import ShTest
from lit.ShCommands import Pipeline
from lit.ShUtil import ShParser
from lit.Test import FAIL, PASS, Result

import torchport.cli

PROGRAMS = ("torchport.cli", "filecheck")
PRELOADED = ("mlir.ir", "torchport.cli.opt", "filecheck.main")
PACKAGES = ("torchport_passes", "torchport_simt")
LISTED = ["torchport", "opt", "--list"]  # what the command line imports before it runs passes


def preload() -> None:
    """Import what the programs import. Call before lit starts its workers, which inherit it."""
    for name in PRELOADED:
        importlib.import_module(name)
    for name in PACKAGES:
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(found.name)
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(SystemExit),
        unittest.mock.patch("sys.argv", LISTED),
    ):
        torchport.cli.main()
    gc.freeze()  # forks do not look through all of it


@dataclass(frozen=True)
class Program:
    """``[not] python -m module arguments [2>&1]``."""

    module: str
    arguments: tuple[str, ...]
    inverted: bool
    joins_errors: bool


class ForkedTest(ShTest):
    """One file, whose ``RUN:`` lines are pipelines. The test fails at the first program that does."""

    def execute(self, test: Any, lit_config: Any) -> Any:
        script = _script(test)
        if isinstance(script, Result):
            return script
        lines = [_programs(line) for line in script]
        if lit_config.maxIndividualTestTime or lit_config.noExecute or not all(lines):
            return super().execute(test, lit_config)
        for text, programs in zip(script, lines, strict=True):
            fault = _run(programs, test.config.environment)
            if fault:
                return Result(FAIL, f"{text}\n{fault}\n")
        return Result(PASS)


def _script(test: Any) -> Any:
    """The test's commands with everything substituted, or the result of a test that has none to run."""
    if test.config.unsupported:
        return Result(lit.Test.UNSUPPORTED, "Test is unsupported")
    parsed = lit.TestRunner.parseIntegratedTestScript(test)
    if isinstance(parsed, Result):
        return parsed
    folder, base = lit.TestRunner.getTempPaths(test)
    substitutions = lit.TestRunner.getDefaultSubstitutions(test, folder, base)
    features = dict.fromkeys(test.config.available_features, True)
    script = lit.TestRunner.applySubstitutions(
        parsed, substitutions, features, recursion_limit=test.config.recursiveExpansionLimit
    )
    return [re.sub(lit.TestRunner.kPdbgRegex, r"\2", line).strip() for line in script]


def _programs(line: str) -> list[Program]:
    """The programs of a pipeline; none if it is something else."""
    pipeline = ShParser(line).parse()
    if not isinstance(pipeline, Pipeline):
        return []
    found = [_program(command) for command in pipeline.commands]
    return [program for program in found if program is not None] if all(found) else []


def _program(command: Any) -> Program | None:
    inverted = command.args[0] == "not"
    arguments = command.args[inverted:]
    redirected = [(*operator, target) for operator, target in command.redirects]
    if (
        arguments[:2] != [sys.executable, "-m"]
        or arguments[2] not in PROGRAMS
        or redirected not in ([], [(">&", 2, "1")])
    ):
        return None
    if not all(isinstance(argument, str) for argument in arguments):
        return None  # a pattern of file names
    return Program(arguments[2], tuple(arguments[3:]), inverted, bool(redirected))


def _run(programs: Sequence[Program], environment: Mapping[str, str]) -> str:
    """Run a pipeline. What the first program that fails wrote, and its status; nothing if none does."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(os.devnull)
        for number, program in enumerate(programs):
            output, errors = Path(folder, f"{number}.out"), Path(folder, f"{number}.err")
            status = _forked(program, environment, source, output, errors)
            if status < 0 or (status == 0) == program.inverted:
                told = "" if program.joins_errors else errors.read_text(errors="replace")
                return f"{program.module}: status {status}\n{output.read_text(errors='replace')}{told}"
            source = output
    return ""


def _forked(program: Program, environment: Mapping[str, str], source: Path, output: Path, errors: Path) -> int:
    """The exit status of a program in a fork of this process; that of a signal is negative."""
    process = os.fork()
    if process == 0:
        _become(program, environment, source, output, errors)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def _become(program: Program, environment: Mapping[str, str], source: Path, output: Path, errors: Path) -> NoReturn:
    status = 1
    try:
        os.dup2(os.open(source, os.O_RDONLY), 0)
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT, 0o600), 1)
        os.dup2(1 if program.joins_errors else os.open(errors, os.O_WRONLY | os.O_CREAT, 0o600), 2)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [program.module, *program.arguments]
        runpy.run_module(program.module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  # as an interpreter does: its traceback is what the process wrote
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
