"""Run folders: what is written is read back, whatever happened to the process or the disk in between."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import torchport
from torchport.errors import OptionError, RecordingError, RunError
from torchport.numerics.recording.memory import dtype_name
from torchport.numerics.runs import writer as stores
from torchport.numerics.runs.reader import Run
from torchport.numerics.runs.writer import STORABLE, Store, content_hash
from torchport.runtime import events

LINE = {"seq": 0, "graph": "g", "call": 0, "kind": "extern", "operation": "aten.mm.out", "site": 0}
ARG = {"name": "out", "role": "out", "dtype": "float32", "shape": [2, 3], "stride": [3, 1], "offset": 0, "storage": 0}
KERNEL = {"function": "f", "types": {}, "target": "cpu", "source": "", "ttir": None, "nodes": []}
GRAPH = {"fx": {"format": "x", "nodes": [], "outputs": [], "constants": {}}, "target": "cpu", "direction": "forward"}


def made(path: Path, budget: int = 1 << 20) -> Store:
    return Store(path, budget, {"level": "full"})


def data_of(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", sorted(STORABLE, key=str), ids=str)
def test_tensors_of_every_type_come_back(tmp_path: Path, dtype: torch.dtype) -> None:
    store, values = made(tmp_path), torch.tensor([0, 1, 1, 0, 1]).to(dtype)
    sha = store.put_tensor(dtype_name(dtype), data_of(values))
    assert sha is not None and store.put_tensor(dtype_name(dtype), data_of(values)) == sha
    assert store.tensors == 1 and store.stored == values.nbytes
    store.close({"launches": 0})
    run = Run.load(tmp_path)
    assert run.info["complete"] and run.info["counts"] == {"launches": 0} and run.info["level"] == "full"
    assert run.tensor(sha).dtype == dtype and torch.equal(run.tensor(sha), values)
    file = load_file(tmp_path / "tensors" / f"{sha}.safetensors")
    assert set(file) == {"data"} and file["data"].shape == (5,)


def test_types_are_told_apart_and_nothing_is_empty(tmp_path: Path) -> None:
    store = made(tmp_path)
    assert store.put_tensor("int32", bytes(8)) != store.put_tensor("float32", bytes(8))
    empty = store.put_tensor("float32", b"")
    assert empty == content_hash("float32", b"") and Run.load(tmp_path).tensor(empty).numel() == 0


def test_budget(tmp_path: Path) -> None:
    store = made(tmp_path, budget=100)
    assert store.put_tensor("uint8", bytes(60)) is not None
    assert store.put_tensor("uint8", bytes(61)) is None and not store.fits(41)
    assert store.put_tensor("uint8", bytes(40)) is not None and store.stored == 100


def test_later_launches_are_read_as_the_first(tmp_path: Path) -> None:
    store = made(tmp_path)
    first = {**LINE, "seq": 3, "args": [{**ARG, "summary": {"mean": 1.0}, "after": "a"}], "checks": ["repeat"]}
    later = {"seq": 4, "call": 7, "site": 0, "summaries": [{"mean": 2.0}]}
    flagged = {"seq": 5, "call": 8, "site": 0, "summaries": [{"mean": 3.0}], "flags": ["x"], "after": {"0": "b"}}
    store.append([json.dumps(later), json.dumps(first), json.dumps(flagged)], flush=True)
    store.close({})
    one, two, three = Run.load(tmp_path).launches
    assert (one.seq, one.args[0].shape, one.args[0].after, one.checks) == (3, (2, 3), "a", ("repeat",))
    assert (two.call, two.operation, two.args[0].summary, two.args[0].after) == (7, "aten.mm.out", {"mean": 2.0}, None)
    assert two.unrecorded and two.checks == ()
    assert (three.flags, three.args[0].after, three.unrecorded) == (("x",), "b", None)


def test_damage_is_found(tmp_path: Path) -> None:
    store = made(tmp_path)
    sha = store.put_tensor("float32", data_of(torch.randn(6)))
    store.put_json("kernels", "k", KERNEL)
    store.put_json("graphs", "g", GRAPH)
    store.append(
        [json.dumps(LINE), "no JSON", json.dumps({"seq": 9, "call": 1, "site": 8, "summaries": []})], flush=True
    )
    store.close({})
    with open(tmp_path / "launches.jsonl", "a") as file:
        file.write('{"seq": 1, "gra')  # torn
    (tmp_path / "kernels" / "k.json").write_text("{")
    file_of = tmp_path / "tensors" / f"{sha}.safetensors"
    file_of.write_bytes(file_of.read_bytes()[:-1] + b"\x55")
    run = Run.load(tmp_path)
    assert [launch.seq for launch in run.launches] == [0] and set(run.graphs) == {"g"} and not run.kernels
    assert set(run.damaged) == {"kernels/k.json", "launches.jsonl:2", "launches.jsonl:3"}
    with pytest.raises(RunError, match="its content is not what its name says"):
        run.tensor(str(sha))
    file_of.write_bytes(b"short")
    with pytest.raises(RunError, match="is damaged"):
        run.tensor(str(sha))
    with pytest.raises(RunError, match="has no tensor 00"):
        run.tensor("00")


def test_what_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run.json cannot be read: No such file"):
        Run.load(tmp_path)
    (tmp_path / "run.json").write_text('{"format": "torchport.run/0"}')
    with pytest.raises(RunError, match=r"'torchport.run/0'; this version of torchport reads 'torchport.run/1'"):
        Run.load(tmp_path)
    (tmp_path / "run.json").write_text('{"format": "torchport.run/1", "environment": {"variables": [1]}}')
    with pytest.raises(RunError, match=r"environment\.variables is a list, not an object"):
        Run.load(tmp_path)
    (tmp_path / "run.json").write_text("x")
    with pytest.raises(RunError, match=r"run\.json cannot be read as JSON"):
        Run.load(tmp_path)


def test_a_full_disk_ends_the_recording_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes three more files, then no more."""
    store = made(tmp_path)
    left = [3]

    def limited(path: Path, data: bytes) -> None:
        if path.name != "run.json":
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device", str(path))
        path.write_bytes(data)

    monkeypatch.setattr(stores, "write_whole", limited)
    kept = [store.put_tensor("int32", data_of(torch.tensor([value], dtype=torch.int32))) for value in range(5)]
    assert [name is not None for name in kept] == [True, True, True, False, False]
    store.put_json("graphs", "g", {})
    store.append([json.dumps(LINE)], flush=True)
    store.close({})
    run = Run.load(tmp_path)
    (note,) = run.info["notes"]
    assert not run.info["complete"] and note["note"].startswith("recording ended early: No space left on device")
    assert [int(run.tensor(str(name))) for name in kept[:3]] == [0, 1, 2] and not run.damaged


