"""``torchport repro``: a folder that reproduces one kernel of a run alone (docs/numerics/verdicts.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

import torchport
from torchport.errors import RunError, TorchportError
from torchport.files import write_whole
from torchport.numerics.recording.memory import dtype_name
from torchport.numerics.verdicts.replay import Argument
from torchport.precision.case import CaseVerdict, KernelCase, execute, judge_case, reproduced_on
from torchport.precision.shrink import Shrinker, Size, size_of, trimmed
from torchport.triton.source import triton_kernel

__all__ = ["FORMAT", "Reproduction", "load_case", "reproduce", "rerun", "write_case"]

FORMAT = "torchport.repro/1"

_SCRIPT = '''"""Kernel {function} of {path}, launch {seq}, alone: expected {expected}.

    python run.py     # needs torchport; exit status 1 while the fault is still there, 0 when it is not

config.json says where it runs, kernel.py is its source, nodes.txt what it computes.
"""

import sys
from pathlib import Path

from torchport.precision.reproduce import rerun

sys.exit(rerun(Path(__file__).resolve().parent))
'''


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
        "options": dict(triton_kernel(case.function, case.source).options),
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
        "nodes.txt": "\n".join(_lines(case)) + "\n",
        "config.json": json.dumps(config, indent=1, default=str) + "\n",
        "run.py": _SCRIPT.format(function=case.function, path=path, seq=seq, expected=expected),
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


def load_case(folder: Path) -> tuple[KernelCase, dict[str, Any]]:
    """The case that ``write_case`` wrote, and config.json. Raises RunError if it cannot be read."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        if config.get("format") != FORMAT:
            raise RunError(f"{folder} is of format {config.get('format')!r}; this version reads {FORMAT!r}")
        lengths = {int(number): length for number, length in config["lengths"].items()}
        storages = _unpacked(folder / "inputs.safetensors", lengths)
        recorded = {} if config["runs_on"] is not None else _unpacked(folder / "recorded.safetensors", lengths)
        arguments = tuple(
            Argument(**{
                **one, "dtype": getattr(torch, one["dtype"]) if one["dtype"] else None,
                "shape": tuple(one["shape"]), "stride": tuple(one["stride"]),
            })
            for one in config["arguments"]
        )  # fmt: skip
        x, y, z = config["grid"]
        case = KernelCase(
            config["function"], (folder / "kernel.py").read_text(), (folder / "kernel.ttir").read_text(),
            config["target"], config["types"], config["config"], arguments, (x, y, z), storages,
            tuple(config["outputs"]), recorded, tuple(json.loads((folder / "nodes.json").read_bytes())),
        )  # fmt: skip
    except OSError as error:
        raise RunError(f"{folder} is no folder of torchport repro: {error.filename}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RunError(f"{folder} is damaged: {type(error).__name__}: {error}") from error
    return case, config


def _unpacked(path: Path, lengths: Mapping[int, int]) -> dict[int, torch.Tensor]:
    found = {}
    for name, values in load(path.read_bytes()).items():
        whole = torch.zeros(lengths[int(name)], dtype=values.dtype)
        whole[: values.numel()] = values
        found[int(name)] = whole
    return found


def rerun(folder: Path) -> int:
    """Run the kernel of a folder, judge it, and print the verdict and the worst elements.

    Returns 1 if the verdict's class is still the recorded one, 2 if the kernel cannot be run, else 0.
    """
    try:
        case, config = load_case(folder)
        target = config["runs_on"]
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
