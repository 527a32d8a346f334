"""Packages with kernels for OpenCL: what is in the file, what runs on the device, what is refused."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mutations import mutated

from torchport.archive import MANIFEST, Writer
from torchport.errors import ArtifactError, InputError, OptionError, TargetError
from torchport.packages import build, load
from torchport.packages.building import default_targets
from torchport.plugin import registry
from torchport.runtime import devices

pytest.importorskip("pyopencl")
if registry().get("opencl").devices()[0].missing:
    pytest.skip(registry().get("opencl").devices()[0].missing, allow_module_level=True)

CPU = default_targets()[0]


@dataclass
class Answer:
    scores: torch.Tensor
    calls: torch.Tensor


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)
        self.register_buffer("calls", torch.zeros(4))

    def forward(self, x: torch.Tensor, state: dict[str, torch.Tensor]) -> Answer:
        self.calls.add_(1)
        hidden = self.linear(x)
        state["sum"].add_(hidden.cumsum(0)[-1])
        return Answer(torch.relu(hidden), self.calls + 0)


def example() -> tuple[Any, ...]:
    return torch.randn(3, 8), {"sum": torch.zeros(4)}


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Path:
    path = tmp_path_factory.mktemp("packages") / "it.tpz"
    made = build(model, example(), path, targets=["opencl", CPU])
    assert made.targets == ("opencl", CPU) and not any("mm" in reason for reason in made.host)
    return path


def test_the_device_computes_what_the_model_does(built: Path, model: Model) -> None:
    package, cpu = load(built, target="opencl"), load(built)
    assert package.target == "opencl" and cpu.target == CPU
    devices.reset_statistics("opencl")
    for call in (1, 2):
        x, state = example()
        mine, theirs = {"sum": state["sum"].clone()}, {"sum": state["sum"].clone()}
        with torch.no_grad():
            hidden = model.linear(x)
        for got, written in ((package(x, mine), mine), (cpu(x, theirs), theirs)):
            torch.testing.assert_close(got.scores, hidden.relu())
            torch.testing.assert_close(written["sum"], hidden.sum(0))
            assert got.calls.tolist() == [call] * 4
    counted = devices.statistics("opencl")
    assert counted.launches >= 6 and not any("mm" in name for name in counted.host_operations)
    assert package.weights["calls"].tolist() == [2.0] * 4
    package.weights["calls"].zero_()
    assert package(x, state).calls.tolist() == [1.0] * 4
    with pytest.raises(InputError, match="x is on meta"):
        package(x.to("meta"), state)


@pytest.mark.slow
def test_sizes_that_change(tmp_path: Path) -> None:
    """One row, few, and so many that the other matrix is packed: each with the kernels of the file."""
    module = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    shapes = ({0: torch.export.Dim("rows", min=2, max=64)},)
    build(module, (torch.randn(5, 8),), tmp_path / "it.tpz", dynamic_shapes=shapes, targets=["opencl"])
    package = load(tmp_path / "it.tpz")
    assert package.target == "opencl"
    devices.reset_statistics("opencl")
    for rows in (2, 7, 33, 64):
        x = torch.randn(rows, 8)
        with torch.no_grad():
            torch.testing.assert_close(package(x), module(x))
    assert not devices.statistics("opencl").host_operations


@pytest.mark.slow
def test_long_attention_is_products_and_a_softmax(tmp_path: Path) -> None:
    """A graph of torch.compile's calls an operator of torchport's, which no package has."""
    inputs = tuple(torch.randn(1, 2, 256, 64) for _ in range(3))
    attention = torch.nn.functional.scaled_dot_product_attention
    build(lambda q, k, v: attention(q, k, v) * 2, inputs, tmp_path / "it.tpz", targets=["opencl"])
    torch.testing.assert_close(load(tmp_path / "it.tpz")(*inputs), attention(*inputs) * 2)


LOADS = """
import sys
import torch, torchport
package = torchport.load(sys.argv[1], target="opencl")
print(package(torch.ones(3, 8), {"sum": torch.zeros(4)}).scores.shape[1])
roots = ("torch._dynamo", "torch._inductor", "triton", "mlir", "torchport_passes", "torchport.inductor", "sympy")
print(sorted(name for name in sys.modules if name.startswith(roots)))
"""


def test_a_process_that_loads_imports_no_compiler(built: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOADS, str(built)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["4", "[]"]


def resealed(path: Path, into: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> Path:
    """The package with other contents, as whoever knows the format can make it."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(contents.pop(MANIFEST))
    change(manifest, contents)
    writer = Writer(into)
    for name, data in contents.items():
        writer.add(name, [data])
    parts = {name: {"bytes": part.bytes, "sha256": part.sha256} for name, part in writer.parts.items()}
    manifest["parts"].update(parts)
    writer.finish(json.dumps(manifest).encode())
    return into


