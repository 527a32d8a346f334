"""Damaged and hostile files of every kind that torchport reads: a clean error or an answer, whatever is wrong."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import seeded
from mutations import mutated

from torchport import quarantine
from torchport.arithmetic.profile import Profile
from torchport.cli.precision.bisect import bisect
from torchport.cli.precision.diff import diff
from torchport.cli.precision.probe import _read
from torchport.conformance.case import Case, Measured, Result
from torchport.conformance.certificate import certificate, verify
from torchport.conformance.runner import RESULTS, recorded
from torchport.container import CorruptContainer
from torchport.errors import TorchportError
from torchport.numerics.runs.reader import Run
from torchport.offline.compilation import Artifact
from torchport.offline.loading import install
from torchport.offline.manifest import read, write
from torchport.plugin import Binary, backend_for
from torchport.precision.case import case_of, find
from torchport.precision.explain import explain_launch
from torchport.precision.passport import against_passport, against_profile
from torchport.precision.reproduce import reproduce, rerun, write_case
from torchport.target import Target

COUNTS = [5, pytest.param(1000, marks=pytest.mark.slow)]
CPU = Target("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    with seeded.compiler(folder / "cache"):
        return seeded.recorded(folder / "run")


def damage(file: Path, count: int, use: Callable[[], object], lines: bool = False) -> tuple[int, int]:
    """Use a file ``count`` times with other damage. Returns how often it was an error, and how often not."""
    whole = file.read_bytes()
    errors = 0
    for seed in range(count):
        file.write_bytes(mutated(whole, random.Random(seed), lines))
        try:
            use()
        except (TorchportError, CorruptContainer, OSError) as error:
            errors += 1
            assert len(str(error).splitlines()) == 1, f"seed {seed}: {error}"
        except Exception as error:
            raise AssertionError(f"{file.name}, seed {seed}: {type(error).__name__}: {error}") from error
        finally:
            file.write_bytes(whole)
    return errors, count - errors


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["run.json", "launches.jsonl", "graphs", "kernels", "tensors"])
def test_run_folders(run: Path, tmp_path: Path, name: str, count: int) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    files = [copy / name] if (copy / name).is_file() else sorted((copy / name).iterdir())
    reports = tmp_path / "report.json", tmp_path / "report.xml", tmp_path / "report.html"
    turn = itertools.count()

    def use() -> None:
        match next(turn) % 4:
            case 0:
                diff(run, copy, "fp64", *reports, "fail", 3)
            case 1:
                diff(copy, run, "fp64", reports[0], None, None, "fail", 3)
            case 2:
                bisect(str(run), copy, "cpu", 1, as_json=False)
            case 3:
                opened = Run.load(copy)
                explain_launch(opened, find(opened, "exp")).as_json()

    counts = [damage(file, -(-count // len(files)), use, file.suffix == ".jsonl") for file in files]
    print(f"{name}: {sum(wrong for wrong, _ in counts)} errors, {sum(right for _, right in counts)} reports")


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["config.json", "nodes.json", "inputs.safetensors", "kernel.ttir", "kernel.py"])
def test_repro_folders(run: Path, tmp_path: Path, name: str, count: int) -> None:
    opened = Run.load(run)
    write_case(tmp_path, reproduce(case_of(opened, find(opened, "exp")), 0), "run", 3)
    found: list[int] = []
    damage(tmp_path / name, count, lambda: found.append(rerun(tmp_path)))
    assert len(found) == count and set(found) <= {0, 1, 2}
    print(f"{name}: {found.count(2)} errors, {count - found.count(2)} verdicts")


def uses(folder: Path) -> Iterator[tuple[str, Path, Callable[[], object]]]:
    """Other kinds of files, with what reads each."""
    able = backend_for(CPU).capabilities(CPU)
    cases = [Case("language", op, "fp32", (4,), "randn", lambda bench: Measured()) for op in "ab"]
    results = {case.id: Result(case.id, "pass", worst=0.5, seconds=1.0, notes=("n",)) for case in cases}
    (folder / "certificate.json").write_text(json.dumps(certificate(CPU, able, "quick", cases, results, "a CPU")))
    yield "certificate", folder / "certificate.json", lambda: verify(folder / "certificate.json")

    (folder / RESULTS).write_text("".join(json.dumps(one.as_json()) + "\n" for one in results.values()))
    yield "results", folder / RESULTS, lambda: recorded(folder)

    profile = folder / "h100.json"
    profile.write_bytes((Path(seeded.torchport.__file__).parent / "arithmetic" / "profiles" / "h100.json").read_bytes())
    passport = {
        "target": "cpu", "profile": None, "unmeasured": {}, "dot": {"f32": {"group": 1, "order": "forward"}},
        "functions": {"exp": {"f32": 0.6}}, "denormals": {"f32": "keep"}, "casts": {"f8": {"nan": 0}},
        "reductions": {"order": "sequential"},
    }  # fmt: skip

    def use_profile() -> None:
        loaded = Profile.load(str(profile))
        loaded.arithmetic(), loaded.ulp(), loaded.sources()
        against_profile(passport, loaded)

    yield "profile", profile, use_profile
    (folder / "passport.json").write_text(json.dumps(passport))
    yield "passport", folder / "passport.json", lambda: against_passport(passport, _read(folder / "passport.json"))

    binary = Binary(b"machine code", "obj", "kernel", metadata={"hash": "0"})
    artifact = Artifact("kernel", "cpu", ("aten.add",), "key", binary=binary, types={"x": "*fp32"}, cache_key="0" * 64)
    about = {"targets": {"cpu": {"compiler": backend_for(CPU).compiler(CPU).fingerprint()}}}
    manifest = write(folder / "built", [artifact], about)
    yield "manifest", manifest, lambda: (read(folder / "built"), install(folder / "built"))

    packed = folder / "kernel"
    packed.write_bytes(binary.pack())
    yield "container", packed, lambda: Binary.unpack(packed.read_bytes())


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["certificate", "results", "profile", "passport", "manifest", "container"])
def test_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, count: int) -> None:
    monkeypatch.setenv("TORCHPORT_CACHE_DIR", str(tmp_path / "cache"))
    for name, file, use in uses(tmp_path):
        if name == kind:
            use()
            errors, rest = damage(file, count, use, file.suffix == ".jsonl")
            print(f"{name}: {errors} errors, {rest} answers")


@pytest.mark.parametrize("count", COUNTS)
def test_the_quarantine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A damaged one counts as empty, with a warning."""
    file = tmp_path / "quarantine.json"
    monkeypatch.setenv("TORCHPORT_QUARANTINE", str(file))
    quarantine.add(CPU, "0" * 16, "XBLOCK=8", "wrong")

    def use() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            quarantine.active(CPU)
            quarantine.digest(CPU)

    errors, _ = damage(file, count, use)
    assert not errors
