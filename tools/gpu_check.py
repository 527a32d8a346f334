"""Run everything of torchport's that needs a GPU, and write one JSON file.

    python tools/gpu_check.py --out gpu.json                    # everything
    python tools/gpu_check.py --out gpu.json --total 550        # as much as fits; the same command goes on later
    python tools/gpu_check.py --dry                             # the steps, and how long they take
    python tools/gpu_check.py --target cpu --stand-in h100      # no GPU: the CPU computes as that chip

A step that fails or hangs stops no other one. The file is replaced after each step; steps that it has of the same
machine, versions and sources do not run again, what a step measured before it was stopped is kept (FILE.work).

Exit status 0: all steps passed or do not apply; 1: one failed; 2: there is no GPU; 3: steps are left.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_checks.machine import PROFILES, ROOT, Machine, environment, find_gpu
from gpu_checks.plan import plan
from gpu_checks.running import Step, run
from gpu_checks.state import DONE, State

__all__ = ["check", "main"]

NO_GPU = "no GPU is here: PyTorch sees none, and no --target with --stand-in was given"
_LEAST = 5.0


def main(given: Sequence[str] | None = None) -> int:
    """Run the tool. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--total", type=float, default=3600, help="seconds for all steps together (default: 3600)")
    parser.add_argument("--only", default="", help="steps, with commas between")
    parser.add_argument("--again", action="store_true", help="also run again what failed")
    parser.add_argument("--fresh", action="store_true", help="take nothing over")
    parser.add_argument("--dry", action="store_true", help="list the steps, run nothing")
    parser.add_argument("--target", default="", help="with --stand-in: cpu")
    parser.add_argument("--stand-in", default="", help="a profile that the CPU computes as, to try the tool")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the tool")
    chosen = parser.parse_args(given)
    stand_in = Machine(chosen.target, "cpu", f"the CPU as {chosen.stand_in}", chosen.stand_in, stand_in=True)
    machine = stand_in if chosen.target and chosen.stand_in else find_gpu()
    if machine is None and chosen.dry:
        print(NO_GPU + "; what would run on an H100:")
        machine = Machine("cuda:90", "cuda", "", PROFILES["cuda:90"])
    if machine is None:
        print(NO_GPU, file=sys.stderr)
        return 2
    steps = plan(machine, quick=chosen.quick)
    if unknown := set(filter(None, chosen.only.split(","))) - {step.name for step in steps}:
        parser.error(f"no step is called {sorted(unknown)[0]!r}; steps: {', '.join(step.name for step in steps)}")
    steps = [step for step in steps if not chosen.only or step.name in chosen.only.split(",")]
    if chosen.dry:
        for step in steps:
            print(f"{step.name:<12} about {step.seconds / 60:4.1f} min, at most {step.limit / 60:4.1f}: {step.about}")
        print(f"{'all':<12} about {sum(step.seconds for step in steps) / 60:4.1f} min")
        return 0
    state = State(chosen.out, environment(machine), [step.name for step in steps])
    if why := state.resume(failed=not chosen.again, fresh=chosen.fresh):
        print(why)
    return check(steps, state, chosen.total)


def check(steps: Sequence[Step], state: State, total: float) -> int:
    """Run the steps that ``state`` has no result of, in ``total`` seconds. Returns the exit status."""
    started = time.monotonic()
    state.write()
    folders = [
        ROOT,
        ROOT / "passes",
        ROOT / "tools",
        *sorted(path for path in (ROOT / "backends").iterdir() if path.is_dir()),
    ]
    paths = [*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    waiting = [step for step in steps if state.steps[step.name]["status"] not in DONE]
    for number, step in enumerate(waiting):
        left = total - (time.monotonic() - started)
        rest = sum(one.seconds for one in waiting[number:])
        where = f"[{number + 1}/{len(waiting)}] {step.name}"
        if left < min(step.seconds, step.limit) * 0.5 or left < _LEAST:
            print(f"{where}: not run, {left:.0f} s of {total:.0f} are left and it takes about {step.seconds:.0f}")
            state.put(step.name, {"status": "not run", "reason": f"{left:.0f} s were left of {total:.0f}"})
            continue
        limit = min(step.limit, left)
        about = f"about {step.seconds:.0f} s, {rest / 60:.0f} min for all, {left / 60:.0f} are left"
        print(f"{where}: {step.about}; {about}", flush=True)

        def show(seconds: float, where: str = where, limit: float = limit) -> None:
            if sys.stderr.isatty():
                print(f"\r{where}: {seconds:.0f} s of at most {limit:.0f} ", end="", file=sys.stderr, flush=True)

        try:
            result = run(step, state.work, limit, variables, show)
        except KeyboardInterrupt:
            state.put(step.name, {"status": "not run", "reason": "interrupted"})
            print("\ninterrupted: the same command goes on from here")
            return 3
        state.put(step.name, result)
        if sys.stderr.isatty():
            print("\r", end="", file=sys.stderr)
        print(f"{where}: {result['status']} after {result['seconds']:.0f} s{_remark(result)}", flush=True)
    print("\n".join(table(state)))
    statuses = [one["status"] for one in state.steps.values()]
    return 1 if "failed" in statuses else 0 if state.content["complete"] else 3


def table(state: State) -> list[str]:
    """The results, a line a step."""
    lines = [f"{'step':<12} {'status':<8} {'seconds':>8}"]
    for name, one in state.steps.items():
        seconds = f"{one['seconds']:.0f}" if "seconds" in one else "-"
        lines.append(f"{name:<12} {one['status']:<8} {seconds:>8}{_remark(one)}")
    return [*lines, f"{state.path}{'' if state.content['complete'] else ': not complete'}"]


def _remark(result: dict[str, Any]) -> str:
    found = result.get("result") or {}
    text = result.get("reason") or found.get("summary") or ""
    return f"  {text}" if text else ""


if __name__ == "__main__":
    sys.exit(main())
