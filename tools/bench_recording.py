"""What recording costs: seconds of a model's call with `torchport.record(level="stats")` open, over those without.

    python tools/bench_recording.py [MODEL ...] [--train] [--size small] [--rounds 7] [--calls 10] [--json FILE]

Steady state: the first launch of every kernel, which runs twice and is written down in full, comes before the clock
starts, and is shown for itself. Calls with and without are timed in turn, in rounds; the ratio is that of
the medians over rounds of a call's mean time.
Without `record`, generated code is the same and nothing of it runs (tests/models/test_recording.py).
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from model_zoo import build, entries, names

import torchport
from torchport.numerics.recording.record import OVERHEAD
from torchport.numerics.runs.reader import Run


def _caller(name: str, size: str, train: bool) -> Callable[[], None]:
    built = build(name, size, dtype=torch.float32)
    return functools.partial(built.step, torch.compile(built.module, backend="torchport"), train)


def measure(name: str, size: str, train: bool, rounds: int, calls: int, overhead: float) -> dict[str, Any]:
    """Milliseconds of a call without and with recording, of the first recorded call, and what a call records."""
    torch._dynamo.reset()
    call = _caller(name, size, train)
    for _ in range(3):
        call()
    plain, recorded, first = [], [], []
    seen: list[float] = []
    launches, written = 0, 0.0
    for _ in range(rounds):
        plain.append(statistics.mean(_seconds(call) for _ in range(calls)))
        folder = Path(tempfile.mkdtemp()) / "run"
        with torchport.record(folder, ttir=False, overhead=overhead) as recorder:
            first.append(_seconds(call))
            call()
            before = (folder / "launches.jsonl").stat().st_size
            recorded.append(statistics.mean(_seconds(call) for _ in range(calls)))
            written = ((folder / "launches.jsonl").stat().st_size - before) / calls
        seen.append(recorder.counts["calls_seen"] / sum(recorder.counts[one] for one in ("calls_seen", "calls_unseen")))
        if not launches:
            launches = sum(one.call == 0 and one.kind in ("kernel", "extern") for one in Run.load(folder).launches)
        shutil.rmtree(folder.parent)
    milliseconds = [1e3 * statistics.median(times) for times in (plain, recorded, first)]
    return {
        "model": name,
        "launches": launches,
        "plain_ms": milliseconds[0],
        "recorded_ms": milliseconds[1],
        "ratio": milliseconds[1] / milliseconds[0],
        "first_ms": milliseconds[2],
        "bytes_a_call": written,
        "seen": statistics.mean(seen),
    }


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names in the model zoo; all by default")
    parser.add_argument("--size", default="small", choices=("small", "bench"))
    parser.add_argument("--train", action="store_true", help="a training step, forward and backward")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=20, help="in each round, with recording and without")
    parser.add_argument(
        "--overhead", type=float, default=OVERHEAD, help="as of torchport.record; inf looks at all calls"
    )
    parser.add_argument("--threads", type=int, help="torch.set_num_threads")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    trainable = {name for name, entry in entries().items() if entry.trains}
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    results = []
    print(
        f"{'model':12} {'launches':>8} {'plain ms':>9} {'recorded':>9} {'ratio':>6} {'first ms':>9} {'KB a call':>9} "
        f"{'seen':>5}"
    )
    for name in given.models or names():
        if given.train and name not in trainable:
            continue
        one = measure(name, given.size, given.train, given.rounds, given.calls, given.overhead)
        results.append(one)
        print(
            f"{name:12} {one['launches']:8} {one['plain_ms']:9.3f} {one['recorded_ms']:9.3f} {one['ratio']:6.2f} "
            f"{one['first_ms']:9.1f} {one['bytes_a_call'] / 1024:9.1f} {one['seen']:5.0%}",
            flush=True,
        )
    print(f"worst ratio {max(one['ratio'] for one in results):.2f}")
    if given.json is not None:
        given.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
