"""Kernels of Inductor whose source has a fault, and legal ones beside them: is the fault found, and in which output?

Each is a function, compiled and recorded once; the generated source is changed by a regular expression.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch._inductor.codegen.triton import TritonKernel
from torch.nn import functional as F

import torchport
from torchport.numerics.compare.launch_verdict import judge_launch
from torchport.numerics.runs.reader import Run
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.recorded_call import calls_of
from torchport.numerics.verdicts.verdict import KernelVerdict

__all__ = ["FAULTS", "LEGAL", "Sourced", "faulty_source", "kernels", "run_of", "sourced"]

FP8 = torch.float8_e4m3fn


@contextmanager
def faulty_source(folder: Path, old: str, new: str) -> Iterator[None]:
    """Have Inductor generate kernels in which the regular expression ``old`` is replaced by ``new``.

    What is compiled so is in no cache. Raises LookupError if nothing was replaced.
    """
    changed = []
    generate = TritonKernel.codegen_kernel

    def wrong(self: Any, name: str | None = None) -> str:
        text = generate(self, name)
        other = re.sub(old, new, text)
        changed.append(other != text)
        return other

    with (
        mock.patch.dict(os.environ, {"TORCHPORT_CACHE_DIR": str(folder)}),
        mock.patch.object(TritonKernel, "codegen_kernel", wrong),
        torch._inductor.config.patch(force_disable_caches=True),
    ):
        torch._dynamo.reset()
        yield
    torch._dynamo.reset()
    if not any(changed):
        raise LookupError(f"no kernel has {old!r}")


def run_of(
    folder: Path,
    call: Callable[..., Any],
    given: Sequence[torch.Tensor],
    fault: tuple[str, str] | None = None,
    **options: Any,
) -> Run:
    """One call, compiled by torchport and recorded in full; with ``fault``, its kernels' source is changed so."""
    torch._dynamo.reset()
    compiled = torch.compile(call, backend="torchport", dynamic=False, options=options)

    def record() -> Run:
        with torch.no_grad(), torchport.record(folder, "full"):
            compiled(*given)
        return Run.load(folder)

    if fault is None:
        return record()
    with faulty_source(folder.parent / f"{folder.name}-cache", *fault):
        return record()


def kernels(run: Run) -> list[KernelVerdict]:
    """The verdicts on a run's launches of kernels."""
    return [
        judge_launch(call, launch, judge).verdict
        for call in calls_of(run)
        for launch in call.launches
        if launch.kind == "kernel"
    ]


@dataclass
class Sourced:
    """One kernel: the fault in its source, or why it is legal.

    wrong: outputs with the fault.
    found: of these, how many are blamed.
    others: how many outputs without a fault are blamed.
    """

    name: str
    wrong: int
    found: int
    others: int


def sourced() -> Iterator[Sourced]:
    """Try every fault and every legal kernel."""
    for name, (call, given, fault, nodes) in FAULTS.items():
        yield _tried(name, nodes, call, given, fault)
    for name, (call, given, options) in LEGAL.items():
        yield _tried(name, set(), call, given, None, **options)


