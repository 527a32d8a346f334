"""One cell, measured in a process of its own: ``python -m torchport.evaluation.cell JOB.json RESULT.json``.

The result is written after each stage, so that a crash leaves what was known before and where it happened.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Job", "finite", "main"]

_CACHES = ("TORCHPORT_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
_RANDOM = (
    "the model draws random numbers (dropout?), other ones in float64, eager and compiled: results are not compared; "
    "kernels are judged on the numbers that they drew"
)
_REASONS = 12  # different fallbacks that a report names


@dataclass(frozen=True)
class Job:
    """What one cell is.

    model: of the suite, as JSON values of ``ModelSpec``.
    target, reference: as the suite names them.
    rounds: of timing.
    clock: ``wall``, or ``cpu``: of all threads of this process, where others run.
    threads: torch's; 0 for its own choice.
    runs: folder that recorded runs beyond legal arithmetic are kept in; empty to keep none.
    """

    model: Mapping[str, Any]
    target: str
    reference: str
    rounds: int
    clock: str = "wall"
    threads: int = 0
    runs: str = ""


@dataclass
class _Result:
    """What is known of the cell; it is written whole after each stage."""

    path: Path
    content: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    _begun: tuple[str, float] = ("", 0.0)

    def begin(self, stage: str) -> None:
        """A stage begins; the seconds of the one before, of all its parts together, are kept."""
        name, now = stage.partition(" launch ")[0], time.perf_counter()
        before, since = self._begun
        if before:
            self.stages[before] = round(self.stages.get(before, 0.0) + now - since, 3)
        self._begun = name, now
        self.add(stage=stage, stages=dict(self.stages))

    def add(self, **found: Any) -> None:
        self.content.update(found)
        self._write()

    def _write(self) -> None:
        from torchport.files import write_whole

        write_whole(self.path, json.dumps(finite(self.content), allow_nan=False).encode())


def finite(value: Any) -> Any:
    """``value`` with None for numbers that JSON has no word for."""
    if isinstance(value, Mapping):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(arguments: Sequence[str]) -> int:
    """Measure the cell of a job; the exit status is 0 if a result, good or bad, was written."""
    job = Job(**json.loads(Path(arguments[0]).read_text()))
    result = _Result(Path(arguments[1]))
    result.begin("starting")
    from torchport.errors import ArtifactError, OptionError, TargetError, TorchportError

    try:
        _measure(job, result)
    except TargetError as error:
        result.add(status="absent", detail=str(error))
    except (OptionError, ArtifactError) as error:  # what the suite says of the model is wrong: nobody refused anything
        result.add(status="mistake", detail=str(error))
    except TorchportError as error:
        result.add(status="refused", detail=str(error))
    return 0


def _measure(job: Job, result: _Result) -> None:
    import torch

    from torchport.evaluation.loading import load
    from torchport.evaluation.suite import ModelSpec
    from torchport.evaluation.targets import parse

    if job.threads:
        torch.set_num_threads(job.threads)
    column = parse(job.target)
    result.begin("loading the model")
    loaded = load(ModelSpec(**job.model))
    result.add(
        model={"parameters": loaded.parameters, "area": loaded.area, "kind": loaded.kind, "batches": len(loaded.calls)}
    )
    if column.mode == "compiled":
        _compile_only(column.way, loaded, result)
    else:
        _run(job, column, loaded, result)
    result.begin("")
    result.add(status="ok", detail="")


def _compile_only(target: str, loaded: Any, result: _Result) -> None:
    import torch

    from torchport.offline import capture, compile_kernel
    from torchport.target import Target

    result.begin("capturing kernels")
    call = loaded.calls[0]
    with torch.no_grad():
        found = capture(lambda *args: loaded.module(*args, **call.kwargs), call.args)
    result.begin("compiling")
    made = [
        compile_kernel(one, Target.parse(target), label)
        for one, label in zip(found.kernels, found.labels(), strict=True)
    ]
    refused = Counter(one.error for one in made if one.error)
    limits = Counter(limit for one in made for limit in one.limits)
    result.add(
        coverage={
            "kernels": len(made),
            "compiled": len(made) - refused.total(),
            "refused": dict(refused.most_common(_REASONS)),
            "limits": dict(limits.most_common(_REASONS)),
            "libraries": sum(one.calls for one in found.libraries),
            "fallbacks": _fallbacks(found.fallbacks),
        },
        time={"compile_s": sum(one.seconds for one in made)},
    )


def _run(job: Job, column: Any, loaded: Any, result: _Result) -> None:
    import torch

    from torchport.evaluation.loading import same_buffers
    from torchport.evaluation.measure import accuracy, errors_of
    from torchport.evaluation.targets import EAGER
    from torchport.precision.ways import other_threads, threads, way_of
    from torchport.runtime import devices

    way, base = way_of(column.way), way_of(_way(job.reference))
    real = column.mode == "here"
    result.begin("computing in float64")
    truth = loaded.truth()
    eager = [loaded.run(loaded.module, call) for call in loaded.calls]
    result.begin("compiling")
    called = _compiled(way, loaded.module)
    before = _peak()
    compiled = _first_call(lambda: loaded.run(called, loaded.calls[0]), way.options is not None)
    result.begin("running")
    found = [loaded.run(called, call) for call in loaded.calls]
    memory: dict[str, Any] = {"peak_bytes": _peak(), "grown_bytes": _peak() - before}
    if column.target:
        counts = devices.statistics(column.target)
        memory |= {"device_bytes": counts.mirrored + counts.pooled} if counts.launches else {}
    result.add(coverage=compiled["coverage"], time=compiled["time"] if real else {}, memory=memory if real else {})
    result.begin("running the reference")
    random = loaded.draws()
    same = way.options == base.options
    reference_call = called if same else _compiled(base, loaded.module)
    reference = found if same else [loaded.run(reference_call, call) for call in loaded.calls]
    with threads(other_threads()):
        floor = [loaded.run(reference_call, call) for call in loaded.calls]
    if random:
        result.add(random=_RANDOM)
    else:
        known = accuracy(loaded.kind, truth, reference, floor, found)
        result.add(accuracy={**known, "eager": errors_of(eager, truth)["outputs"]})
    if real:
        result.begin("timing")
        steps: dict[str, Callable[[], Any]] = {"eager": _step(loaded, loaded.module)}
        if not same:
            steps["reference"] = _step(loaded, reference_call)
        if column.way != EAGER:
            steps["target"] = _step(loaded, called)
        with same_buffers(loaded.module):
            result.add(time={**compiled["time"], **_times(job, steps)})
    if way.options is not None:
        _judge(job, column, loaded, called, result)
    torch.compiler.reset()


def _way(reference: str) -> str:
    from torchport.evaluation.targets import parse

    return parse(reference).way


def _compiled(way: Any, module: Any) -> Any:
    """The module as it is called this way; what was compiled before stays."""
    import torch

    return module if way.options is None else torch.compile(
        module, backend="torchport", options=dict(way.options), dynamic=False
    )  # fmt: skip


def _first_call(run: Callable[[], Any], compiles: bool) -> dict[str, Any]:
    """Coverage, and the time of a first call with empty caches; the import of compilers is part of it."""
    from torchport.report import Report
    from torchport.runtime import events, graph_breaks

    with events.capture() as happened, graph_breaks.noted(), _empty_caches():
        clocks = time.perf_counter(), _cpu()
        run()
        wall, cpu = time.perf_counter() - clocks[0], _cpu() - clocks[1]
    report = Report.of(happened)
    breaks = Counter(str(one) for one in report.graph_breaks)
    return {
        "coverage": {
            "graphs": len(report.graphs),
            "kernels": len(report.kernels),
            "graph_breaks": dict(breaks.most_common(_REASONS)),
            "fallbacks": _fallbacks(report.fallbacks),
        },
        "time": {"compile_s": wall, "compile_cpu_s": cpu} if compiles else {},
    }


def _fallbacks(found: Sequence[Any]) -> list[dict[str, Any]]:
    """Fallbacks, equal ones together: what runs where, why, how often."""
    counts = Counter((one.operation or one.kernel or "graph", one.to, one.reason) for one in found)
    return [
        {"what": what, "to": to, "reason": reason, "count": count}
        for (what, to, reason), count in counts.most_common(_REASONS)
    ]


def _step(loaded: Any, called: Any) -> Callable[[], Any]:
    """One call on inputs of its own, which a model may change in place."""
    import torch

    call = loaded.calls[0].copied()

    def step() -> Any:
        with torch.no_grad():
            return loaded.outputs(called(*call.args, **call.kwargs))

    return step


def _times(job: Job, steps: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    from statistics import median

    from torchport.evaluation.timing import interleaved, speed
    from torchport.precision.statistics import median_interval

    samples = interleaved(steps, job.rounds, time.process_time if job.clock == "cpu" else time.perf_counter)
    own = "target" if "target" in samples else "eager"
    against = "reference" if "reference" in samples else own
    return {
        "clock": job.clock,
        "steady_s": median(samples[own]),
        "steady_interval": median_interval(samples[own]),
        "eager_s": median(samples["eager"]),
        "reference_s": median(samples[against]),
        "over_eager": speed(samples, own, "eager"),
        "over_reference": speed(samples, own, against),
        "samples": samples,
    }


def _judge(job: Job, column: Any, loaded: Any, called: Any, result: _Result) -> None:
    from torchport.evaluation.verdicts import recorded, verdicts

    with tempfile.TemporaryDirectory(prefix="torchport-eval-") as scratch:
        folder = Path(scratch) / "run"
        result.begin("recording")
        recorded(folder, lambda: loaded.run(called, loaded.calls[0]))
        verdict = verdicts(folder, column.target, result.begin)
        if job.runs and verdict["bad"]:
            verdict["run"] = _kept(folder, Path(job.runs))
        result.add(verdict=verdict)


def _kept(folder: Path, runs: Path) -> str:
    import shutil

    runs.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(runs, ignore_errors=True)
    shutil.copytree(folder, runs)
    return str(runs)


@contextmanager
def _empty_caches() -> Iterator[None]:
    """This process's compilers find nothing compiled while the context is open."""
    before = {name: os.environ.get(name) for name in _CACHES}
    with tempfile.TemporaryDirectory(prefix="torchport-eval-") as folder:
        os.environ.update({name: str(Path(folder) / name.lower()) for name in _CACHES})
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _peak() -> int:
    """Most resident memory this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
