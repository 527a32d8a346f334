"""``torchport repro``: a folder that reproduces one kernel of a run alone (docs/numerics/verdicts.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

import torchport
from torchport.errors import OptionError, RunError, TorchportError
from torchport.files import read_bytes, read_json, write_whole
from torchport.numerics.recording.memory import dtype_name
from torchport.numerics.runs.schema import DTYPES, Count, Dtype, KernelNode
from torchport.numerics.verdicts.replay import Argument
from torchport.precision.case import CaseVerdict, KernelCase, execute, judge_case, reproduced_on
from torchport.precision.shrink import Shrinker, Size, size_of, trimmed

__all__ = ["FORMAT", "Reproduction", "load_case", "reproduce", "rerun", "write_case"]

FORMAT = "torchport.repro/1"

_SCRIPT = '''"""One kernel of a recorded run, alone: nodes.txt says which, and what is expected.

    python run.py     # needs torchport; exit status 1 while the fault is still there, 0 when it is not

config.json says where it runs, kernel.py is its source.
"""

import sys
from pathlib import Path

from torchport.precision.reproduce import rerun

sys.exit(rerun(Path(__file__).resolve().parent, trust=True))
'''
"""Nothing of the run is in it: names may come from strangers, and this is executed."""

_LONGEST = 2**32


@dataclass(frozen=True)
class _Argument:
    """An argument as config.json has it."""

    name: str
    type: str
    value: int | float | None
    storage: Count | None
    dtype: Dtype | None
    shape: tuple[Count, ...]
    stride: tuple[Count, ...]
    offset: Count


class _Expected(TypedDict):
    level: str
    gate: str


class _Format(TypedDict):
    format: str


class _Config(_Format):
    """config.json, as far as it is read back."""

    function: str
    target: str
    runs_on: str | None
    types: dict[str, str]
    config: str
    compiled: Literal["source", "ttir"]
    grid: tuple[Count, Count, Count]
    outputs: tuple[str, ...]
    arguments: tuple[_Argument, ...]
    lengths: dict[Annotated[str, re.compile("[0-9]{1,9}")], Count]
    expected: _Expected


@dataclass(frozen=True)
class Reproduction:
    """A case made small.

    case: the smallest that was found.
    found: its verdict.
    target: where it is run; None if only the recorded results show the fault.
    notes: why.
    before, after: sizes.
    trials: how many replays that took.
    """

    case: KernelCase
    found: CaseVerdict
    target: str | None
    notes: tuple[str, ...]
    before: Size
    after: Size
    trials: int


def reproduce(
    case: KernelCase,
    trials: int = 100,
    advance: Callable[[], None] = lambda: None,
    run: Callable[[KernelCase, str], Mapping[int, torch.Tensor]] = execute,
) -> Reproduction:
    """Find where ``case`` gives its recorded verdict, and make it smaller in at most ``trials`` replays.

    Raises what ``judge_case`` raises.
    """
    recorded = judge_case(case, case.recorded)
    target, notes = reproduced_on(case, recorded.kind, run)
    shrinker = Shrinker(recorded.kind, target, trials, advance, run)
    smaller = shrinker.shrink(case)
    found = judge_case(smaller, smaller.recorded if target is None else run(smaller, target))
    sizes = size_of(case), size_of(smaller)
    return Reproduction(smaller, found, target, tuple(notes), *sizes, trials - shrinker.left)


def write_case(folder: Path, made: Reproduction, path: str, seq: int) -> None:
    """Write the folder. ``path``, ``seq``: run and launch that the case came from.

    Raises OSError, RunError if the folder holds something else.
    """
    case = made.case
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.json").exists():
        raise RunError(f"{folder} is not empty and not a folder of torchport repro; choose another with -o")
    folder.mkdir(parents=True, exist_ok=True)
    expected = f"{made.found.level}{f' by the gate {made.found.gate}' if made.found.gate else ''}"
    config = {
        "format": FORMAT,
        "function": case.function,
        "target": case.target,
        "runs_on": made.target,
        "notes": made.notes,
        "types": dict(case.types),
        "config": case.config,
        "compiled": "source" if case.trusted else "ttir",
        "options": dict(case.options),
        "grid": case.grid,
        "outputs": case.outputs,
        "arguments": [_argument(one) for one in case.arguments],
        "lengths": {str(number): storage.numel() for number, storage in case.storages.items()},
        "expected": {"level": made.found.level, "gate": made.found.gate},
        "reasons": [reason for one in made.found.tensors for reason in one.reasons],
        "size": {"before": asdict(made.before), "after": asdict(made.after), "trials": made.trials},
        "run": path,
        "launch": seq,
        "versions": {"torchport": torchport.__version__, "torch": torch.__version__},
    }
    write_whole(folder / "inputs.safetensors", _packed(case.storages))
    if made.target is None:
        write_whole(folder / "recorded.safetensors", _packed(case.recorded))
    else:
        (folder / "recorded.safetensors").unlink(missing_ok=True)
    texts = {
        "kernel.ttir": case.ttir,
        "kernel.py": case.source,
        "nodes.json": json.dumps([dict(node) for node in case.nodes], indent=1) + "\n",
        "nodes.txt": "\n".join([f"{case.function}, launch {seq} of {path}: expected {expected}", *_lines(case)]) + "\n",
        "config.json": json.dumps(config, indent=1, default=str) + "\n",
        "run.py": _SCRIPT,
    }
    for name, text in texts.items():
        write_whole(folder / name, text.encode())


def _packed(storages: Mapping[int, torch.Tensor]) -> bytes:
    """Storages without the zeros at their ends."""
    data: bytes = save({str(number): trimmed(storage).clone() for number, storage in storages.items()})
    return data


def _argument(one: Argument) -> dict[str, Any]:
    return {**asdict(one), "dtype": dtype_name(one.dtype) if one.dtype is not None else None}


def _lines(case: KernelCase) -> list[str]:
    """The nodes that a kernel computes, and the user's lines."""
    found = []
    for node in case.nodes:
        found.append(f"{node['name']}: {node['target']}")
        if place := node.get("stack"):
            found.append(f"    {place['file']}:{place['line']} {place.get('code') or ''}".rstrip())
    return found


