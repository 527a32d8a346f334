"""Folders of artifacts: written, read, damaged, and run in a process in which nothing can be compiled."""

from __future__ import annotations

import json
from pathlib import Path

import processes
import pytest
import torch
from typer.testing import CliRunner

from torchport.cli.app import app
from torchport.errors import ArtifactError, TargetError
from torchport.offline import Artifact, capture, compile_kernel, install, load, read, write
from torchport.plugin import Binary, Resources, registry
from torchport.target import Target
from torchport.triton.driver import TritonDriver

MODEL = """
import torch
def make():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.GELU(), torch.nn.LayerNorm(32), torch.nn.Softmax(-1)), (torch.randn(4, 32),)
"""
NO_COMPILER = """
import importlib.util, sys, torch, triton
def refuse(*args, **keywords):
    raise AssertionError("something was compiled")
import triton.compiler.compiler, torchport.triton.compiler, torchport.inductor.kernels
triton.compile = triton.compiler.compile = triton.compiler.compiler.compile = refuse
torchport.triton.compiler.TritonCompiler.compile = refuse
torchport.inductor.kernels.compile_kernel = refuse
if importlib.util.find_spec("torchport_simt"):
    import torchport_simt.compilation
    torchport_simt.compilation.lower = torchport_simt.compilation.SIMTCompiler.compile = refuse
import torchport.offline
from torchport.runtime import events
"""


def fresh(program: str, cache: Path, *arguments: object) -> str:
    """Run ``program`` in a process with empty caches and no compiler that works."""
    caches = {name: str(cache) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHPORT_CACHE_DIR")}
    done = processes.run(NO_COMPILER + program, *map(str, arguments), environment=caches)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=["cpu", "opencl"])
def target(request: pytest.FixtureRequest) -> str:
    """A target that runs here."""
    try:
        parsed = Target.parse(request.param)
        registry().get(parsed.backend).driver(parsed)
    except TargetError as error:
        pytest.skip(str(error))
    return str(request.param)


def binary(data: bytes = b"code") -> Binary:
    return Binary(data, "cubin", "k", Resources(8, 0, 16), {"shared": 16})


def test_manifest_round_trip(tmp_path: Path) -> None:
    (kernel,) = capture(lambda x: x + 1, (torch.ones(64, 64),)).kernels
    good = compile_kernel(kernel, Target("cpu"))
    bad = Artifact("l", "cuda:90", (), error="no")
    write(tmp_path, [good, bad], {"model": "m"})
    first, second = read(tmp_path)
    assert first == Artifact(**{**vars(good), "seconds": first.seconds})
    assert second.error == "no" and second.binary is None and read(tmp_path, "cuda:90") == [second]
    assert json.loads((tmp_path / "manifest.json").read_text())["model"] == "m"


def test_damaged_artifacts(tmp_path: Path) -> None:
    write(tmp_path, [Artifact("k", "cuda:90", (), binary=binary())], {})
    file = next(tmp_path.glob("*/*.cubin"))
    file.write_bytes(b"cod")
    with pytest.raises(ArtifactError, match="was changed"):
        read(tmp_path)
    file.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        read(tmp_path)
    manifest = tmp_path / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "artifacts": [{**content["artifacts"][0], "file": "../k"}]}))
    with pytest.raises(ArtifactError, match="outside its folder"):
        read(tmp_path)
    manifest.write_text(json.dumps({**content, "artifacts": [{"kernel": "k"}]}))
    with pytest.raises(ArtifactError, match="is damaged"):
        read(tmp_path)
    manifest.write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read(tmp_path)
    manifest.write_text(json.dumps({**content, "schema": "torchport.artifacts/1"}))
    with pytest.raises(ArtifactError, match="build it again"):
        read(tmp_path)


