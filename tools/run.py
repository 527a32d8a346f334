#!/usr/bin/env python3
"""Set up torchport in a fresh clone and run it: ``python3 tools/run.py demo``, ``test [--all]`` or ``bench``.

Needs Python and a C++ compiler (for the extension), nothing else: the environment `.venv`, torch and every dependency
are made here. A second call reuses them unless pyproject.toml or a native source changed. Uses the standard library
only, because it runs before anything is installed.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("TORCHPORT_VENV", ROOT / ".venv"))
# Named before torchport's own range, so that pip takes a build with this version (and its CPU wheel where an index
# offers one) instead of the newest release with its CUDA packages.
TORCH = os.environ.get("TORCHPORT_TORCH", "torch==2.13.0")
EXTRAS = {"demo": "demo", "test": "test", "bench": "test"}
OLDEST, NEWEST = (3, 10), (3, 13)
CHECKS = {  # run in the environment, side by side; pytest comes last and apart
    "ruff": ["ruff", "check", "."],
    "mypy": ["mypy"],
    "import-linter": ["lint-imports"],
    "lit": ["lit", "-v", "passes/test"],
}
TESTS = ["pytest", "-n", "2", "--dist", "worksteal", "-p", "no:logging", "-q"]
QUICK = ["-m", "not slow"]  # dropped by --all
COMPILES = "import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=2)"
BENCH = "tools/bench_models.py --models bert --size small --backends torchport --compile-repeats 1 --no-launch".split()


def main(arguments):
    """Run one of EXTRAS' jobs; further arguments go to ``torchport demo``, pytest or tools/bench_models.py.

    ``test --all`` runs the tests marked slow as well. Returns the exit status.
    """
    if not arguments or arguments[0] not in EXTRAS:
        print("usage: python3 tools/run.py demo|test|bench [--all] [arguments]", file=sys.stderr)
        return 2
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        print(
            "error: torchport needs Python 3.10 to 3.13 and this is {}.{}; run this script with one of those, for "
            "example python3.12 tools/run.py {}".format(*sys.version_info[:2], arguments[0]),
            file=sys.stderr,
        )
        return 2
    os.chdir(ROOT)
    job, rest = arguments[0], arguments[1:]
    try:
        install(EXTRAS[job])
    except subprocess.CalledProcessError as error:
        print(f"error: set-up stopped at: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    if job == "demo":
        return call(["torchport", "demo", *rest])
    if job == "bench":
        return bench(rest)
    return test(rest)


def install(extra):
    """Make the environment if it is missing and install torchport[extra] into it, unless that is done."""
    python = VENV / "bin" / "python"
    stamp = VENV / f"torchport-{extra}.stamp"
    wanted = fingerprint()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    if not (VENV / "bin" / "pip").exists():
        print(f"making {VENV}", flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        except subprocess.CalledProcessError:
            print("hint: on Debian and Ubuntu, apt-get install python3-venv python3-dev g++", file=sys.stderr)
            raise
    # pip makes no byte code: importing a module does. Most of PyTorch is imported, so all of it is compiled meanwhile.
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile"]
    print(f"installing {TORCH} and torchport", flush=True)
    beside([*pip, TORCH], [*pip, "--no-deps", "--editable", "."])
    print(f"installing what torchport[{extra}] needs", flush=True)
    torch = next(VENV.glob("lib/python*/site-packages/torch"))
    beside([*pip, f"torchport[{extra}]", TORCH], [str(python), "-c", COMPILES, str(torch)])
    stamp.write_text(wanted)


def beside(*commands):
    """Run commands side by side. Raises CalledProcessError, when all have ended, if one fails."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda command: subprocess.run(command, check=True), commands))


def fingerprint():
    """A digest of everything that decides what gets installed."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {TORCH}".encode())
    sources = [ROOT / "pyproject.toml", ROOT / "CMakeLists.txt"]
    for folder in ("torchport", "backends"):
        sources += sorted(p for p in (ROOT / folder).rglob("*") if p.suffix in (".cpp", ".cc", ".c", ".h", ".hpp"))
    for source in sources:
        if source.exists():
            digest.update(source.read_bytes())
    return digest.hexdigest()


def test(rest):
    """Run every check, then pytest; pytest's closing line is the last one. Returns non-zero when anything failed."""
    failed = []
    with ThreadPoolExecutor() as pool:
        for name, (status, output) in zip(CHECKS, pool.map(captured, CHECKS.values()), strict=True):
            print(f"== {name}\n{output}", end="", flush=True)
            if status:
                failed.append(name)
    if failed:
        print(f"FAILED: {', '.join(failed)} (see above); the tests run all the same", flush=True)
    print("== pytest", flush=True)
    chosen = rest if "--all" not in rest else [argument for argument in rest if argument != "--all"]
    status = call([*TESTS, *(QUICK if chosen is rest else []), *chosen])
    return status or len(failed)


def bench(rest):
    """A benchmark of half a minute; its result file is printed as one line, for tools/bench_compare.py."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "bench.json")
        status = call(["python", *BENCH, "--out", str(out), *rest])
        if status == 0:
            print(json.dumps(json.loads(out.read_text())), flush=True)
    return status


def captured(command):
    """Run one of the environment's programs: its exit status, and what it prints."""
    done = run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    return done.returncode, done.stdout


def call(command):
    """Run one of the environment's programs; its exit status."""
    return run(command).returncode


def run(command, **options):
    """Run one of the environment's programs, with the others first on PATH."""
    programs = VENV / "bin"
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = dict(os.environ, VIRTUAL_ENV=str(VENV), PATH=path)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each of the many processes would compile torchport anew
    return subprocess.run([str(programs / command[0]), *command[1:]], env=environment, check=False, **options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