def _tried(name: str, wrong: set[str], *call: Any, **options: Any) -> Sourced:
    with tempfile.TemporaryDirectory() as folder:
        verdicts = kernels(run_of(Path(folder) / "run", *call, **options))
    bad = [tensor.node for verdict in verdicts for tensor in verdict.tensors if tensor.is_bad]
    return Sourced(name, len(wrong), len(wrong.intersection(map(str, bad))), sum(node not in wrong for node in bad))


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def causal(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    seen = torch.ones(scores.shape, dtype=torch.bool).tril()
    masked = scores.masked_fill(~seen, -torch.inf)
    return masked, torch.softmax(masked, -1)


def norm(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (64,), w, 1e-5)


def best(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (x * 1.7).argmax(-1), x.amax(-1)


def above(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x > 0.5, x * 2


def signs(x: torch.Tensor) -> torch.Tensor:
    return x / x.abs()


def quantized(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """With a scale that Inductor computes in memory that it uses again."""
    y = F.rms_norm(x, (64,), w, 1e-5)
    scale = y.abs().amax(-1, keepdim=True) / 448
    return (y / scale).to(FP8), scale, y * 1.7


def narrow(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = F.silu(x) * w
    return y.bfloat16(), y * 1.7, y.half()


def restored(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
    q = x.to(FP8)
    return q, q.float() * w * 1.7


def whole(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    scale = x.abs().amax(-1, keepdim=True) / 127
    return torch.clamp(torch.round(x / scale), -128, 127).to(torch.int8), scale


def branches(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0.3, x.exp(), x.sin() * 1.7)


X, W = drawn(32, 64), drawn(64, seed=1)
HOLES = torch.where(torch.arange(64) % 7 == 0, 0.0, X)
TWO_PERCENT = r"(tl\.full\(\[1(?:, 1)?\], )1\.7\d*", r"\g<1>1.734"
STORED = r"(tl\.store\(out_ptr0 \+ .*?, )(tmp\d+)(, .*\n)"
FAULTS: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...], tuple[str, str], set[str]]] = {
    "mask off by one": (causal, (drawn(32, 32),), (r"(tmp\d+ <= tmp\d+)", r"(\1 + 1)"), {"where", "div"}),
    "eps outside": (
        norm, (X, W),
        (r"(tmp\d+) = (tmp\d+) \+ (tmp\d+)\n(\s+tmp\d+) = libdevice\.rsqrt\(\1\)",
         r"\1 = \2 + \3\n\4 = 1 / (tl.sqrt_rn(\2) + \3)"),
        {"mul_1"},
    ),
    "index off by one": (best, (X,), (STORED, r"\1\2 + 1\3"), {"argmax"}),
    "or equal": (above, (torch.round(X * 2) / 2,), (r"(tmp\d+) > (tmp\d+)", r"\1 >= \2"), {"gt"}),
    "infinity lost": (causal, (drawn(32, 32),), (r'float\("-inf"\)', "-3.4028234663852886e38"), {"where"}),
    "NaN lost": (
        signs, (HOLES,), (r"\((tmp\d+) / (tmp\d+)\)", r"tl.where(\2 == 0, 0.0, \1 / \2)"), {"div"},
    ),
    "beside fp8": (quantized, (X, W), TWO_PERCENT, {"mul_2"}),
    "beside bf16": (narrow, (X, W), (TWO_PERCENT[0], r"\g<1>1.7034"), {"mul_1"}),
    "behind fp8": (restored, (X, W), TWO_PERCENT, {"mul_1"}),
    "rounded down": (whole, (X,), (r"libdevice\.nearbyint", "libdevice.floor"), {"convert_element_type"}),
    "a branch": (branches, (X,), TWO_PERCENT, {"where"}),
}  # fmt: skip
"""By fault: a function, its inputs, what is replaced in the kernel's source by what, and FX nodes that are wrong."""


def overflowing(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = x.exp()
    return y, y - y.amax(-1, keepdim=True), y * 2


def saturating(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return x.clamp(-448, 448).to(FP8), x.to(torch.float8_e5m2), x.to(FP8).float() * 3


def tiny(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return x * 1e-3, x * 1e-3 * 1e3


def activated(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.relu(F.batch_norm(F.conv2d(x, w), b, b.abs() + 1, training=False))


def ordered(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (*torch.sort(x, -1), x.argmax(-1), *x.max(0))


LEGAL: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...], dict[str, Any]]] = {
    "fp16 overflows, and what follows is NaN": (overflowing, ((X * 8).half(),), {}),
    "bf16 on an H100": (overflowing, ((X * 60).bfloat16(),), {"emulate": "h100"}),
    "casts saturate": (saturating, (X * 40000,), {}),
    "denormals are flushed": (tiny, (X * 1e-36,), {"emulate": "mi300x"}),
    "channels last": (
        activated, (drawn(2, 8, 10, 10).to(memory_format=torch.channels_last), drawn(8, 8, 3, 3), drawn(8)), {},
    ),
    "equal elements": (ordered, (torch.round(X),), {}),
    "equal to a constant that is rounded": (branches, (torch.round(X * 10) / 10,), {}),
    "integers at the edge": (whole, (X.half(),), {}),
    "not a number": (signs, (HOLES,), {}),
    "fp8 on an H100": (quantized, (X * 300, W), {"emulate": "h100"}),
}  # fmt: skip
"""By what is legal: a function, its inputs, and options of torchport."""
