"""A rounding in a kernel's source that none of its FX nodes has: an upcast that was lost."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from torchport.numerics.compare.launch_verdict import judge_launch
from torchport.numerics.recording.record import record
from torchport.numerics.runs.reader import Run
from torchport.numerics.runs.writer import content_hash
from torchport.numerics.verdicts.judge import judge
from torchport.numerics.verdicts.narrowed import narrowed_to
from torchport.numerics.verdicts.recorded_call import RecordedCall, calls_of
from torchport.numerics.verdicts.recorded_replay import replay_of


def model(x: torch.Tensor) -> torch.Tensor:
    return x.square().sum(-1)


def recorded(folder: Path, dtype: torch.dtype) -> RecordedCall:
    x = torch.randn(16, 200, generator=torch.Generator().manual_seed(0)).to(dtype)
    compiled = torch.compile(model, backend="torchport", dynamic=False)
    with torch.no_grad(), record(folder, "full", overhead=float("inf")):
        compiled(x)
    (call,) = calls_of(Run.load(folder))
    return call


def lost(ttir: str) -> str:
    """The same kernel, what it adds up rounded to bf16 first."""
    found = re.search(r'"tt\.reduce"\((%\w+)\)', ttir)
    assert found is not None
    value = found[1]
    made = re.search(rf"^ *{re.escape(value)} = .*(tensor<[\dx]+)f32>$", ttir, re.MULTILINE)
    assert made is not None
    wide, narrow = f"{made[1]}f32>", f"{made[1]}bf16>"
    casts = f"\n    %nn = arith.truncf {value} : {wide} to {narrow}\n    %ww = arith.extf %nn : {narrow} to {wide}"
    return ttir.replace(made[0], made[0] + casts).replace(f'"tt.reduce"({value})', '"tt.reduce"(%ww)')


def test_a_lost_upcast_in_the_source_fails(tmp_path: Path) -> None:
    """The recorded source has it, so the kernel does what its source says; its result is that of the source."""
    call = recorded(tmp_path / "run", torch.float32)
    (launch,) = call.launches
    assert narrowed_to(call, launch) == () and judge_launch(call, launch, judge).verdict.level in ("EXACT", "EXPECTED")
    kernel = call.run.kernels[str(launch.kernel)]
    kernel["ttir"] = lost(kernel["ttir"])
    assert narrowed_to(call, launch) == ("bf16",)
    replay, storages, (output,) = replay_of(call.run, launch)
    after = replay.run(storages)[output.storage or 0]
    sha = content_hash("float32", after.numpy().tobytes())
    save_file({"data": after}, call.run.path / "tensors" / f"{sha}.safetensors")
    launch = replace(launch, args=tuple(replace(one, after=sha) if one.role == "out" else one for one in launch.args))
    verdict = judge_launch(call, launch, judge).verdict
    assert verdict.level == "FAIL" and "the kernel rounds to bf16" in verdict.reasons[0]


def test_a_model_of_16_bits_may_round(tmp_path: Path) -> None:
    call = recorded(tmp_path / "run", torch.bfloat16)
    assert "bf16" in next(iter(call.run.kernels.values()))["ttir"]
    assert all(narrowed_to(call, launch) == () for launch in call.launches)
    assert all(judge_launch(call, launch, judge).verdict.level in ("EXACT", "EXPECTED") for launch in call.launches)
