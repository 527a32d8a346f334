"""Packages: what the file holds and refuses, what a call checks, and that loading imports no compiler."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mutations import mutated
from torch._subclasses.fake_tensor import FakeTensorMode

import torchport
from torchport.archive import MANIFEST, Writer
from torchport.cli.package import examples
from torchport.cli.package import package as command
from torchport.container import unpack
from torchport.errors import ArtifactError, CompilationError, InputError, OptionError, TargetError
from torchport.packages import Package, Result, build, building, load
from torchport.packages.building import default_targets
from torchport.plugin import Binary, backend_for
from torchport.target import Target

TARGET = default_targets()[0]  # runs on every machine of this kind


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 16)
        self.norm = torch.nn.LayerNorm(16)
        self.last = torch.nn.Linear(16, 8)
        self.tied = torch.nn.Linear(8, 16)
        self.tied.weight = self.first.weight
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("table", torch.randn(4, 8).t(), persistent=False)

    def forward(self, x: torch.Tensor, pair: dict[str, torch.Tensor], scale: float = 2.0) -> Any:
        self.calls.add_(1)
        hidden = torch.relu(self.norm(self.first(x))) * scale
        out = self.last(hidden + self.tied(pair["left"])) @ self.table
        return out, {"view": x.t(), "hidden": hidden, "none": None, "number": 3}, [pair["right"].exp()]


def example(rows: int) -> tuple[Any, ...]:
    return torch.randn(rows, 8), {"left": torch.randn(rows, 8), "right": torch.randn(2 * rows)}


ROWS = torch.export.Dim("rows", min=2, max=64)
DYNAMIC = {"x": {0: ROWS}, "pair": {"left": {0: ROWS}, "right": {0: 2 * ROWS}}}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("packages") / "model.tpz"
    build(Model().eval(), example(5), path, dynamic_shapes=DYNAMIC, targets=[TARGET])
    return path


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model().eval()


def test_it_computes_what_the_model_does(built: Path, model: Model) -> None:
    package = load(built)
    assert package.target == TARGET and package.weights["calls"] == 0
    for rows in (5, 2, 64):
        x, pair = example(rows)
        got, wanted = package(x, pair=pair), model(x, pair)
        torch.testing.assert_close(got[0], wanted[0])
        torch.testing.assert_close(got[1], wanted[1])
        torch.testing.assert_close(got[2], wanted[2])
        assert got[1]["view"].data_ptr() == x.data_ptr()
    assert package.weights["calls"] == 3 and load(built).weights["calls"] == 0
    assert package.weights["first.weight"] is package.weights["tied.weight"]


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda x, pair: (x[:, :4], pair), "dimension 1 of x is 4, and the model takes 8"),
        (lambda x, pair: (x.double(), pair), r"x is of torch.float64, and the model takes torch.float32"),
        (lambda x, pair: (x.t().contiguous().t(), pair), r"x has strides \(1, 6\), and the model takes \(8, 1\)"),
        (lambda x, pair: (x[0], pair), "x has 1 dimensions, and the model takes 2"),
        (lambda x, pair: (x[:1], pair), "dimension 0 of x is 1, and the model takes from 2 to 64"),
        (lambda x, pair: (x.to("meta"), pair), "x is on meta"),
        (lambda x, pair: (x.to_sparse(), pair), "takes a strided CPU tensor"),
        (lambda x, pair: (x.clone().requires_grad_(), pair), "x requires gradients"),
        (lambda x, pair: (7, pair), "x is a int, and the model takes a tensor"),
        (lambda x, pair: (x,), "1 inputs were given, and the model takes 2: x, pair"),
        (lambda x, pair: (x, pair, 2.0), "3 inputs were given, and the model takes 2"),
        (lambda x, pair: (x, {"left": x}), "pair is a dict with left, and the model takes a dict with left, right"),
        (lambda x, pair: (x, [x, x]), "pair is a list of 2, and the model takes a dict"),
        (lambda x, pair: (x, {**pair, "left": pair["left"][:5]}), r"dimension 0 of pair\['left'\] is 5, .* takes 6"),
        (lambda x, pair: (x, {**pair, "right": x[:, 0].clone()}), r"dimension 0 of pair\['right'\] is 6, .* takes 12"),
    ],
)
def test_other_inputs_are_refused(built: Path, change: Callable[..., Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load(built)(*change(*example(6)))


def test_modes_and_transforms_are_refused(built: Path) -> None:
    package, (x, pair) = load(built), example(6)
    with pytest.raises(InputError, match="inside a mode or a transform"):
        torch.func.vmap(lambda x: package(x, pair))(torch.stack([x, x]))
    with FakeTensorMode() as mode:
        fake = torch.ones(6, 8)
        with pytest.raises(InputError, match="inside a mode or a transform"):
            package(fake, pair)
    with pytest.raises(InputError, match="x is a FakeTensor, and the model takes a plain tensor"):
        package(mode.from_tensor(x), pair)


def test_threads_call_it_at_once(tmp_path: Path) -> None:
    package = packaged(lambda x: torch.softmax(x @ x.t(), -1).cumsum(0), (torch.randn(64, 64),), tmp_path)
    inputs = [torch.randn(64, 64) for _ in range(4)]
    wanted = [package(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for got, expected in zip(pool.map(package, inputs * 50), wanted * 50, strict=True):
            assert torch.equal(got, expected)


def packaged(function: Callable[..., Any], args: tuple[Any, ...], path: Path, **options: Any) -> Package:
    build(function, args, path / "it.tpz", targets=[TARGET], **options)
    return load(path / "it.tpz")


def test_a_written_input_may_not_share_memory(tmp_path: Path) -> None:
    def step(state: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        state.mul_(0.5).add_(x)
        return state.sum()

    package = packaged(step, (torch.ones(6), torch.ones(6)), tmp_path)
    state = torch.ones(6)
    assert package(state, torch.ones(6)) == 9.0 and state.tolist() == [1.5] * 6
    with pytest.raises(InputError, match="state is written by the model, and shares memory"):
        package(state, state)


def test_results_of_other_kinds(tmp_path: Path) -> None:
    """A named tuple, sizes that depend on data, and a graph that writes nothing and returns what it gets."""
    package = packaged(lambda x: (x.topk(2), x.nonzero(), x), (torch.tensor([1.0, 0.0, 3.0]),), tmp_path)
    x = torch.tensor([0.0, 5.0, 4.0])
    top, places, same = package(x)
    assert top.values.tolist() == [5.0, 4.0] and top[1].tolist() == top.indices.tolist() == [1, 2]
    assert places.tolist() == [[1], [2]] and same.data_ptr() == x.data_ptr()
    with pytest.raises(CompilationError, match="nothing is computed"):
        packaged(lambda x: x, (x,), tmp_path)


def test_a_size_that_is_a_multiple_of_none_is_refused(tmp_path: Path) -> None:
    shapes = ({0: 2 * torch.export.Dim("half")},)
    with pytest.raises(CompilationError, match=r"a dimension of size 2\*s\d+, and none has one of size s\d+"):
        packaged(lambda x: x.view(x.shape[0] // 2, 2).sum(1), (torch.ones(10),), tmp_path, dynamic_shapes=shapes)


@dataclass
class Output:
    first: torch.Tensor
    second: torch.Tensor


@pytest.mark.parametrize("rows, kernel", [(2, 3), (20, 1)])
def test_convolutions_take_every_number_of_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, kernel: int
) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, kernel), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, kernel)).eval()
    shapes = ({0: torch.export.Dim("batch", min=2, max=64)},)
    package = packaged(model, (torch.randn(rows, 3, 12, 12),), tmp_path, dynamic_shapes=shapes)
    for count in (2, 15, 16, 17, 64):
        x = torch.randn(count, 3, 12, 12)
        torch.testing.assert_close(package(x), model(x))
    monkeypatch.setattr("torchport.packages.exporting.every_size", contextlib.nullcontext)  # PyTorch's rule, unchanged
    if kernel == 3:
        with pytest.raises(CompilationError, match="dimension 0 of input would be from 2 to 15 and not from 2 to 64"):
            packaged(model, (torch.randn(rows, 3, 12, 12),), tmp_path, dynamic_shapes=shapes)


def test_a_dataclass_becomes_a_result(tmp_path: Path) -> None:
    torch.export.register_dataclass(Output)
    result = packaged(lambda x: Output(x + 1, x - 1), (torch.ones(3),), tmp_path)(torch.zeros(3))
    assert isinstance(result, Result) and list(result) == ["first", "second"]
    assert result.first.tolist() == [1.0] * 3 and result["second"].tolist() == [-1.0] * 3
    with pytest.raises(AttributeError, match="no 'third', only first, second"):
        result.third  # noqa: B018


def test_weights_that_share_memory(tmp_path: Path) -> None:
    class Shares(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            memory = torch.arange(12.0)
            self.register_buffer("rows", memory[:6].view(2, 3))
            self.register_buffer("columns", memory[4:12].view(4, 2).t())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.columns.sum() + self.rows.sum() * x

    class Writes(Shares):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.rows.add_(x)
            return self.columns.sum()

    package = packaged(Shares(), (torch.ones(2, 3),), tmp_path)
    torch.testing.assert_close(package(torch.ones(2, 3)), Shares()(torch.ones(2, 3)))
    assert package.weights["columns"].stride() == (1, 2)
    package.weights["columns"][0, 0] = 9.0
    assert package.weights["rows"][1, 1] == 9.0
    with pytest.raises(CompilationError, match="writes a buffer that shares its memory with another"):
        packaged(Writes(), (torch.ones(2, 3),), tmp_path)


def test_two_processes_write_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one begins and ends while the first one writes: both packages are whole, the last one stays."""
    write, path = building.weights.stream, tmp_path / "it.tpz"
    made = []

    def stream(tensors: Any) -> Any:
        monkeypatch.setattr(building.weights, "stream", write)
        made.append(build(lambda x: x.exp() + 1, (torch.ones(300),), path, targets=[TARGET]))
        assert load(path)(torch.zeros(300)).tolist() == [2.0] * 300
        return write(tensors)

    monkeypatch.setattr(building.weights, "stream", stream)
    last = build(lambda x: x * 2, (torch.ones(3),), path, targets=[TARGET])
    assert load(path).sha256 == last.sha256 != made[0].sha256
    assert last.bytes == path.stat().st_size
    assert load(path)(torch.ones(3)).tolist() == [2.0] * 3
    assert os.listdir(tmp_path) == ["it.tpz"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "it.tpz"
    path.write_text("as it was")

    def stream(tensors: Any) -> Any:
        yield b"some"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(building.weights, "stream", stream)
    for weights in (None, tmp_path / "weights"):
        with pytest.raises(OSError, match=r"No space left on device: '.*it\.tpz'"):
            build(lambda x: x * 2, (torch.ones(3),), path, targets=[TARGET], weights_file=weights)
    assert path.read_text() == "as it was" and os.listdir(tmp_path) == ["it.tpz"]


@pytest.mark.parametrize(
    "path, weights, problem",
    [
        ("missing/it.tpz", None, "there is no folder .*missing"),
        ("", None, "is a folder; name a file in it"),
        ("it.tpz", "it.tpz", "give the weights another name"),
        ("it.tpz", "../it.safetensors", "must be in the folder of"),
    ],
)
def test_files_that_cannot_be_written(tmp_path: Path, path: str, weights: str | None, problem: str) -> None:
    def no_model(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("it was traced")

    beside = None if weights is None else tmp_path / weights
    with pytest.raises(OptionError, match=problem):
        build(no_model, (torch.ones(3),), tmp_path / path, targets=[TARGET], weights_file=beside)


def test_weights_beside_the_package(tmp_path: Path, built: Path, model: Model) -> None:
    from safetensors.torch import load_file

    build(model, example(5), tmp_path / "it.tpz", targets=[TARGET], weights_file=tmp_path / "it.safetensors")
    stored = load_file(tmp_path / "it.safetensors")
    torch.testing.assert_close(stored["last.weight"], model.last.weight.detach())
    (tmp_path / "it.safetensors").rename(tmp_path / "moved")
    with pytest.raises(ArtifactError, match=r"it\.safetensors cannot be read"):
        load(tmp_path / "it.tpz")
    x, pair = example(5)
    package = load(tmp_path / "it.tpz", weights=tmp_path / "moved")
    torch.testing.assert_close(package(x, pair)[0], model(x, pair)[0])
    data = bytearray((tmp_path / "moved").read_bytes())
    data[-1] ^= 1
    (tmp_path / "moved").write_bytes(data)
    with pytest.raises(ArtifactError, match="has its weights inside, and takes none of another file"):
        load(built, weights=tmp_path / "moved")
    with pytest.raises(ArtifactError, match="moved is damaged"):
        load(tmp_path / "it.tpz", weights=tmp_path / "moved")
    assert load(tmp_path / "it.tpz", weights=tmp_path / "moved", check_weights=False)(x, pair)[0].shape == (5, 4)


def test_the_same_model_makes_the_same_file(built: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    again = build(Model().eval(), example(5), tmp_path / "it.tpz", dynamic_shapes=DYNAMIC, targets=[TARGET])
    manifest = json.loads(zipfile.ZipFile(built).read(MANIFEST))
    assert json.loads(zipfile.ZipFile(again.path).read(MANIFEST))["parts"] == manifest["parts"]


def test_who_may_be_trusted(built: Path, tmp_path: Path) -> None:
    path = tmp_path / "it.tpz"
    path.write_bytes(built.read_bytes())
    digest = load(built).sha256
    path.chmod(path.stat().st_mode | stat.S_IWOTH)
    with pytest.raises(ArtifactError, match=r"it\.tpz can be written by others .* say trust=True"):
        load(path)
    assert load(path, trust=True).sha256 == load(path, sha256=digest.upper()).sha256 == digest
    with pytest.raises(ArtifactError, match=f"has the digest {digest}, not 00"):
        load(path, sha256="00" * 32)


def resealed(path: Path, into: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The package with other contents, as whoever knows the format can make it."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    change(contents)
    manifest = json.loads(contents.pop(MANIFEST))
    writer = Writer(into)
    for name, data in contents.items():
        writer.add(name, [data])
    if isinstance(manifest, dict) and isinstance(manifest.get("parts"), dict):
        parts = {name: {"bytes": part.bytes, "sha256": part.sha256} for name, part in writer.parts.items()}
        manifest["parts"].update(parts)
    writer.finish(json.dumps(manifest).encode())
    return into


def in_manifest(**values: Any) -> Callable[[dict[str, bytes]], None]:
    def change(contents: dict[str, bytes]) -> None:
        manifest = json.loads(contents[MANIFEST])
        contents[MANIFEST] = json.dumps({**manifest, **values}).encode()

    return change


def in_program(**values: Any) -> Callable[[dict[str, bytes]], None]:
    def change(contents: dict[str, bytes]) -> None:
        (program,) = json.loads(contents[MANIFEST])["programs"]
        in_manifest(programs=[{**program, **values}])(contents)

    return change


@pytest.mark.parametrize(
    "change, problem",
    [
        (in_manifest(schema="torchport.package/0"), "schema 'torchport.package/0', not"),
        (in_manifest(torch="1.13.0"), "made with torch 1.13.0, and this is torch"),
        (in_program(inputs=[]), "the tree of inputs has"),
        (in_program(weights={}), "takes other inputs than the manifest says"),
        (in_program(symbols={}), "sizes without a value"),
        (in_manifest(programs=[]), "it has no program"),
        (in_manifest(weights={}), "there is no weight"),
        (in_manifest(weights_file="../secret"), "weights_file is '../secret', not"),
        (in_manifest(targets=["cpu:vax"]), "is for no target, or for one that the package has not"),
        (in_manifest(targets=[], kernels={}), "is for no target, or for one that the package has not"),
        (in_manifest(kernels={}), "there is no kernel"),
        (in_manifest(output_tree=["list", "*"]), "returns other results than the manifest says"),
        (in_program(targets=["opencl"]), "is for no target, or for one that the package has not"),
        (in_manifest(targets=[TARGET, "opencl"]), "the targets that are no CPU are not those that it describes"),
    ],
)
def test_what_does_not_fit_is_refused(
    built: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None], problem: str
) -> None:
    with pytest.raises(ArtifactError, match=problem):
        load(resealed(built, tmp_path / "it.tpz", change))


def test_another_cpu_and_another_abi_are_refused(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchport_cpu import levels, objects

    with pytest.raises(ArtifactError, match=r"does not run here.*it has no kernels for cpu"):
        load(built, target="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(levels, "has_level", lambda name: False)
        with pytest.raises(ArtifactError, match=f"kernels for {TARGET}; .*this CPU lacks instructions"):
            load(built)
    monkeypatch.setattr(objects, "ABI", 99)
    with pytest.raises(ArtifactError, match="was compiled for ABI 1 of kernels, this torchport has 99"):
        load(built)


def test_no_package(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no zip")
    with pytest.raises(ArtifactError, match="text is no package, or damaged"):
        load(tmp_path / "text")
    with pytest.raises(ArtifactError, match="missing cannot be read"):
        load(tmp_path / "missing")
    with pytest.raises(ArtifactError, match="empty or not a regular file"):
        load(tmp_path)
    with zipfile.ZipFile(tmp_path / "zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", "{}" * 100)
    with pytest.raises(ArtifactError, match="is compressed"):
        load(tmp_path / "zip")


def damage(built: Path, folder: Path, seeds: range, model: Model) -> tuple[int, int]:
    """Random damage: a clean error, or the right answer. Returns how often each."""
    data, path = built.read_bytes(), folder / "damaged.tpz"
    x, pair = example(5)
    wanted = model(x, pair)[0]
    refused = right = 0
    for seed in seeds:
        path.write_bytes(mutated(data, random.Random(seed)))
        try:
            got = load(path)(x, pair)[0]
        except ArtifactError:
            refused += 1
        else:
            torch.testing.assert_close(got, wanted)
            right += 1
    return refused, right


def test_damage_is_noticed(built: Path, tmp_path: Path, model: Model) -> None:
    refused, right = damage(built, tmp_path, range(120), model)
    assert refused + right == 120 and refused > 100


@pytest.mark.slow
def test_much_damage_is_noticed(built: Path, tmp_path: Path, model: Model) -> None:
    assert sum(damage(built, tmp_path, range(120, 1120), model)) == 1000


@pytest.mark.parametrize("part", [MANIFEST, "programs/0.json"])
def test_json_of_a_stranger_gives_an_error_or_loads(built: Path, tmp_path: Path, part: str) -> None:
    """With digests that fit. It is not called: who makes the digests fit makes the kernels, too."""
    outcomes = {True: 0, False: 0}
    for seed in range(150):

        def change(contents: dict[str, bytes], seed: int = seed) -> None:
            contents[part] = mutated(contents[part], random.Random(seed))

        try:
            load(resealed(built, tmp_path / "it.tpz", change))
        except ArtifactError:
            outcomes[False] += 1
        except (ValueError, RecursionError):  # of ``resealed``: the manifest is no JSON
            continue
        else:
            outcomes[True] += 1
    assert outcomes[False] > 30, outcomes


LOADS = """
import sys
import torch, torchport
package = torchport.load(sys.argv[1])
x = torch.ones(5, 8)
print(package(x, {"left": x, "right": torch.ones(10)})[0].sum().item())
roots = ("torch._dynamo", "torch._inductor", "triton", "mlir", "torchport_passes", "torchport.inductor", "sympy")
print(sorted(name for name in sys.modules if name.startswith(roots)))
"""


def test_a_process_that_loads_imports_no_compiler(built: Path, model: Model) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": "/nonexistent", "TORCHPORT_CACHE_SIZE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(built)], capture_output=True, text=True, check=True, env=environment
    )
    value, modules = done.stdout.splitlines()
    x = torch.ones(5, 8)
    assert modules == "[]"
    assert float(value) == pytest.approx(model(x, {"left": x, "right": torch.ones(10)})[0].sum().item(), rel=1e-5)
    assert torchport.load is load


class Unsupported(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))


@pytest.mark.parametrize(
    "function, args, options, error, problem",
    [
        (Unsupported(), (torch.ones(3),), {}, CompilationError, "cannot be part of a program"),
        (lambda x: x + 1, (torch.ones(3),), {"targets": ["cuda:90"]}, OptionError, "cuda:90 is none"),
        (lambda x: x + 1, (torch.ones(3),), {"targets": ["cpu:vax"]}, TargetError, "cpu:vax does not fit"),
        (torch.nn.Linear(3, 3, device="meta"), (torch.ones(3),), {}, CompilationError, "weight weight is on meta"),
    ],
)
def test_what_a_package_cannot_hold(
    tmp_path: Path, function: Any, args: Any, options: Any, error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        build(function, args, tmp_path / "it.tpz", **{"targets": [TARGET], **options})
    assert not list(tmp_path.iterdir())


def test_a_refused_operator_is_named_with_the_line_that_calls_it(tmp_path: Path) -> None:
    with torch.library._scoped_library("packagetest", "FRAGMENT") as library:
        library.define("thing(Tensor x) -> Tensor")
        library.impl("thing", lambda x: x + 1, "CompositeExplicitAutograd")

        class Calls(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.ops.packagetest.thing(x.exp()).sum()

        line = Calls.forward.__code__.co_firstlineno + 1
        problem = rf"packagetest\.thing\.default .*not permitted.*test_packages\.py\", line {line}, in forward"
        with pytest.raises(CompilationError, match=problem):
            packaged(Calls(), (torch.ones(3),), tmp_path)


class Branches(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("model", "sizes", "problem"),
    [
        (Branches(), None, r"decides by a tensor's value .* at .*test_packages.py:\d+$"),
        (torch.nn.Linear(4, 2), ({1: torch.export.Dim("n", min=2, max=8)},), "cannot export the model: .*n .*constant"),
        (torch.nn.Linear(4, 2), ({0: torch.export.Dim("n", min=5, max=8)},), "cannot export the model: 3 not in range"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_sentence(
    model: torch.nn.Module, sizes: object, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(CompilationError, match=problem) as refused:
        build(model, (torch.ones(3, 4),), tmp_path / "it.tpz", dynamic_shapes=sizes, targets=[TARGET])
    assert "\n" not in str(refused.value)


def test_kernels_are_for_their_level_and_not_for_this_machine(built: Path) -> None:
    from torchport_cpu.levels import level

    with zipfile.ZipFile(built) as archive:
        kernels = [archive.read(name) for name in archive.namelist() if name.startswith("kernels/")]
    enabled = {name[1:] for name in level(TARGET.split(":")[2]).features.split(",") if name.startswith("+")}
    for kernel in kernels:
        facts, _ = unpack(Binary.unpack(kernel).data)
        assert {*facts["features"]} <= enabled and not {"avx", "sve"} & {*facts["features"]}


def test_levels_are_targets_of_their_own() -> None:
    prints = {
        name: backend_for(t := Target.parse(name)).compiler(t).fingerprint() for name in (*default_targets(), "cpu")
    }
    assert len(set(prints.values())) == len(prints)


def test_dynamic_on_the_command_line() -> None:
    model, inputs = Model(), (torch.ones(4, 8), {})
    assert examples([], model, inputs)[0].dynamic_shapes is None
    for given in (["x:0=n", "x:1=n:3:9"], ["x:0=n:3:9", "x:1=n"]):  # whichever of the options says the range
        (same,) = (one.dynamic_shapes[0] for one in examples(given, model, inputs))
        assert [(same[i].min, same[i].max) for i in (0, 1)] == [(3, 9)] * 2
    ((shape, none),) = (one.dynamic_shapes for one in examples(["x:0=rows:2:64", "0:1=columns"], model, inputs))
    assert none is None
    assert (shape[0].__name__, shape[0].min, shape[0].max, shape[1].__name__) == ("rows", 2, 64, "columns")
    sizes = [(*one.args[0].shape, *one.dynamic_shapes[0]) for one in examples(["x:0=rows:1:64"], model, inputs)]
    assert sizes == [(4, 8, 0), (1, 8)]
    options = [f"x:{i}=n{i}:1" for i in range(4)]
    for given, problem in (
        (["x"], "is not INPUT"),
        (["y:0=n"], "names no tensor"),
        (["x:4=n"], "x has 4 dimensions"),
        (options, "4 sizes begin at 1"),
        (["x:0=n:9:3"], "n ends at 3, and must reach 9"),
        (["x:0=n:1:1"], "n ends at 1, and must reach 2"),
        (["x:0=n:0:4"], "n begins at 0"),
        (["x:0=n", "x:0=m"], "dimension 0 of x has a name already"),
        (["x:0=n:2:4", "x:1=n:2:8"], "n has another range already"),
    ):
        with pytest.raises(OptionError, match=problem):
            examples(given, model, (torch.ones(4, 8, 2, 2), {}))


MODEL = """
import torch

def make():
    return torch.nn.Linear(4, 2), (torch.ones(3, 4),)
"""


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    output = tmp_path / "it.tpz"
    command(f"{tmp_path}/model.py:make", output, TARGET, ["input:0=rows:2:8"], "it.safetensors")
    printed = capsys.readouterr().out
    digest = re.search("sha256=([0-9a-f]{64})", printed)
    assert digest is not None and TARGET in printed
    assert load(output, sha256=digest[1])(torch.ones(5, 4)).shape == (5, 2)
    assert sorted(file.name for file in tmp_path.glob("it.*")) == ["it.safetensors", "it.tpz"]


def test_a_program_more_for_size_1(tmp_path: Path, model: Model) -> None:
    """As ``--dynamic x:0=rows:1:64`` makes it: two programs on the same weights."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU()).eval()
    inputs = (torch.randn(1, 8),)
    first, *also = examples(["0:0=rows:1:64"], module, inputs)
    build(module, first.args, tmp_path / "it.tpz", dynamic_shapes=first.dynamic_shapes, also=also, targets=[TARGET])
    package = load(tmp_path / "it.tpz")
    for rows in (1, 2, 64):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(package(x), module(x))
    problem = (
        "none of the package's 2 programs: .* is 65, and the model takes from 2 to 64; .* is 65, and the model takes 1"
    )
    with pytest.raises(InputError, match=problem):
        package(torch.ones(65, 8))
    with pytest.raises(InputError, match=r"^input is of torch\.float64, and the model takes torch\.float32$"):
        package(torch.ones(5, 8).double())
    assert list(package.weights) == list(module.state_dict())  # each once
