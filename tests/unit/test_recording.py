"""Summaries of tensors, places in generated code, and recording on a device with memory of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from emulated_device import installed

import torchport
from torchport.inductor.observation.generated_code import is_fresh, launch_number, launched_name, results_named
from torchport.numerics.recording.memory import dtype_name, fill_canary
from torchport.numerics.runs.reader import Run
from torchport.numerics.runs.summary import CANARY, ELEMENTS, SAMPLE, sample_of, sample_positions, summarize

VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "whole": lambda t: t,
    "transposed": lambda t: t.transpose(0, 2),
    "every other": lambda t: t[:, ::2],
    "row": lambda t: t[3],
    "expanded": lambda t: t[:, :1].expand(-1, 7, -1),
    "scalar": lambda t: t[0, 0, 0],
    "empty": lambda t: t[:0],
}


@pytest.mark.parametrize("dtype", sorted(ELEMENTS, key=str), ids=str)
def test_summaries(dtype: torch.dtype) -> None:
    values = (torch.randn(37, 129, 5, dtype=torch.float64) * 3).to(torch.uint8 if dtype in UNSIGNED else dtype)
    values = values.to(dtype)
    if dtype.is_floating_point:
        values[3, 4, 0], values[5, 6, 1] = math.nan, math.nan if dtype in NO_INFINITY else -math.inf
        values[1, 1, 1], values[0, 0, 0] = 0, torch.finfo(dtype).tiny * 0.5
    for name, view in VIEWS.items():
        tensor = view(values)
        text, strange = summarize(tensor)
        assert len(text) <= 4096, name
        found = json.loads(text)
        flat = tensor.reshape(-1).to(torch.float64)
        finite = flat[flat.isfinite()]
        counts = {
            "count": flat.numel(),
            "finite": finite.numel(),
            "nan": int(flat.isnan().sum()),
            "posinf": int((flat == math.inf).sum()),
            "neginf": int((flat == -math.inf).sum()),
            "zero": int((flat == 0).sum()),
            "canary": 0,
        }
        if dtype.is_floating_point:
            counts["denormal"] = int(((flat != 0) & (flat.abs() < torch.finfo(dtype).tiny)).sum())
        assert {key: found[key] for key in counts} == counts, name
        assert strange == flat.numel() - finite.numel()
        if not finite.numel():
            assert found["mean"] is None and found["top"] == []
            continue
        assert (found["min"], found["max"]) == (finite.min(), finite.max())
        assert found["mean"] == pytest.approx(float(finite.mean()), rel=1e-9, abs=1e-12)
        assert found["mean_square"] == pytest.approx(float(finite.square().mean()), rel=1e-9)
        magnitudes = finite.abs().sort(descending=True).values[:8]
        assert [abs(value) for _, value in found["top"]] == magnitudes.tolist()
        assert all(flat[index] == value for index, value in found["top"])
        nonzero = finite[finite != 0]
        exponents = nonzero.abs().log2().floor().clamp(-40, 23).to(torch.int64)
        bins = {e: [int(((exponents == e) & (nonzero < 0)).sum()), int(((exponents == e) & (nonzero > 0)).sum())]
                for e in exponents.unique().tolist()}  # fmt: skip
        assert {e: [negative, positive] for e, negative, positive in found["exponents"]} == bins
        sample = sample_of(found, dtype_name(dtype)).to(torch.float64)
        assert torch.equal(sample.nan_to_num(), flat[sample_positions(flat.numel())].nan_to_num())
        later = json.loads(summarize(tensor, detailed=False)[0])
        assert later.items() <= found.items() and "sample" not in later


UNSIGNED = {torch.uint8, torch.uint16, torch.uint32, torch.uint64}
NO_INFINITY = {torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz}


def test_large_tensors_do_not_depend_on_threads() -> None:
    values = torch.randn(300_001) * torch.logspace(-30, 10, 300_001)
    texts = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        texts.append(summarize(values)[0])
    assert texts[0] == texts[1] == texts[2] and len(texts[0]) <= 4096
    found = json.loads(texts[0])
    assert found["mean"] == pytest.approx(float(values.double().mean()), rel=1e-9)
    step = found["step"]
    assert step == 300_001 // 65536 and sum(n + p for _, n, p in found["exponents"]) == len(values[::step])
    positions = sample_positions(300_001)
    assert len(set(positions)) > SAMPLE - 3 and max(positions) > 200_000


def test_hash_follows_every_bit() -> None:
    values = torch.zeros(1000)
    seen = {json.loads(summarize(values)[0])["hash"]}
    for index in (0, 7, 512, 999):
        changed = values.clone()
        changed.view(torch.int32)[index] ^= 1
        seen.add(json.loads(summarize(changed)[0])["hash"])
    values[5] = -0.0
    seen.add(json.loads(summarize(values)[0])["hash"])
    assert len(seen) == 6


@pytest.mark.parametrize("dtype", sorted(CANARY, key=str), ids=str)
def test_canaries(dtype: torch.dtype) -> None:
    values = torch.zeros(6, 10, dtype=dtype)
    fill_canary(values[1:4], None)
    values[2, 3], values[5, 5] = 1, math.nan
    found = json.loads(summarize(values)[0])
    assert (found["canary"], found["nan"]) == (29, 30)
    assert values[0].eq(0).all() and values[1:2].isnan().all()


def test_complex_numbers_are_pairs() -> None:
    values = torch.tensor([1 + 2j, complex(3, math.nan)])
    found = json.loads(summarize(values)[0])
    assert (found["count"], found["finite"], found["max"]) == (4, 3, 3)
    with pytest.raises(KeyError):
        summarize(torch.zeros(3, dtype=torch.uint8).view(torch.float8_e8m0fnu))


CODE = """
def call(args):
    arg0_1, = args
    buf0 = empty_strided_cpu((4, ), (1, ), torch.float32)
    kernel_0.launch(arg0_1, buf0, 4)
    buf1 = buf0; del buf0  # reuse
    buf2 = empty_strided_cpu((4, ), (1, ), torch.float32)
    kernel_1.launch(arg0_1, buf2, 4)
    kernel_0.launch(buf2, buf1, 4)
    buf3 = torch.ops.aten.sort.stable(buf2, stable=False)
    buf4 = buf3[0]
    buf5 = buf3[1]
    buf6 = torch.ops.aten.cos.default(buf4)
    with device(0):
        kernel_2.run(buf6, buf1, 4, stream=stream0)
        other_kernel_2.run(buf6, buf1, 4, stream=stream0)
        kernel_2.run(buf1, buf6, 4, stream=stream0)
