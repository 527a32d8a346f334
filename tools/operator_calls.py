"""Writes torchport/prebuild/calls.jsonl: which operators models call on a torch device, with what types and layouts.

    python tools/operator_calls.py                   # all models, some minutes
    python tools/operator_calls.py llama hf:t5 --output /tmp/calls.jsonl

The models of tools/device_coverage.py, trained on two examples and run on one, in float32 and in bfloat16. Calls whose
code is the same are one line. Those that a single model makes are left out, and those that the CPU refuses with ones
and zeros for numbers.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from operator_census.calls import Kind, record
from operator_census.programs import Program, inferences, training_steps

import torchport
from torchport.prebuild.recorded import FILE, Recorded, encoded
from torchport.torch_device.arguments import Call, family

_SIZES = re.compile(r"SymInt(?:\[\d*\])?\?? (\w+)")


def alike(operator: Any, args: Sequence[Any], kwargs: Any) -> Any:
    """What calls whose code is the same have in common; the code of few operators depends on the sizes they are given.

    ``torchport.torch_device.arguments.family``, without sizes.
    """
    sizes = set(_SIZES.findall(str(operator._schema)))
    names = [argument.name for argument in operator._schema.arguments]

    def masked(name: str, value: Any) -> Any:
        if name not in sizes or value is None:
            return value
        return len(value) if isinstance(value, (list, tuple)) else 0

    shown = tuple(masked(name, value) for name, value in zip(names, args, strict=False))
    return operator, family(Call(operator, shown, {name: masked(name, v) for name, v in kwargs.items()}, True).key)


def taken(call: Recorded, dtype: torch.dtype) -> bool:
    """Whether the CPU takes a call with the numbers that stand for a model's; it may lack the type."""
    try:
        call.run(dtype, torch.device("cpu"))
    except NotImplementedError:
        return True
    except (RuntimeError, IndexError, ValueError) as error:
        print(f"left out: {call.operator}: {str(error)[:100]}", flush=True)
        return False
    return True


def lines(names: Sequence[str], device: torch.device) -> list[list[Any]]:
    """The lines of the file: operator, arguments, named arguments, types of models, how many models."""
    models: defaultdict[str, set[str]] = defaultdict(set)
    types: defaultdict[str, set[str]] = defaultdict(set)
    for dtype in (torch.float32, torch.bfloat16):
        programs: dict[str, list[Program]] = defaultdict(list)
        for name, run in (*training_steps(dtype).items(), *inferences(dtype).items()):
            programs[name].append(run)
        kinds: dict[Any, Kind] = {}
        for name in names or programs:
            for run in programs[name]:
                try:
                    record(name, run, device, kinds, alike)
                except (RuntimeError, NotImplementedError, ValueError, TypeError, LookupError) as error:
                    print(f"{name} in {dtype} stopped: {type(error).__name__}: {str(error)[:100]}", flush=True)
            print(f"{name} in {dtype}: {len(kinds)} kinds of calls so far", flush=True)
        for kind in kinds.values():
            named = {name: encoded(value, dtype) for name, value in kind.kwargs.items()}
            call = Recorded(str(kind.operator), encoded(kind.args, dtype), named, (), len(kind.models))
            if taken(call, dtype):
                line = json.dumps([call.operator, call.args, call.kwargs])
                models[line] |= kind.models
                types[line].add(str(dtype).removeprefix("torch."))
    several = [line for line in models if len(models[line]) > 1]
    ordered = sorted(several, key=lambda line: (-len(models[line]), line))
    return [[*json.loads(line), sorted(types[line]), len(models[line])] for line in ordered]


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="the zoo's by name, transformers' as hf:NAME; all of them by default")
    parser.add_argument("--target", default="opencl")
    parser.add_argument("--output", type=Path, default=FILE)
    options = parser.parse_args()
    found = lines(options.models, torchport.device(options.target))
    options.output.write_text("".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in found))
    print(f"{len(found)} calls of {len({line[0] for line in found})} operators in {options.output}")


if __name__ == "__main__":
    main()