def in_device(**values: Any) -> Callable[..., None]:
    return lambda manifest, contents: manifest["devices"]["opencl"].update(values)


def in_facts(**values: Any) -> Callable[..., None]:
    return lambda manifest, contents: manifest["devices"]["opencl"]["facts"].update(values)


def in_product(**values: Any) -> Callable[..., None]:
    return lambda manifest, contents: manifest["devices"]["opencl"]["kernels"][0].update(values)


def swapped(manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    """Kernels for the CPU in place of the device's."""
    of_cpu = next(data for name, data in contents.items() if name.startswith(f"kernels/{CPU.replace(':', '-')}/"))
    contents.update({name: of_cpu for name in contents if name.startswith("kernels/opencl/")})


@pytest.mark.parametrize(
    "change, problem",
    [
        (in_device(torchport="0.0.9"), "kernels for opencl that torchport 0.0.9 made, and this is torchport"),
        (in_device(products="0" * 64), "with other kernels; package the model with this one"),
        (in_device(products="zz"), "products"),
        (in_facts(simd_width=2**40), "simd_width"),
        (in_facts(simd_width=3), r"another kind of device than opencl \(simd_width 3 there and"),
        (in_facts(vector_lanes="no"), "vector_lanes"),
        (in_product(kernel="system"), "there is no kernel 'system' of such types"),
        (in_product(types=["fp32"]), "there is no kernel 'matmul' of such types|no kernel 'pack' of such types"),
        (in_product(columns=0), "columns"),
        (in_product(code="../../etc/passwd"), "passwd"),
        (in_product(code="weights.safetensors"), "cannot be loaded"),
        (lambda manifest, contents: manifest.update(devices={}), "not those that it describes"),
        (lambda manifest, contents: manifest.update(targets=[CPU]), "for no target, or for one that the package has"),
        (lambda manifest, contents: [one.update(targets=[CPU]) for one in manifest["programs"]], "no program for open"),
        (swapped, "cannot be loaded"),
    ],
)
def test_what_does_not_fit_is_refused(built: Path, tmp_path: Path, change: Callable[..., None], problem: str) -> None:
    with pytest.raises(ArtifactError, match=problem):
        load(resealed(built, tmp_path / "it.tpz", change), target="opencl")


def test_a_manifest_of_a_stranger_gives_an_error_or_loads(built: Path, tmp_path: Path) -> None:
    """With digests that fit; only what the manifest says of the device is changed."""
    outcomes = {True: 0, False: 0}
    for seed in range(60):

        def change(manifest: dict[str, Any], contents: dict[str, bytes], seed: int = seed) -> None:
            text = json.dumps(manifest["devices"]).encode()
            manifest["devices"] = json.loads(mutated(text, random.Random(seed)))

        try:
            load(resealed(built, tmp_path / "it.tpz", change), target="opencl")
        except ArtifactError:
            outcomes[False] += 1
        except (ValueError, RecursionError):  # of ``resealed``: the manifest is no JSON
            continue
        else:
            outcomes[True] += 1
    assert outcomes[False] > 5, outcomes


def test_targets_that_no_package_has(built: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"does not run here: .*device"):
        load(built, target="opencl:9")
    with pytest.raises(ArtifactError, match="it has no kernels for webgpu"):
        load(built, target="webgpu")
    with pytest.raises(TargetError):
        build(lambda x: x + 1, (torch.ones(3),), tmp_path / "it.tpz", targets=["opencl:9"])
    with pytest.raises(OptionError, match="cuda:90 is none of the targets that take them"):
        build(lambda x: x + 1, (torch.ones(3),), tmp_path / "it.tpz", targets=["opencl", "cuda:90"])
    assert not list(tmp_path.iterdir())