def test_what_a_folder_lacks_is_said(tmp_path: Path) -> None:
    write(tmp_path, [Artifact("k", "cuda:90", (), binary=binary())], {})
    with pytest.raises(ArtifactError, match="no kernels for cpu, only for cuda:90"):
        load(tmp_path, "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(TargetError, match="does not run"):
            load(tmp_path, "cuda:90")
    write(tmp_path, [Artifact("k", "cpu", (), binary=binary())], {"targets": {"cpu": {"compiler": "another"}}})
    with pytest.raises(ArtifactError, match="another compiler"):
        install(tmp_path, "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``torchport build`` makes of MODEL."""
    place = tmp_path_factory.mktemp("built")
    (place / "model.py").write_text(MODEL)
    arguments = [f"{place / 'model.py'}:make", "--targets", "cpu,opencl,cuda:90,hip:gfx942"]
    built = CliRunner().invoke(app, ["build", *arguments, "-o", str(place / "out")])
    assert "0 failed" in built.output and built.exit_code == int("opencl is not available" in built.output)
    return place


def test_kernels_run_where_nothing_compiles(tmp_path: Path, target: str) -> None:
    """Two kernels of a folder, launched in a new process, give what eager gives."""
    found = capture(lambda x, y: ((x + y).relu(), (x * y).sum(0)), (torch.ones(48, 33), torch.ones(48, 33)))
    artifacts = [compile_kernel(kernel, Target.parse(target)) for kernel in found.kernels]
    write(tmp_path / "out", artifacts, {})
    program = """
kernels = torchport.offline.load(sys.argv[1], sys.argv[2])
x, y = torch.randn(48, 33), torch.randn(48, 33)
done = 0
for name, kernel in kernels.items():
    assert kernel.arguments[:2] == ("in_ptr0", "in_ptr1")
    if "sum" in name:
        out = torch.full((33,), torch.nan)
        kernel.launch(x, y, out, 33, 48)
        torch.testing.assert_close(out.double(), (x.double() * y.double()).sum(0), rtol=1e-5, atol=1e-5)
    else:
        out = torch.full((48, 33), torch.nan)
        sizes = kernel.artifact.sizes
        kernel.launch(x, y, out, *sizes)
        assert torch.equal(out, (x + y).relu())
    done += 1
try:
    kernel.launch(x)
except torchport.errors.ArtifactError as error:
    assert "takes" in str(error)
print(done)
"""
    assert fresh(program, tmp_path / "cache", tmp_path / "out", target).split() == ["2"]


def test_a_model_runs_where_nothing_compiles(folder: Path, tmp_path: Path, target: str) -> None:
    """With a folder's kernels installed, torch.compile compiles none: forward and backward."""
    program = """
installed = torchport.offline.install(sys.argv[1] + "/out", sys.argv[2])
sys.path.insert(0, sys.argv[1])
from model import make
model, inputs = make()
with events.capture() as found:
    result = torch.compile(model, backend="torchport", options={"target": sys.argv[2]})(*inputs)
    result.sum().backward()
kernels = [event for event in found if isinstance(event, events.Kernel)]
assert len(kernels) == installed and all(kernel.cached for kernel in kernels), found
torch.testing.assert_close(result, model(*inputs), rtol=1e-5, atol=1e-5)
print(installed)
"""
    count = fresh(program, tmp_path, folder, target).strip()
    assert int(count) == len(read(folder / "out", target)) > 2


def test_gpu_code_is_kept_with_what_a_driver_needs(folder: Path) -> None:
    for target, kind in (("cuda:90", "cubin"), ("hip:gfx942", "hsaco")):
        for artifact in read(folder / "out", target):
            assert artifact.binary is not None and artifact.binary.format == kind
            assert artifact.binary.metadata["name"] == artifact.binary.symbol
            assert {"hash", "target", "shared", "num_warps"} <= set(artifact.binary.metadata)
    content = json.loads((folder / "out" / "manifest.json").read_text())
    assert content["targets"]["cuda:90"]["compiler"] and content["libraries"] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton's active driver would be the GPU's")
def test_triton_driver_loads_what_was_built(tmp_path: Path) -> None:
    """The way GPUs' kernels take, through Triton's CompiledKernel, walked with the one Triton target that runs here."""
    (kernel,) = capture(lambda x, y: x * y + 1, (torch.ones(40, 40), torch.ones(40, 40))).kernels
    write(tmp_path, [compile_kernel(kernel, Target("cpu"))], {})
    (artifact,) = read(tmp_path)
    assert artifact.binary is not None and artifact.grid is not None
    launcher, function = TritonDriver("cpu").load(artifact.binary, list(artifact.types.values()))
    x, y = torch.randn(40, 40), torch.randn(40, 40)
    grid = artifact.grid.of((x, y, None, *artifact.sizes))
    out, again = torch.empty(40, 40), torch.empty(40, 40)
    launcher.bind(*grid, function)(x, y, out, *artifact.sizes)
    constants = [None] * list(artifact.types.values()).count("constexpr")
    launcher(*grid, 0, function, None, None, None, None, x, y, again, *artifact.sizes, *constants)
    assert torch.equal(out, again)
    torch.testing.assert_close(out.double(), x.double() * y.double() + 1, rtol=1e-6, atol=1e-6)


def test_every_backend_here_has_drivers_that_say_why_not() -> None:
    for name, target in (("cuda", "cuda:90"), ("hip", "hip:gfx942")):
        if not torch.cuda.is_available():
            with pytest.raises(TargetError, match="torchport build"):
                registry().get(name).driver(Target.parse(target))
