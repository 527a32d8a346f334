"""Times a package: from the start of Python to the first result, and a call beside torch.compile's.

    python3 tools/bench_package.py llama vit bert

One line for each model, in Markdown. Times of a process are CPU seconds and wall seconds, the medians of several; the
first column is a process that imports torch and nothing else. Times of a call are CPU microseconds on one thread, the
least of several rounds that take turns.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from model_zoo import build as zoo

import torchport
from torchport.packages import build

STARTS = 7
ROUNDS, CALLS = 7, 100

_IMPORT = "import torch"
_FIRST = """
import sys
import torch, torchport
inputs = torch.load(sys.argv[2], weights_only=True)
torchport.load(sys.argv[1])(**inputs)
"""
_TIMED = "import time; print(time.process_time(), time.time())"


def start(code: str, *arguments: str) -> tuple[float, float]:
    """CPU and wall seconds from the start of a process to the end of ``code``, the medians of several."""
    spent = []
    for _ in range(STARTS):
        begun = time.time()
        command = [sys.executable, "-c", f"{code}\n{_TIMED}", *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        cpu, ended = map(float, done.stdout.split())
        spent.append((cpu, ended - begun))
    return statistics.median(cpu for cpu, _ in spent), statistics.median(wall for _, wall in spent)


def calls(functions: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """CPU microseconds of a call of each."""
    torch.set_num_threads(1)
    least = dict.fromkeys(functions, float("inf"))
    with torch.no_grad():
        for function in functions.values():
            function()
        for _ in range(ROUNDS):
            for name, function in functions.items():
                begun = time.process_time()
                for _ in range(CALLS):
                    function()
                least[name] = min(least[name], (time.process_time() - begun) / CALLS * 1e6)
    return least


def row(name: str, folder: Path) -> str:
    """One model's line."""
    built = zoo(name)
    module = built.module.eval()
    if hasattr(module.config, "use_cache"):
        module.config.use_cache = False
    path = build(module, (), folder / "it.tpz", kwargs=built.inputs).path
    torch.save(built.inputs, folder / "inputs")
    alone, first = start(_IMPORT), start(_FIRST, str(path), str(folder / "inputs"))
    package = torchport.load(path)
    compiled = {backend: torch.compile(module, backend=backend) for backend in ("torchport", "inductor")}
    functions = {"eager": module, "package": package, **compiled}
    least = calls({name: partial(function, **built.inputs) for name, function in functions.items()})
    times = [f"{cpu:.2f} / {wall:.2f}" for cpu, wall in (alone, first)]
    return " | ".join(("", name, *times, *(f"{value:.0f}" for value in least.values()), "")).strip()


def main() -> None:
    """Print the table."""
    print("| model | torch alone, CPU / wall s | first result | eager | package | torchport | inductor |")
    print("|---|---|---|---|---|---|---|")
    for name in sys.argv[1:] or ["llama", "vit", "bert"]:
        with tempfile.TemporaryDirectory() as folder:
            print(row(name, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
