"""Which operators of models a torch device computes itself, and which fall back to the host, with the reason.

    python tools/device_coverage.py                  # the zoo, and 50 architectures of transformers, opencl
    python tools/device_coverage.py llama t5 --census

Models are small. Each runs forward and backward in eager mode on the device while the host computes, which needs no
compiler; then each kind of call (an operator with arguments of certain types) is made once on the device, and its
results are compared with the CPU's.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import torch
from operator_census.calls import Kind, moved, record
from operator_census.programs import training_steps
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils._pytree import tree_leaves

import torchport
from torchport.runtime import events

_aten = torch.ops.aten
_SPECIFIED = {
    _aten.sort.default: 1, _aten.topk.default: 1, _aten._embedding_bag.default: 1, _aten._ctc_loss.Tensor: 1,
}  # fmt: skip
"""How many results of an operator are compared: each device chooses which of equal elements comes first, and what its
gradients are given."""


def trial(kind: Kind, device: torch.device) -> str:
    """What came of one call on the device: ``device``, or why not, or what is wrong."""
    cpu = torch.device("cpu")
    torchport.fallbacks(reset=True)
    here, there = moved((kind.args, kind.kwargs), cpu), moved((kind.args, kind.kwargs), device)
    try:
        wanted = kind.operator(*here[0], **here[1])
    except NotImplementedError:  # the CPU lacks the type
        wanted = None
    with events.capture() as happened:
        got = kind.operator(*there[0], **there[1])
    if reasons := [event.reason for event in happened if isinstance(event, events.Fallback)]:
        return f"host: {reasons[0]}"
    if wanted is None:
        return "device"
    specified = _SPECIFIED.get(kind.operator)
    pairs = zip(tree_leaves(moved((got, there), cpu)), tree_leaves((wanted, here)), strict=True)
    for mine, theirs in itertools.islice(pairs, specified):
        if isinstance(theirs, torch.Tensor) and torch.Tag.nondeterministic_seeded not in kind.operator.tags:
            try:
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)
            except AssertionError as error:
                return f"WRONG: {str(error).splitlines()[0]}"
    return "device"


def types(kind: Kind) -> str:
    """The types of the tensors of a kind of call."""
    leaves = tree_leaves((kind.args, kind.kwargs))
    return " ".join(str(leaf.dtype).removeprefix("torch.") for leaf in leaves if isinstance(leaf, torch.Tensor))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="the zoo's by name, transformers' as hf:NAME; all of them by default")
    parser.add_argument("--target", default="opencl")
    parser.add_argument("--census", action="store_true", help="only count, do not try the operators")
    options = parser.parse_args()
    device = torchport.device(options.target)
    console = Console(width=200, emoji=False)
    kinds: dict[Any, Kind] = {}
    programs = training_steps()
    for name in options.models or programs:
        try:
            record(name, programs[name], device, kinds)
        except (RuntimeError, NotImplementedError, ValueError, TypeError, LookupError) as error:
            console.print(f"{name} stopped: {type(error).__name__}: {str(error)[:200]}")
        console.print(f"{name}: {sum(name in kind.models for kind in kinds.values())} kinds of calls")
    ordered = sorted(kinds.values(), key=lambda kind: (-len(kind.models), str(kind.operator)))
    tried = [(kind, "" if options.census else trial(kind, device)) for kind in track(ordered, console=console)]
    table = Table("operator", "types", "models", "where")
    for kind, where in tried:
        table.add_row(str(kind.operator), types(kind), str(len(kind.models)), where)
    console.print(table)


if __name__ == "__main__":
    main()