"""


def test_places_in_generated_code(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(CODE)
    module: dict[str, Any] = {}
    exec(compile(CODE, str(path), "exec"), module)
    code = module["call"].__code__
    assert is_fresh(code, 5, "buf0") and is_fresh(code, 9, "buf1") and is_fresh(code, 8, "buf2")
    assert not is_fresh(code, 9, "buf2"), "it was written before"
    assert not is_fresh(code, 5, "arg0_1")
    assert [launch_number(code, line, "kernel_0") for line in (5, 9)] == [0, 1]
    assert [launch_number(code, line, "kernel_2") for line in (15, 17)] == [0, 1]
    assert [launched_name(code, line) for line in (5, 7, 16)] == ["kernel_0", None, "other_kernel_2"]
    assert results_named(code, 10, 2) == ["buf4", "buf5"] and results_named(code, 13, 1) == ["buf6"]


def test_a_device_with_its_own_memory(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(16, 24), torch.nn.GELU(), torch.nn.LayerNorm(24)).requires_grad_(True)
    x = torch.randn(8, 16)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        result = compiled(x)
        result.square().sum().backward()
        return [result.detach(), *(one.grad.clone() for one in model.parameters() if one.grad is not None)]

    with installed():
        compiled = torch.compile(model, backend="torchport", options={"target": "emulated", "fallback": "error"})
        expected = gradients()
        with torchport.record(tmp_path / "run", level="full", overhead=math.inf, ttir=False):
            got = [gradients(), gradients()]
    for results in got:
        assert all(torch.equal(one, other) for one, other in zip(results, expected, strict=True))
    run = Run.load(tmp_path / "run")
    assert not run.damaged and not run.info["notes"]
    (last,) = (one for one in run.launches if one.kind == "output" and run.graphs[one.graph]["direction"] == "forward")
    assert torch.equal(run.tensor(str(last.args[0].after)), expected[0].reshape(-1))
    first = [launch for launch in run.launches if launch.call == 0 and launch.kind in ("kernel", "extern")]
    assert {"kernel", "extern"} == {launch.kind for launch in first}, "products on the device are operators"
    held: dict[str, str] = {}
    for launch in first:  # what is read is what was written last, on the device as on the host
        for arg in launch.args:
            key = f"{launch.graph} {arg.buffer}"
            if arg.role == "in" and key in held:
                assert arg.before == held[key], f"{arg.buffer} was read from stale memory"
            if arg.after is not None and arg.role != "in":
                held[key] = arg.after
    assert len(held) > 5


def test_looking_keeps_to_its_share(tmp_path: Path) -> None:
    """A graph that takes no time, many calls: most pass unseen, and the number of those is kept."""
    compiled = torch.compile(lambda x: torch.sin(x) + 1, backend="torchport")
    x = torch.randn(10)
    compiled(x)
    with torchport.record(tmp_path / "run", overhead=0.1, ttir=False):
        for _ in range(200):
            compiled(x)
    counts = Run.load(tmp_path / "run").info["counts"]
    assert counts["calls_seen"] + counts["calls_unseen"] == 200 and 2 <= counts["calls_seen"] < 100
    assert counts["launches"] == counts["calls_seen"]
