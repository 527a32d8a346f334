"""``torchport ops build``: what is built is in the cache of the next process."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path

import pytest
import torch
from processes import run
from typer.testing import CliRunner

from torchport.cli.app import app
from torchport.ops.registry import operators
from torchport.prebuild import building
from torchport.prebuild.items import DTYPES, Item, chosen
from torchport.prebuild.recorded import encoded, recorded
from torchport.prebuild.worker import outcome
from torchport.runtime.worker import Worker
from torchport.target import Target

CPU = Target("cpu")


def torchport(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    program = "import sys; from torchport.cli.app import main; sys.exit(main())"
    return run(program, *arguments, environment={"COLUMNS": "200", **environment})


def test_a_new_process_compiles_nothing_that_was_built(tmp_path: Path) -> None:
    caches = {
        name: str(tmp_path / name) for name in ("TORCHPORT_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    }
    command = ("ops", "build", "--target", "cpu", "--only", "dequan*", "--jobs", "1")
    done = torchport(*command, **caches)
    assert done.returncode == 0, done.stderr
    assert "1 built, 0 already there, 0 not supported, 0 failed" in done.stdout
    again = torchport(*command, **caches)
    assert "0 built, 1 already there" in again.stdout
    assert "0 kernels compiled" in again.stdout
    program = """
import torch, torchport.ops
from torchport.runtime import events
with events.capture() as happened:
    for length in (40, 300, 700, 1500, 5000):
        torchport.ops.dequantize(torch.zeros(3, length, dtype=torch.int8), torch.ones(3), torch.float32)
kernels = [event for event in happened if isinstance(event, events.Kernel)]
print(len(kernels), sum(not kernel.cached for kernel in kernels))
"""
    found, compiled = map(int, run(program, environment=caches).stdout.split())
    assert (found, compiled) == (5, 0)


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("--dtype", "int8"), {}, "dtype 'int8' is not valid"),
        (("--dtype", "float32,"), {}, "dtype '' is not valid"),
        (("--only", "no_such"), {}, "cpu has no operator 'no_such' to build"),
        (("--only", "aten.add.Tensor"), {}, "cpu has no operator 'aten.add.Tensor' to build"),
        (("--target", "null"), {}, "which null is not"),
        (("--target", "nowhere"), {}, "no backend is called 'nowhere'"),
        ((), {"TORCHPORT_CACHE_SIZE": "0"}, "what is built would be lost"),
        ((), {"TORCHPORT_CACHE_DIR": "/dev/null/there"}, "what is built would be lost"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(
    arguments: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    done = torchport("ops", "build", *arguments, **environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_list_has_every_operator() -> None:
    done = CliRunner().invoke(app, ["ops", "build", "--list", "--dtype", "float32,bfloat16"])
    assert done.output.splitlines() == [f"{operator.name}  2" for operator in operators()]


def test_an_operator_that_crashes_or_hangs_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are built, by processes started anew; the command ends with 1 for it."""
    stand_in = tmp_path / "stand_in.py"
    stand_in.write_text(
        "import os, sys, time\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    if line.startswith('rope'): os.abort()\n"
        "    if line.startswith('swiglu'): time.sleep(100)\n"
        '    print(\'{"verdict": "built", "kernels": 1}\', flush=True)\n'
    )
    monkeypatch.setattr(
        building, "Worker", lambda arguments, environment, log, what: Worker([str(stand_in)], environment, log, what)
    )
    chosen_ = [item for name in ("rope", "swiglu", "softmax") for item in (*("--only", name),)]
    done = CliRunner().invoke(app, ["ops", "build", *chosen_, "--jobs", "1", "--timeout", "3"])
    assert done.exit_code == 1
    assert "1 built, 0 already there, 0 not supported, 2 failed; 1 kernels compiled" in done.output
    assert "rope failed: crashed: its process was ended by SIGABRT" in done.output
    assert "swiglu failed: hung: no result in 3 s" in done.output


def test_a_type_that_a_target_lacks_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from torchport.prebuild import worker

    backend = worker.backend_for(CPU)

    class Narrow:
        @staticmethod
        def capabilities(target: Target) -> object:
            able = backend.capabilities(target)
            return replace(able, dtypes=able.dtypes - {"bf16"})

    monkeypatch.setattr(worker, "backend_for", lambda target: Narrow)
    found = outcome(Item("rope", "bfloat16"), CPU, torch.device("cpu"))
    assert (found.verdict, found.detail) == ("unsupported", "cpu has no bf16")


def test_items_are_lines_and_back() -> None:
    for item in (*chosen(CPU, ["float32", "float16"]), Item("aten.add.Tensor", "bfloat16", 17)):
        assert Item.parse(f"{item.line}\n") == item


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_recorded_call_can_be_made(dtype: str) -> None:
    """The CPU takes its arguments, if it has the operator for these types."""
    calls = [call for call in recorded() if call.serves(dtype)]
    made = 0
    for call in calls:
        with contextlib.suppress(NotImplementedError):
            call.run(DTYPES[dtype], torch.device("cpu"))
            made += 1
    assert len(calls) > 500
    assert made > 0.99 * len(calls)


def test_float16_is_recorded_as_bfloat16() -> None:
    assert any(call.serves("float16") for call in recorded())
    assert all(call.serves("float16") == call.serves("bfloat16") for call in recorded())


def test_an_argument_is_written_and_read() -> None:
    from torchport.prebuild.recorded import Recorded

    x = torch.ones(3, 4, dtype=torch.bfloat16).t()
    args = encoded([x, x, None, 1.5], torch.bfloat16)
    assert args == [{"tensor": "float", "sizes": [4, 3], "strides": [1, 4]}] * 2 + [None, 1.5]
    call = Recorded("aten.add.Tensor", args[:2], {}, ("bfloat16",), 1)
    for dtype in (torch.float32, torch.float16):
        result = call.run(dtype, torch.device("cpu"))
        assert result.dtype == dtype and result.stride() == (1, 4) and result.eq(2).all()
    with pytest.raises(TypeError, match="has no form"):
        encoded(object(), torch.float32)


def test_types_layouts_and_devices_are_written_and_read() -> None:
    from torchport.prebuild.recorded import Recorded

    given = {"dtype": torch.int64, "layout": torch.strided, "device": torch.device("meta")}
    named = {name: encoded(value, torch.float32) for name, value in given.items()}
    named["memory_format"] = encoded(torch.channels_last, torch.float32)
    image = encoded(torch.ones(2, 3, 4, 5), torch.float32)
    call = Recorded("aten._to_copy.default", [image], json.loads(json.dumps(named)), ("float32",), 1)
    result = call.run(torch.float32, torch.device("cpu"))
    assert result.dtype == torch.int64
    assert result.device.type == "cpu"  # a device is that of the tensors
    assert result.is_contiguous(memory_format=torch.channels_last)