def load_case(folder: Path, *, trust: bool = False) -> tuple[KernelCase, dict[str, Any]]:
    """The case that ``write_case`` wrote, and config.json. ``trust``: kernel.py may be executed, if it was before.

    Raises RunError if it cannot be read.
    """
    if (format_ := read_json(folder / "config.json", _Format, RunError)["format"]) != FORMAT:
        raise RunError(f"{folder} is of format {format_[:40]!r}; this version reads {FORMAT!r}")
    config: dict[str, Any] = {**read_json(folder / "config.json", _Config, RunError)}
    nodes = read_json(folder / "nodes.json", list[KernelNode], RunError)
    lengths = {int(number): length for number, length in config["lengths"].items()}
    storages = _unpacked(folder / "inputs.safetensors", lengths)
    recorded = {} if config["runs_on"] is not None else _unpacked(folder / "recorded.safetensors", lengths)
    arguments = tuple(
        Argument(**{**vars(one), "dtype": DTYPES[one.dtype] if one.dtype else None}) for one in config["arguments"]
    )
    case = KernelCase(
        config["function"], _text(folder / "kernel.py"), _text(folder / "kernel.ttir"), config["target"],
        config["types"], config["config"], arguments, config["grid"], storages, config["outputs"], recorded,
        tuple(dict(node) for node in nodes), trusted=trust and config["compiled"] == "source",
    )  # fmt: skip
    for one in case.written:
        if one.storage is None:
            raise RunError(f"{folder} is damaged: output {one.name} is no tensor")
    return case, config


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def _unpacked(path: Path, lengths: Mapping[int, int]) -> dict[int, torch.Tensor]:
    """Storages with their lengths restored. Raises RunError."""
    found = {}
    try:
        stored = load(read_bytes(path))
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    for name, values in stored.items():
        if not name.isdecimal() or not values.numel() <= lengths.get(int(name), -1) <= _LONGEST:
            raise RunError(f"{path} is damaged: config.json states no length for its storage {name[:20]!r}")
        whole = torch.zeros(lengths[int(name)], dtype=values.dtype)
        whole[: values.numel()] = values.reshape(-1)
        found[int(name)] = whole
    return found


def rerun(folder: Path, *, trust: bool = False) -> int:
    """Run the kernel of a folder, judge it, and print the verdict and the worst elements.

    ``trust``: see ``load_case``. Returns 1 if the verdict's class is still the recorded one, 2 if the kernel cannot be
    run, else 0.
    """
    try:
        case, config = load_case(folder, trust=trust)
        target = config["runs_on"]
        if target is not None and config["compiled"] == "source" and not trust:
            raise OptionError(f"{folder} shows its fault from kernel.py, which is executed for that: give trust=True")
        found = judge_case(case, case.recorded if target is None else execute(case, target))
    except TorchportError as error:
        print(f"error: {error}")
        return 2
    where = f"on {target}" if target else f"recorded on {case.target}; it does not show here"
    print(f"{case.function} {where}: {found.level}{f' by the gate {found.gate}' if found.gate else ''}")
    for one in found.tensors:
        for reason in one.reasons:
            print(f"  {one.argument}: {reason}")
        for index, y, reference in one.errors.worst[:4] if one.errors is not None and one.reasons else ():
            place = [int(i) for i in torch.unravel_index(torch.tensor(index), one.shape)] if one.shape else []
            print(f"  {one.argument}{place}: {y!r} instead of {reference!r}")
    expected = (config["expected"]["level"], config["expected"]["gate"])
    same = found.kind == expected
    print("reproduced" if same else f"not reproduced: expected {' '.join(expected).strip()}")
    return int(same)