def test_a_disk_that_is_full_from_the_launches_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model goes on where a line, and then run.json itself, cannot be written."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    compiled = torch.compile(lambda x: torch.sin(x) + 1, backend="torchport")
    x = torch.randn(50)
    expected = compiled(x)
    with torchport.record(tmp_path / "run", ttir=False) as recorder, monkeypatch.context() as patch:
        patch.setattr(stores.os, "write", full)
        assert torch.equal(compiled(x), expected)
        assert recorder.store.ended is not None and torch.equal(compiled(x), expected)
        patch.setattr(stores, "write_whole", full)
    run = Run.load(tmp_path / "run")
    assert not run.launches and not run.info["complete"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process that is killed is a fork")
def test_a_killed_process_leaves_what_it_wrote(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:  # writes until it is killed; it uses none of torch's threads
        try:
            store = made(tmp_path, budget=1 << 40)
            for number in range(1 << 30):
                store.put_json("kernels", str(number), {**KERNEL, "function": f"f{number}"})
                sha = store.put_tensor("int64", number.to_bytes(8, "little") * 64)
                store.append([json.dumps({**LINE, "seq": number, "args": [{**ARG, "after": sha}]})], flush=True)
        finally:
            os._exit(1)
    try:
        launches, until = tmp_path / "launches.jsonl", time.monotonic() + 60
        while not (launches.exists() and launches.stat().st_size > 20_000) and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it ended by itself"
    run = Run.load(tmp_path)
    assert not run.info["complete"] and not run.damaged and len(run.launches) > 50
    for launch in run.launches:
        (arg,) = launch.args
        assert run.tensor(str(arg.after))[0] == launch.seq
        assert run.kernels[str(launch.seq)]["function"] == f"f{launch.seq}"


def test_what_cannot_begin(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"level 'all' .* valid: 'stats', 'full'"), torchport.record(tmp_path, "all"):
        pass
    with pytest.raises(OptionError, match=r"budget '2X' .* expected a number"), torchport.record(tmp_path, budget="2X"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="is not empty; give"), torchport.record(tmp_path):
        pass
    with pytest.raises(RecordingError, match="cannot record into"), torchport.record(tmp_path / "file" / "run"):
        pass
    again = pytest.raises(RecordingError, match=f"are being recorded already, into {tmp_path / 'a'};")
    with events.capture() as happened, torchport.record(tmp_path / "a"), again, torchport.record(tmp_path / "b"):
        pass
    assert str(happened[-1]).startswith(f"recorded 0 launches (0 flagged), 0 tensors of 0 bytes into {tmp_path / 'a'}")
    assert not (tmp_path / "b").exists()
