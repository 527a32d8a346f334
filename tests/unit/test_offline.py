"""Compiling a model's kernels for targets that are not here: capture, machine code, manifests, the commands."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from torchport.capabilities import Capabilities
from torchport.cli.app import app
from torchport.errors import ArtifactError, OptionError, TargetError
from torchport.inductor.scope import KernelSource
from torchport.offline import Artifact, capture, compile_kernel, read, write
from torchport.plugin import registry
from torchport.target import Target

GPUS = ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942", "hip:gfx950", "hip:gfx1100"]
MACHINES = {"cuda": 190, "hip": 224}  # EM_CUDA and EM_AMDGPU of the ELF registry

MODEL = """
import torch
def make():
    return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.LayerNorm(32)), (torch.ones(4, 16),)
def not_a_model():
    return 3
"""


@pytest.fixture(scope="module")
def kernels() -> list[KernelSource]:
    found, fallbacks = capture(lambda x: torch.softmax(x.exp() + 1, -1).cumsum(0), (torch.ones(8, 64),))
    assert not fallbacks
    return found


@pytest.mark.parametrize("target", GPUS)
def test_machine_code_of_gpus(kernels: list[KernelSource], target: str) -> None:
    assert kernels
    for kernel in kernels:
        artifact = compile_kernel(kernel, Target.parse(target))
        assert artifact.error == "" and artifact.format in ("cubin", "hsaco")
        assert artifact.binary[:4] == b"\x7fELF"
        assert struct.unpack_from("<H", artifact.binary, 18)[0] == MACHINES[target.split(":", maxsplit=1)[0]]
        assert artifact.symbol.encode() in artifact.binary
        assert artifact.resources.registers is not None and artifact.resources.registers > 0
        able = registry().get(target.split(":", maxsplit=1)[0]).capabilities(Target.parse(target))
        assert artifact.simd_groups in able.simd_groups


def test_the_cpu_is_a_target_like_others(kernels: list[KernelSource]) -> None:
    artifact = compile_kernel(kernels[0], Target("cpu"))
    assert artifact.error == "" and artifact.format == "obj" and artifact.simd_groups == 1


def test_backward_kernels_are_captured() -> None:
    x = torch.ones(8, 8, requires_grad=True)
    found, _ = capture(lambda x: x.sin().exp(), (x,))
    assert len(found) == 2 and any("sin_cos" in k.function or "cos" in k.function for k in found)


@pytest.mark.parametrize("target", ["cuda", "cuda:12", "cuda:x", "hip:gfx1", "hip:gfx942:0", "nothing:1"])
def test_unknown_targets(kernels: list[KernelSource], target: str) -> None:
    with pytest.raises(TargetError, match=r"valid: |installed backends"):
        compile_kernel(kernels[0], Target.parse(target))


@pytest.mark.parametrize("target", ["cuda:90", "hip:gfx942"])
def test_running_there_is_refused(target: str) -> None:
    compiled = torch.compile(lambda x: x + 1, backend="torchport", options={"target": target})
    with pytest.raises(TargetError, match="PyTorch sees no"):
        compiled(torch.ones(3))


def test_what_the_compiler_refuses_is_an_artifact_with_its_reason(kernels: list[KernelSource]) -> None:
    from dataclasses import replace

    broken = replace(kernels[0], source=kernels[0].source.replace("tl.store(", "tl.stoer("))
    artifact = compile_kernel(broken, Target.parse("cuda:90"))
    assert artifact.error and not artifact.binary


def test_groups_fit_the_block() -> None:
    able = Capabilities(
        simd_width=32, simd_groups=(1, 2, 4, 8), block_elements=4096, grid=(1, 1, 1), scratchpad_bytes=0,
        dtypes=frozenset(), dot_precisions=frozenset(), denormals=frozenset(),
    )  # fmt: skip
    assert [able.groups_for(elements) for elements in (1, 256, 512, 4096)] == [1, 1, 2, 8]


def test_manifest_round_trip(tmp_path: Path) -> None:
    good = Artifact("k", "cuda:90", ("aten.add",), binary=b"code", format="cubin", blocks={"XBLOCK": 64})
    bad = Artifact("l", "cuda:90", (), error="no")
    write(tmp_path, [good, bad], {"model": "m"})
    entries = read(tmp_path)
    assert entries[0]["binary"] == b"code" and entries[0]["blocks"] == {"XBLOCK": 64}
    assert entries[1]["error"] == "no" and "binary" not in entries[1]
    assert json.loads((tmp_path / "manifest.json").read_text())["model"] == "m"


def test_damaged_artifacts(tmp_path: Path) -> None:
    write(tmp_path, [Artifact("k", "cuda:90", (), binary=b"code", format="cubin")], {})
    file = next(tmp_path.glob("*/*.cubin"))
    file.write_bytes(b"cod")
    with pytest.raises(ArtifactError, match="was changed"):
        read(tmp_path)
    file.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        read(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match="schema"):
        read(tmp_path)


def test_commands(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text(MODEL)
    results = tmp_path / "results.json"
    arguments = [f"{model}:make", "--targets", "cpu,cuda:90,hip:gfx942"]
    shown = CliRunner().invoke(app, ["port", *arguments, "--json", str(results)])
    assert shown.exit_code == 0, shown.output
    assert "0 failed" in shown.output and "hip:gfx942" in shown.output
    assert {k["target"] for k in json.loads(results.read_text())["kernels"]} == {"cpu", "cuda:90", "hip:gfx942"}
    built = CliRunner().invoke(app, ["build", *arguments, "-o", str(tmp_path / "out")])
    assert built.exit_code == 0, built.output
    assert all(entry["binary"] for entry in read(tmp_path / "out"))


@pytest.mark.parametrize(
    "model,says",
    [("nowhere.py:make", "names no file"), ("{}:nothing", "no function"), ("{}:not_a_model", "must return"), ("x", "")],
)
def test_bad_models(tmp_path: Path, model: str, says: str) -> None:
    file = tmp_path / "model.py"
    file.write_text(MODEL)
    outcome = CliRunner().invoke(app, ["port", model.format(file), "--targets", "cuda:90"])
    assert isinstance(outcome.exception, OptionError) and says in str(outcome.exception)
