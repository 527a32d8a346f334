"""The conformance suite: faults of a target are found and named, certificates cannot be changed unseen, runs go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torchport import plugin
from torchport.capabilities import Capabilities
from torchport.conformance import certificate, chosen, markdown, verify
from torchport.conformance.bounds import accumulated, equal, function_bound, within
from torchport.conformance.case import Bench, Case, Measured, Result, Wrong
from torchport.conformance.runner import RESULTS, recorded, run
from torchport.conformance.suite import every_case
from torchport.conformance.worker import run_case
from torchport.errors import ArtifactError, OptionError, UnsupportedOperation
from torchport.inductor.products.lowering import flushes
from torchport.plugin import GROUP, Registry, backend_for
from torchport.target import Target

CPU = Target("cpu")

FAULTY = """
import os, time
from dataclasses import replace
import torch
from torchport.plugin import Device, backend_for
from torchport.target import Target

CPU = Target("cpu")

def last(args):
    return [x for x in args if isinstance(x, torch.Tensor)][-1]

def lane(out, old, args):
    if out.dtype.is_floating_point: out.view(-1)[out.numel() // 2] *= 1.0001

def tail(out, old, args):
    out.view(-1)[-1:] = old.view(-1)[-1:]

def flush(out, old, args):
    if out.dtype.is_floating_point: out[out.abs() < torch.finfo(out.dtype).tiny] = 0

def nan(out, old, args):
    if out.dtype.is_floating_point: torch.nan_to_num_(out, 0.0, float("inf"), float("-inf"))

def outside(out, old, args):
    torch.empty(0, dtype=torch.uint8).set_(out.untyped_storage(), out.storage_offset() * out.element_size()
        + out.numel() * out.element_size(), (4,), (1,)).fill_(1)

def inputs(out, old, args):
    args[0].view(-1)[0] = 1

def abort(out, old, args):
    if out.dtype == torch.float16: os.abort()

def hang(out, old, args):
    if out.dtype == torch.float16: time.sleep(1000)

FAULTS = {f.__name__: f for f in (lane, tail, flush, nan, outside, inputs, abort, hang)}

class Launcher:
    def __init__(self, inner, fault): self.inner, self.fault = inner, fault
    def bind(self, *grid):
        run = self.inner.bind(*grid)
        def launch(*args):
            old = last(args).clone()
            run(*args)
            self.fault(last(args), old, args)
        return launch

class Driver:
    device, stock = "cpu", False
    def __init__(self, fault): self.fault = fault
    def load(self, binary, types):
        launcher, function = backend_for(CPU).driver(CPU).load(binary, types)
        return Launcher(launcher, self.fault), function

class Plugin:
    name, api_version, options = "faulty", %d, {"cpu_backend": "triton"}
    def devices(self): return [Device(Target("faulty"), "a device with faults")]
    def capabilities(self, target):
        able = backend_for(CPU).capabilities(CPU)
        return replace(able, dtypes=able.dtypes - {"fp64"}) if target.parts[1:] == ("narrow",) else able
    def compiler(self, target): return backend_for(CPU).compiler(CPU)
    def driver(self, target): return Driver(FAULTS[target.parts[0]])

backend = Plugin()
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which a plugin with the target ``faulty:FAULT`` is installed, for this process and for others."""
    folder = tmp_path / "installed"
    about = folder / "faulty-1.dist-info"
    about.mkdir(parents=True)
    (folder / "faulty_plugin.py").write_text(FAULTY % plugin.API_VERSION)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[{GROUP}]\nfaulty = faulty_plugin:backend\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    points = [*entry_points(group=GROUP), EntryPoint("faulty", "faulty_plugin:backend", GROUP)]
    found = Registry({point.name: point for point in points}.values())
    monkeypatch.setattr(plugin, "registry", lambda: found)
    yield folder
    sys.modules.pop("faulty_plugin", None)


def bench(target: str) -> Bench:
    parsed = Target.parse(target)
    return Bench(parsed, backend_for(parsed).capabilities(parsed))


@pytest.fixture
def able() -> Capabilities:
    return bench("cpu").able


FOUND = [
    ("lane", "language/exp/fp32/1009/wide", "of 1009 elements; at [504]"),
    ("lane", "language/sum_axis1/fp32/8x128/randn", "at [4]"),
    ("lane", "language/dot/fp32/16x16x16/randn", "at [8, 0]"),
    ("tail", "memory/tail/fp32/257/special", "1 of 257 elements; at [256]"),
    ("tail", "language/load_store/int8/1009/special", "at [1008]"),
    ("flush", "language/load_store/fp32/1009/special", "instead of"),
    ("flush", "language/mul/fp32/1009/special", "instead of"),
    ("nan", "language/add/fp32/1009/special", "instead of nan"),
    ("nan", "language/max_nan/fp32/8x128/special", "instead of nan"),
    ("outside", "memory/tail/fp32/63/special", "4 bytes behind output z were written"),
    ("inputs", "language/trans/fp32/8x128/wide", "input x was changed"),
]


@pytest.mark.parametrize(("fault", "case", "words"), FOUND, ids=[f"{f}-{c.split('/')[1]}" for f, c, _ in FOUND])
def test_fault_is_found_where_a_right_target_passes(faulty: Path, fault: str, case: str, words: str) -> None:
    result = run_case(every_case()[case], bench(f"faulty:{fault}"))
    assert (result.verdict, words in result.detail) == ("fail", True), result
    assert run_case(every_case()[case], bench("cpu")).verdict == "pass"


def test_fault_in_a_compiled_graph_is_found(faulty: Path) -> None:
    result = run_case(every_case()["inductor/softmax/fp32/37x61/randn"], bench("faulty:lane"))
    assert result.verdict == "fail"
    assert result.worst is not None and result.worst > 1


def test_flushed_denormals_are_allowed_where_the_descriptor_says_so(able: Capabilities) -> None:
    from dataclasses import replace

    tiny = torch.tensor([1e-40, 1.0])
    with pytest.raises(Wrong):
        equal(torch.tensor([0.0, 1.0]), tiny, able)
    equal(torch.tensor([0.0, 1.0]), tiny, replace(able, denormals=able.denormals - {"fp32"}))


@pytest.mark.parametrize(("error", "good"), [(0.4, True), (0.6, False)], ids=["below half a unit", "above half a unit"])
def test_bound_of_a_rounded_result(able: Capabilities, error: float, good: bool) -> None:
    got = torch.tensor([1.5, 1.0])
    wanted = got.double().numpy() + np.array([0.0, error * 2.0**-23])
    bound = function_bound(wanted, "fp32", able, 0.5)
    if good:
        assert within(got, wanted, bound, "fp32", able).worst == pytest.approx(0.8)
    else:
        with pytest.raises(Wrong) as raised:
            within(got, wanted, bound, "fp32", able)
        assert raised.value.worst == pytest.approx(1.2)


def test_truncating_targets_get_a_bound_that_grows_with_n(able: Capabilities) -> None:
    from dataclasses import replace

    nearest = accumulated(np.zeros(1), np.ones(1), 4096, "fp32", able)
    truncated = accumulated(np.zeros(1), np.ones(1), 4096, "fp32", replace(able, rounding="rtz"))
    assert truncated / nearest == pytest.approx(64, rel=1e-3)


@pytest.mark.parametrize(("got", "wanted"), [(float("inf"), 1.0), (0.0, float("nan")), (65504.0, 1e9)])
def test_infinities_nan_and_saturation_are_no_rounding(able: Capabilities, got: float, wanted: float) -> None:
    with pytest.raises(Wrong):
        within(torch.tensor([got]).half(), np.array([wanted]), np.array([1e-3]), "fp16", able)


def case(name: str, run_: Any, **more: Any) -> Case:
    return Case("language", name, "fp32", (4,), "randn", run_, ("fp32",), **more)


def refuse(bench: Bench) -> Measured:
    raise UnsupportedOperation("tt.histogram", "the target has no such thing")


def certified(verdicts: dict[str, str], able: Capabilities) -> dict[str, Any]:
    cases = [case(name, refuse) for name in verdicts]
    results = {
        one.id: Result(one.id, verdict, "because", 3.0 if verdict == "fail" else 0.5)
        for one, verdict in zip(cases, verdicts.values(), strict=True)
    }
    return certificate(Target("cpu"), able, "quick", cases, results, "a device")


def test_refusal_is_a_limit_unless_the_case_is_required() -> None:
    assert run_case(case("a", refuse), bench("cpu")).verdict == "refused"
    required = run_case(case("a", refuse, required=True), bench("cpu"))
    assert required.verdict == "fail"
    assert "the descriptor has fp32" in required.detail


def test_missing_type_is_untested_with_its_reason(faulty: Path) -> None:
    result = run_case(every_case()["language/add/fp64/1009/wide"], bench("faulty:lane:narrow"))
    assert (result.verdict, result.detail) == ("untested", "the target has no fp64")


@pytest.mark.skipif(not backend_for(CPU).capabilities(CPU).bf16_pairs, reason="no instruction for pairs of bf16")
def test_capabilities_that_promise_an_instruction_are_compared_with_what_the_kernel_does() -> None:
    pairs = every_case()["language/dot_pairs/bf16/16x32x64/denormals"]
    own, without = bench("cpu"), bench("cpu:x86_64:avx2")
    assert run_case(pairs, own).verdict == "pass" and not pairs.applies(without.able)
    result = run_case(pairs, Bench(without.target, own.able))
    assert result.verdict == "fail" and "as by vdpbf16ps" in result.detail
    exact = every_case()["language/dot/bf16/16x32x64/denormals"]
    for one in (own, without):
        assert run_case(exact, one).verdict == "pass"
    less = replace(own, able=replace(own.able, bf16_pairs=False))
    assert run_case(every_case()["inductor/products_pairs/bf16/16x32x64/denormals"], less).notes or not flushes()


def test_certificates_say_with_which_option_they_were_made(able: Capabilities) -> None:
    assert certified({"a": "pass"}, able)["options"] == {"bf16_products": "auto"}
    pairs = certificate(CPU, able, "quick", [], {}, "a device", "pairs")
    assert pairs["options"] == {"bf16_products": "pairs"} and 'bf16_products="pairs"' in markdown(pairs)


def test_unexpected_error_is_a_failure() -> None:
    def broken(bench: Bench) -> Measured:
        raise ZeroDivisionError("of the vendor's")

    result = run_case(case("a", broken), bench("cpu"))
    assert (result.verdict, result.detail) == ("fail", "unexpected ZeroDivisionError: of the vendor's")


@pytest.mark.parametrize(
    ("verdicts", "grade"),
    [
        ({"a": "pass", "b": "pass"}, "PASS"),
        ({"a": "pass", "b": "refused"}, "PASS-with-stated-limits"),
        ({"a": "pass", "b": "untested"}, "PASS-with-stated-limits"),
        ({"a": "pass", "b": "fail"}, "FAIL"),
        ({"a": "refused", "b": "untested"}, "UNTESTED"),
    ],
)
def test_grades(verdicts: dict[str, str], grade: str, able: Capabilities) -> None:
    content = certified(verdicts, able)
    assert content["areas"]["language"]["grade"] == content["grade"] == grade
    assert content["areas"]["models"]["grade"] == "UNTESTED"


def test_failures_are_named_with_a_command_that_repeats_them(able: Capabilities) -> None:
    content = certified({"a": "pass", "b": "fail"}, able)
    (failure,) = content["failures"]
    assert failure["operation"] == "b" and failure["shape"] == [4] and failure["of_bound"] == 3.0
    assert failure["command"] == "torchport conformance --target cpu --only 'language/b/fp32/4/randn'"
    assert failure["command"] in markdown(content)


def test_changed_certificate_is_detected(tmp_path: Path, able: Capabilities) -> None:
    content = certified({"a": "pass", "b": "fail"}, able)
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(content, indent=3))
    assert verify(file)[0]["grade"] == "FAIL"
    content["areas"]["language"]["grade"] = "PASS"
    file.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="was changed"):
        verify(file)
    file.write_text(json.dumps({**content, "schema": "torchport.certificate/0"}))
    with pytest.raises(ArtifactError, match="no certificate"):
        verify(file)
    file.write_text("[]")
    with pytest.raises(ArtifactError, match="a list, not an object"):
        verify(file)


def test_ids_that_nothing_matches_and_levels() -> None:
    assert len(chosen("full")) > len(chosen("quick")) > 400
    with pytest.raises(OptionError, match="no case"):
        chosen("quick", ["language/nothing"])
    with pytest.raises(OptionError, match="quick, full"):
        chosen("slow")


CRASHES = (
    "language/load_store/fp32/1009/special",
    "language/load_store/fp16/1009/special",
    "memory/tail/int8/7/special",
)


@pytest.mark.parametrize(
    ("fault", "timeout", "words"),
    [("abort", 120, "SIGABRT"), pytest.param("hang", 12, "hung: no result in 12 s", marks=pytest.mark.slow)],
)
def test_crash_and_hang_fail_one_case_and_the_run_goes_on(
    faulty: Path, tmp_path: Path, fault: str, timeout: float, words: str
) -> None:
    cases = [every_case()[name] for name in CRASHES]
    results = run(Target.parse(f"faulty:{fault}"), cases, tmp_path / "run", timeout=timeout)
    assert [results[name].verdict for name in CRASHES] == ["pass", "fail", "pass"]
    assert words in results[CRASHES[1]].detail


def test_results_of_an_earlier_run_are_kept_and_a_torn_line_is_not(tmp_path: Path) -> None:
    done = Result(CRASHES[0], "pass", "from before", 0.25)
    (tmp_path / RESULTS).write_text(json.dumps(done.as_json()) + '\n{"case": "lang')
    seen: list[Result] = []
    results = run(Target("cpu"), [every_case()[name] for name in CRASHES], tmp_path, done=seen.append)
    assert results[CRASHES[0]] == done
    assert [results[name].verdict for name in CRASHES] == ["pass"] * 3
    assert len(seen) == 3
    assert set(recorded(tmp_path)) == set(CRASHES)


def test_killed_run_continues(tmp_path: Path) -> None:
    """The command itself, killed once it has some results."""
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from torchport.conformance import chosen, run
        from torchport.target import Target
        cases = chosen("quick", ["language/load_store/*"])
        run(Target("cpu"), cases, Path(sys.argv[1]))
    """)
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], start_new_session=True)
    deadline = time.monotonic() + 120
    while len(recorded(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = recorded(tmp_path)
    cases = chosen("quick", ["language/load_store/*"])
    assert 2 <= len(before) < len(cases)
    results = run(Target("cpu"), cases, tmp_path)
    assert len(results) == len(cases)
    assert all(results[name] == result for name, result in before.items())


def test_a_graph_that_fails_names_its_kernel_for_quarantine(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchport import quarantine
    from torchport.cli.conformance import _quarantine

    monkeypatch.setenv("TORCHPORT_QUARANTINE", str(tmp_path / "quarantine.json"))
    result = run_case(every_case()["inductor/softmax/fp32/37x61/randn"], bench("faulty:lane"))
    assert result.verdict == "fail" and len(result.kernels) == 2
    target = Target.parse("faulty:lane")
    _quarantine(target, [result])
    assert "not told apart" in capsys.readouterr().out and not quarantine.entries()
    _quarantine(target, [replace(result, kernels=result.kernels[:1])])
    (entry,) = quarantine.entries()
    assert (entry.kernel, entry.config) == result.kernels[0][:2] and "conformance" in entry.reason
